"""Small records for the tests of the ledger."""

from __future__ import annotations

import math

from sqlalchemy import func, select, text

from ssl_core.history import database
from ssl_core.history.ledger import Ledger
from ssl_core.records import (
    Assignment,
    Hint,
    Item,
    Label,
    Read,
    Round,
    Selection,
    Stage,
    Task,
)

NAN = math.nan
TASK = Task("multi_label", ("Effusion", "Nodule"))
ITEMS = [
    Item("t1", "anna", "train", "a/1.png"),
    Item("x1", "carl", "vault", "c/1.png"),
    Item("v1", "bea", "validation", "b/1.png"),
    Item("t2", "anna", "train", "a/2.png"),
    Item("x2", "carl", "vault", "c/2.png"),
]


def label(item_id, finding="Effusion", value=1.0, reader="ann", key=None, **more) -> Label:
    key = key or f"{reader}:{item_id}:{finding}:{value}"
    return Label(item_id, finding, value, reader, "label_studio", key, **more)


def round_(number: int) -> Round:
    return Round(number, 2**40 + number, 10, "margin", "teacher_student", '{"keep": 0.75}')


def stage(number=1, name="teacher", position=0) -> Stage:
    return Stage(number, position, name, "fit", '{"steps": 9}', 1.5)


def selection(item_id: str, rank: int, score: float = 0.5) -> Selection:
    kind = "random" if math.isnan(score) else "strategy"
    return Selection(item_id, rank, kind, "margin", score, 0.25, 0.125, "close to the border")


def same(found, expected) -> bool:
    """Equality of records in which NaN equals NaN."""
    return repr(found) == repr(expected)


def count(ledger: Ledger, table) -> int:
    with database.reading(ledger._engine) as connection:
        return connection.scalar(select(func.count()).select_from(table))


def raw(ledger: Ledger, statement: str) -> None:
    """SQL as another program would send it, with none of the ledger's own care."""
    with ledger._engine.begin() as connection:
        connection.execute(text(statement))


def asked(item_id: str, reader: str = "ann", round: int = 1, priority: int = 0, **more):
    return Assignment(item_id, reader, round, priority, **more)


def read(item_id, value=1.0, reader="ann", key=None, outcome="read", **more) -> Read:
    """What a reader did; a value stands for both findings."""
    answers = tuple((f, value) for f in TASK.findings) if outcome == "read" else ()
    more = {"answers": answers, **more}
    key = key or f"{reader}:{item_id}:{outcome}:{value}"
    return Read(key, item_id, reader, "label_studio", outcome, **more)


def hint(item_id: str, finding: str = "Effusion", value: float = 1.0) -> Hint:
    return Hint(item_id, finding, value, 0.75, "m-1")
