"""Reads inside a transaction of the ledger: appending what is new, and the newest of each."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from ssl_core import label_events, schema
from ssl_core.errors import LedgerError
from ssl_core.records import Assignment, HeldRead, Label, Read, Task

Pair = tuple[str, str]  # item and reader


def append(connection: Connection, task: Task, reads: Iterable[Read], round_number: int) -> int:
    """Append the reads that say something new, with their labels; return how many did.

    A read whose key is held is passed over, and so is one that takes back what was never said.
    Raises `LedgerError` for an item that was not put in front of that reader.
    """
    added = 0
    for chunk in schema.chunks(reads):
        asked = _asked(connection, chunk)
        new = _new(connection, chunk)
        rows = [_held(read, asked, round_number) for read, _ in new]
        sources = [read.source for read, _ in new]
        _append_rows(connection, rows, sources)
        labels = [label for read, before in new for label in _labels(task, read, before, asked)]
        label_events.append(connection, task, labels, round_number)
        added += len(new)
    return added


def newest(before_round: int | None = None, item_ids: Collection[str] | None = None) -> Select[Any]:
    """Select each reader's newest read of each item (None: of all), oldest first."""
    table = schema.reads
    last = select(func.max(table.c.seq)).group_by(table.c.item_id, table.c.reader)
    if item_ids is not None:
        last = last.where(table.c.item_id.in_(item_ids))
    if before_round is not None:
        last = last.where(table.c.round < before_round)
    query = schema.select_records(table, HeldRead).where(table.c.seq.in_(last))
    return query.order_by(table.c.seq)


@dataclass(frozen=True, slots=True)
class _Row(HeldRead):
    source: str


def _append_rows(connection: Connection, held: Sequence[HeldRead], sources: Sequence[str]) -> None:
    rows = (_Row(**asdict(one), source=s) for one, s in zip(held, sources, strict=True))
    schema.append(connection, schema.reads, rows, at=schema.now())


def _held(read: Read, asked: dict[Pair, Assignment], round_number: int) -> HeldRead:
    assignment = asked[read.item_id, read.reader]
    return HeldRead(
        key=read.key,
        item_id=read.item_id,
        reader=read.reader,
        outcome=read.outcome,
        reason=read.reason,
        seconds=read.seconds,
        read_at=read.read_at,
        role=assignment.role,
        hinted=assignment.hinted,
        round=round_number,
    )


def _asked(connection: Connection, reads: Sequence[Read]) -> dict[Pair, Assignment]:
    table = schema.assignments
    query = schema.select_records(table, Assignment)
    query = query.where(table.c.item_id.in_({read.item_id for read in reads}))
    found = {(a.item_id, a.reader): a for a in schema.fetch(connection, Assignment, query)}
    for read in reads:
        if (read.item_id, read.reader) not in found:
            raise LedgerError(
                f"Read {read.key!r} is of the item {read.item_id!r}, which {read.reader!r} was "
                "never asked to read; check that it belongs to this workspace."
            )
    return found


def _new(connection: Connection, reads: Sequence[Read]) -> list[tuple[Read, HeldRead | None]]:
    """The reads that say something new, each with what its reader had done before."""
    table = schema.reads
    keys = {read.key for read in reads}
    held = set(connection.scalars(select(table.c.key).where(table.c.key.in_(keys))))
    items = {read.item_id for read in reads}
    query = newest(item_ids=items)
    last: dict[Pair, Any] = {
        (one.item_id, one.reader): one for one in schema.fetch(connection, HeldRead, query)
    }
    new = []
    for read in reads:
        before = last.get((read.item_id, read.reader))
        nothing_said = before is None or before.outcome == "withdrawn"
        if read.key in held or (read.outcome == "withdrawn" and nothing_said):
            continue
        held.add(read.key)
        last[read.item_id, read.reader] = read
        new.append((read, before))
    return new


def _labels(
    task: Task, read: Read, before: HeldRead | None, asked: dict[Pair, Assignment]
) -> Iterator[Label]:
    """A read's answers as labels; what its reader had said before and says no more is unknown."""
    said = dict(read.answers) if read.outcome == "read" else {}
    if before is not None and before.outcome == "read":
        said |= {finding: math.nan for finding in task.findings if finding not in said}
    role = asked[read.item_id, read.reader].role
    for finding, value in said.items():
        yield Label(
            item_id=read.item_id,
            finding=finding,
            value=value,
            reader=read.reader,
            source=read.source,
            key=f"{read.key}:{finding}",
            seconds=read.seconds,
            role=role,
        )
