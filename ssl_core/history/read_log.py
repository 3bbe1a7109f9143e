"""The ledger's side of the reading room: who was asked, what they did, where a pull goes on.

Vault answers are not shown here: reads tell who read what, and `disagreements` only which items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Engine, Select, func, insert, select

from ssl_core.history import (
    database,
    label_events,
    read_events,
    reread_events,
    round_events,
    schema,
)
from ssl_core.history.truth import Apart, disagreements, unusable_items
from ssl_core.records import (
    SPLITS,
    Assignment,
    HeldRead,
    Hint,
    Label,
    Pulled,
    Reread,
    Taken,
    Task,
)


class ReadLog:
    """Assignments, hints, reads and bookmarks, append-only; `Ledger.reading` is one.

    Every method raises `LedgerError` when the database cannot be reached, read or written.
    """

    def __init__(self, engine: Engine, task: Task) -> None:
        self._engine = engine
        self._task = task

    def assign(self, assignments: Iterable[Assignment], hints: Iterable[Hint] = ()) -> int:
        """Append who is to read what, and return how many were new.

        An item that a reader was asked about before, and a hint that was given, stay as they are.
        """
        with database.writing(self._engine) as connection:
            table = schema.assignments
            pairs = select(table.c.item_id, table.c.reader)
            held = {(row.item_id, row.reader) for row in connection.execute(pairs)}
            new = [a for a in assignments if (a.item_id, a.reader) not in held]
            schema.append(connection, table, new, at=schema.now())
            known = set(connection.scalars(select(schema.hints.c.item_id)))
            shown = [hint for hint in hints if hint.item_id not in known]
            schema.append(connection, schema.hints, shown, at=schema.now())
        return len(new)

    def assignments(self) -> list[Assignment]:
        """Everything that was put in front of readers, in the order it was.

        A reader who was to read an item once more stands there as one of its primary readers.
        """
        query = schema.select_records(schema.assignments, Assignment)
        with database.reading(self._engine) as connection:
            ordered = query.order_by(schema.assignments.c.seq)
            held = schema.fetch(connection, Assignment, ordered)
            return reread_events.raised(held, reread_events.held(connection))

    def ask_again(self, rereads: Sequence[Reread], adjudicator: str = "") -> int:
        """Append who is to read what once more; return how many were new.

        An item is re-read once: one that is held, stays as it is.
        """
        with database.writing(self._engine) as connection:
            return reread_events.append(connection, rereads, adjudicator)

    def rereads(self) -> list[Reread]:
        """Every item that was put before another reader once more, in the order it was."""
        with database.reading(self._engine) as connection:
            return reread_events.held(connection)

    def hints(self) -> dict[str, list[Hint]]:
        """What hinted readers are shown, by item."""
        query = schema.select_records(schema.hints, Hint).order_by(schema.hints.c.seq)
        shown: dict[str, list[Hint]] = {}
        with database.reading(self._engine) as connection:
            for hint in schema.fetch(connection, Hint, query):
                shown.setdefault(hint.item_id, []).append(hint)
        return shown

    def take(self, room: str, page: Pulled) -> Taken:
        """Append a page of a pull and its bookmark, all or nothing; tell how many reads were new.

        The bookmark stays where it was while a read of the page is refused, so that the read is
        told again until the reader mends it.
        Raises `LedgerError` for a read of an item that its reader was not asked about.
        """
        with database.writing(self._engine) as connection:
            number = round_events.latest(connection)
            taken = read_events.append(connection, self._task, page.reads, number)
            bookmark = "" if taken.refused else page.bookmark
            if bookmark and bookmark != connection.scalar(_bookmark(room)):
                row = {"room": room, "bookmark": bookmark, "at": schema.now()}
                connection.execute(insert(schema.bookmarks), row)
        return taken

    def bookmark(self, room: str) -> str:
        """Where the next pull from a room goes on; "" before the first."""
        with database.reading(self._engine) as connection:
            return connection.scalar(_bookmark(room)) or ""

    def reads(self, before_round: int | None = None) -> list[HeldRead]:
        """Each reader's newest read of each item, of all splits, oldest first."""
        with database.reading(self._engine) as connection:
            return schema.fetch(connection, HeldRead, read_events.newest(before_round))

    def unusable(self, before_round: int | None = None) -> set[str]:
        """The items that are out because their image cannot be read (see `truth`)."""
        return unusable_items(self.reads(before_round))

    def disagreements(self, masks_apart: Apart | None = None) -> list[str]:
        """The items on which readers disagree and no adjudicator has read, oldest first.

        `masks_apart` tells whether two masks of one finding do, see `truth.disagreements`.

        It looks at vault labels too, but tells only the item: a second reader, not a model,
        is what they are held against.
        """
        with database.reading(self._engine) as connection:
            reads = schema.fetch(connection, HeldRead, read_events.newest())
            twice = schema.labels.c.item_id.in_(_read_twice())
            query = label_events.latest(None, SPLITS).where(twice)
            labels = schema.fetch(connection, Label, query)
        return disagreements(reads, labels, masks_apart)


def _bookmark(room: str) -> Select[Any]:
    table = schema.bookmarks
    query = select(table.c.bookmark).where(table.c.room == room)
    return query.order_by(table.c.seq.desc()).limit(1)


def _read_twice() -> Select[Any]:
    table = schema.reads
    readers = func.count(table.c.reader.distinct())
    return select(table.c.item_id).group_by(table.c.item_id).having(readers > 1)
