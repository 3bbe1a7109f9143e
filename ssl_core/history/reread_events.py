"""Re-reads inside a transaction of the ledger: why an item was put before one reader more.

A re-read is an assignment like any other. Readers who keep an item in reserve were asked about it
already, and the ledger takes no second question to them: theirs is raised when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from ssl_core.history import schema
from ssl_core.records import Assignment, ReaderRole, Reread


def held(connection: Connection) -> list[Reread]:
    """All of them, in the order they were asked."""
    table = schema.rereads
    query = schema.select_records(table, Reread).order_by(table.c.seq)
    return schema.fetch(connection, Reread, query)


def append(connection: Connection, rereads: Sequence[Reread], adjudicator: str) -> int:
    """Append those of items that were not re-read yet, and the assignments that are missing."""
    known = set(connection.scalars(select(schema.rereads.c.item_id)))
    new = [one for one in rereads if one.item_id not in known]
    schema.append(connection, schema.rereads, new, at=schema.now())
    table = schema.assignments
    pairs = connection.execute(select(table.c.item_id, table.c.reader))
    asked = {(row.item_id, row.reader) for row in pairs}
    more = [_assignment(r, adjudicator) for r in new if (r.item_id, r.reader) not in asked]
    schema.append(connection, table, more, at=schema.now())
    return len(new)


def raised(assignments: Iterable[Assignment], rereads: Iterable[Reread]) -> list[Assignment]:
    """The assignments, with those of re-reads in their place: another primary reader's."""
    of = {(one.item_id, one.reader): one for one in rereads}
    return [
        replace(a, round=r.round, priority=r.priority, primary=True)
        if (r := of.get((a.item_id, a.reader))) is not None
        else a
        for a in assignments
    ]


def _assignment(one: Reread, adjudicator: str) -> Assignment:
    role: ReaderRole = "adjudicator" if one.reader == adjudicator else "reader"
    return Assignment(one.item_id, one.reader, one.round, one.priority, role=role)
