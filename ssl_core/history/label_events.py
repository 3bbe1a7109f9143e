"""Label events inside a transaction of the ledger: appending them once, replaying the newest."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, case, func, select

from ssl_core.errors import LedgerError
from ssl_core.history import schema
from ssl_core.records import SPLITS, Answer, Label, Split, Task

Meaning = tuple[str, str, float | None, str, str | None]


def append(connection: Connection, task: Task, labels: Iterable[Label], round_number: int) -> int:
    """Append the events whose key is not held yet, as of `round_number`; return how many.

    Raises `LedgerError` for an unknown item or finding, for a held key that says something else,
    or for a mask that is missing or out of place; `ValueError` for a value that is not 1.0, 0.0 or
    NaN.
    """
    added = 0
    for chunk in schema.chunks(labels):
        _check(connection, task, chunk)
        new = _not_held(connection, chunk)
        schema.append(connection, schema.labels, new, round=round_number, at=schema.now())
        added += len(new)
    return added


def with_masks(task: Task, answers: Iterable[Answer]) -> Iterator[Answer]:
    """The answers as they are. Raises `LedgerError` where `append` would, for their masks."""
    for answer in answers:
        _check_mask(task, answer, f"The answer about {answer.finding!r} of {answer.item_id!r}")
        yield answer


def latest(before_round: int | None, splits: Collection[Split]) -> Select[Any]:
    """Select what holds before a round: each reader's newest event on each finding of an item."""
    labels, items = schema.labels, schema.items
    newest = select(func.max(labels.c.seq))
    newest = newest.group_by(labels.c.item_id, labels.c.finding, labels.c.reader)
    if before_round is not None:
        newest = newest.where(labels.c.round < before_round)
    return (
        schema.select_records(labels, Label)
        .join(items, items.c.id == labels.c.item_id)
        .where(items.c.split.in_(splits), labels.c.seq.in_(newest))
        .order_by(labels.c.seq)
    )


def count_items(connection: Connection, before_round: int | None) -> dict[Split, int]:
    """How many distinct items of each split have an event before a round (None: until now)."""
    labels, items = schema.labels, schema.items
    labeled = select(labels.c.item_id)
    if before_round is not None:
        labeled = labeled.where(labels.c.round < before_round)
    query = select(items.c.split, func.count()).where(items.c.id.in_(labeled))
    found = connection.execute(query.group_by(items.c.split))
    counts: dict[Split, int] = {row.split: row[1] for row in found}
    return {split: counts.get(split, 0) for split in SPLITS}


def first_rounds(connection: Connection) -> list[tuple[Split, int, bool, int]]:
    """Split, round of the first event, whether one was imported, and how many items."""
    labels, items = schema.labels, schema.items
    imported = func.max(case((labels.c.source == "import", 1), else_=0))
    first = select(
        labels.c.item_id, func.min(labels.c.round).label("round"), imported.label("imported")
    )
    begun = first.group_by(labels.c.item_id).subquery()
    keys = (items.c.split, begun.c.round, begun.c.imported)
    query = select(*keys, func.count()).join(items, items.c.id == begun.c.item_id).group_by(*keys)
    found = connection.execute(query.order_by(*keys))
    return [(split, number, bool(came), count) for split, number, came, count in found]


def _check(connection: Connection, task: Task, labels: Sequence[Label]) -> None:
    item = schema.items.c.id
    asked = {label.item_id for label in labels}
    known = set(connection.scalars(select(item).where(item.in_(asked))))
    for label in labels:
        if label.finding not in task.findings:
            raise LedgerError(
                f"Label {label.key!r} is about the finding {label.finding!r}, which the task does "
                f"not have; its findings are {', '.join(task.findings)}."
            )
        if label.item_id not in known:
            raise LedgerError(
                f"Label {label.key!r} is about the item {label.item_id!r}, which was never "
                "imported; check that the labels belong to this workspace."
            )
        if not (label.value in (0.0, 1.0) or math.isnan(label.value)):
            raise ValueError(f"label {label.key!r} has the value {label.value}: not 1, 0 or NaN")
        _check_mask(task, label, f"Label {label.key!r}")


def _check_mask(task: Task, said: Label | Answer, name: str) -> None:
    """In segmentation what is present has a mask, and nothing else has one anywhere."""
    due = task.kind == "segmentation" and said.value == 1.0
    if due and said.mask is None:
        raise LedgerError(
            f"{name} says that the finding is present without a mask; give the digest of the mask, "
            "since the task is segmentation."
        )
    if said.mask is not None and not due:
        raise LedgerError(
            f"{name} has a mask, which belongs to a finding that is present in a segmentation "
            "task alone; leave the mask out."
        )


def _not_held(connection: Connection, labels: Sequence[Label]) -> list[Label]:
    keys = {label.key for label in labels}
    query = schema.select_records(schema.labels, Label).where(schema.labels.c.key.in_(keys))
    held = {label.key: _meaning(label) for label in schema.fetch(connection, Label, query)}
    new = []
    for label in labels:
        if label.key not in held:
            held[label.key] = _meaning(label)
            new.append(label)
        elif held[label.key] != _meaning(label):
            raise LedgerError(
                f"The label key {label.key!r} is taken by another answer; give the new answer a "
                "key of its own, since history is only appended."
            )
    return new


def _meaning(label: Label) -> Meaning:
    """What two events with one key must agree on; NaN as None, so that it equals itself."""
    value = None if math.isnan(label.value) else float(label.value)
    return label.item_id, label.finding, value, label.reader, label.mask
