"""Reads inside a transaction of the ledger: appending what is new, and the newest of each."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from ssl_core.errors import LedgerError
from ssl_core.history import label_events, schema
from ssl_core.records import Assignment, HeldRead, Label, Read, Rejection, Taken, Task

Pair = tuple[str, str]  # item and reader
ANSWERED = ("read", "unusable")


def append(connection: Connection, task: Task, reads: Iterable[Read], round_number: int) -> Taken:
    """Append the reads that say something new, with their labels; tell how many did.

    A read whose key is held is passed over, and so is one that takes back, or skips, what was
    said elsewhere or never. An answer to what the same reader answered elsewhere is refused:
    which of the two holds is theirs to say.
    Raises `LedgerError` for an item that was not put in front of that reader, or a mask that
    belongs to no answer.
    """
    added, refused = 0, list[Rejection]()
    for chunk in schema.chunks(reads):
        asked = _asked(connection, chunk)
        new, doubled = _new(connection, chunk)
        refused += doubled
        rows = [_held(read, asked, round_number) for read, _ in new]
        sources = [read.source for read, _ in new]
        _append_rows(connection, rows, sources)
        labels = [label for read, before in new for label in _labels(task, read, before, asked)]
        label_events.append(connection, task, labels, round_number)
        added += len(new)
    return Taken(added, tuple(refused))


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
    source: str = ""


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
        place=read.place,
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


def _new(
    connection: Connection, reads: Sequence[Read]
) -> tuple[list[tuple[Read, HeldRead | None]], list[Rejection]]:
    """The reads that say something new, each with what its reader had done before; and refusals."""
    table = schema.reads
    keys = {read.key for read in reads}
    held = set(connection.scalars(select(table.c.key).where(table.c.key.in_(keys))))
    items = {read.item_id for read in reads}
    query = newest(item_ids=items)
    last: dict[Pair, Any] = {
        (one.item_id, one.reader): one for one in schema.fetch(connection, HeldRead, query)
    }
    new, refused = [], []
    for read in reads:
        before = last.get((read.item_id, read.reader))
        if read.key in held or _says_nothing(read, before):
            continue
        if before is not None and _answered_elsewhere(read, before):
            refused.append(_doubled(read, before))
            continue
        held.add(read.key)
        last[read.item_id, read.reader] = read
        new.append((read, before))
    return new, refused


def _says_nothing(read: Read, before: HeldRead | None) -> bool:
    """Whether a read leaves what its reader had done before as it is."""
    if before is None:
        return read.outcome == "withdrawn"
    here = read.place == before.place
    if read.outcome == "withdrawn":
        return before.outcome == "withdrawn" or not here
    if read.outcome == "skipped":
        return before.outcome == "skipped" if here else before.outcome in ANSWERED
    return False


def _answered_elsewhere(read: Read, before: HeldRead) -> bool:
    both = read.outcome in ANSWERED and before.outcome in ANSWERED
    return both and read.place != before.place


def _doubled(read: Read, before: HeldRead) -> Rejection:
    return Rejection(
        read.place or read.key,
        f"{read.reader} answered the same image in {before.place or before.key} too: delete the "
        "answer that does not hold (the one here is not taken)",
    )


def _labels(
    task: Task, read: Read, before: HeldRead | None, asked: dict[Pair, Assignment]
) -> Iterator[Label]:
    """A read's answers as labels; what its reader had said before and says no more is unknown."""
    said = dict(read.answers) if read.outcome == "read" else {}
    if before is not None and before.outcome == "read":
        said |= {finding: math.nan for finding in task.findings if finding not in said}
    answered, masks = {finding for finding, _ in read.answers}, dict(read.masks)
    if stray := masks.keys() - answered:
        raise LedgerError(
            f"Read {read.key!r} has a mask of {min(stray)!r}, about which it says nothing; answer "
            "every finding that was drawn."
        )
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
            role=role if finding in answered else "reader",  # what is taken back decides nothing
            mask=masks.get(finding),
        )
