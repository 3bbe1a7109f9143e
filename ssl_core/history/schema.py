"""The ledger's tables as the code sees them today, and how records become rows and back.

Columns carry the names of the records' fields, so that one function maps every record. Keys,
checks and the triggers that keep history are made in `migrations`; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from itertools import chain, islice
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    TypeDecorator,
    select,
)

T = TypeVar("T")

CHUNK = 5_000  # rows or ids a statement: memory stays flat, and SQLite binds 32,766 at the most


class Number(TypeDecorator[float]):
    """A float whose NaN is NULL in the database, since SQLite has no NaN."""

    impl = Double
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        """Turn NULL into NaN on the way out."""
        return math.nan if value is None else value


metadata = MetaData()


def _table(name: str, key: str, /, **columns: Any) -> Table:
    """A table whose integer key grows with every row: it is the order of events."""
    typed = [Column(column, kind) for column, kind in columns.items()]
    return Table(name, metadata, Column(key, BigInteger, primary_key=True), *typed)


ledger_migrations = _table("ledger_migrations", "version", name=Text, at=Text)
meta = _table("meta", "id", kind=Text, findings=Text, at=Text)

items = _table("items", "seq", id=Text, group=Text, split=Text, path=Text, at=Text)
answers = _table("answers", "seq", item_id=Text, finding=Text, value=Number, mask=Text)
labels = _table(
    "labels",
    "seq",
    item_id=Text,
    finding=Text,
    value=Number,
    reader=Text,
    source=Text,
    key=Text,
    seconds=Double,
    round=Integer,
    role=Text,
    mask=Text,
    at=Text,
)
assignments = _table(
    "assignments",
    "seq",
    item_id=Text,
    reader=Text,
    round=Integer,
    priority=BigInteger,
    primary=Boolean,
    role=Text,
    hinted=Boolean,
    at=Text,
)
hints = _table(
    "hints",
    "seq",
    item_id=Text,
    finding=Text,
    value=Number,
    score=Number,
    model_id=Text,
    mask=Text,
    at=Text,
)
reads = _table(
    "reads",
    "seq",
    key=Text,
    item_id=Text,
    reader=Text,
    source=Text,
    outcome=Text,
    reason=Text,
    seconds=Double,
    read_at=Text,
    role=Text,
    hinted=Boolean,
    round=Integer,
    place=Text,
    at=Text,
)
rereads = _table(
    "rereads",
    "seq",
    item_id=Text,
    reader=Text,
    round=Integer,
    priority=BigInteger,
    kind=Text,
    pair=Integer,
    finding=Text,
    value=Number,
    confidence=Number,
    model_id=Text,
    after=BigInteger,
    at=Text,
)
bookmarks = _table("bookmarks", "seq", room=Text, bookmark=Text, at=Text)
vault_looks = _table("vault_looks", "seq", round=Integer, model_id=Text, purpose=Text, at=Text)

rounds = _table(
    "rounds",
    "number",
    seed=BigInteger,
    query_size=Integer,
    strategy=Text,
    recipe=Text,
    config=Text,
    at=Text,
)
round_ends = _table("round_ends", "round", detail=Text, at=Text)
stages = _table(
    "stages",
    "seq",
    round=Integer,
    position=Integer,
    name=Text,
    kind=Text,
    detail=Text,
    seconds=Double,
    at=Text,
)

# What a stage made. `added_by` is the name of the stage in whose transaction the row came; a
# model or a measurement may speak of another stage in its own `stage`.
selections = _table(
    "selections",
    "seq",
    round=Integer,
    added_by=Text,
    item_id=Text,
    rank=Integer,
    kind=Text,
    strategy=Text,
    score=Number,
    probability=Number,
    slice_probability=Number,
    reason=Text,
)
pseudo_labels = _table(
    "pseudo_labels",
    "seq",
    round=Integer,
    added_by=Text,
    item_id=Text,
    finding=Text,
    value=Number,
    score=Number,
    mask=Text,
)
models = _table(
    "models",
    "seq",
    round=Integer,
    added_by=Text,
    id=Text,
    stage=Text,
    backbone=Text,
    path=Text,
)
measurements = _table(
    "measurements",
    "seq",
    round=Integer,
    added_by=Text,
    model_id=Text,
    stage=Text,
    split=Text,
    finding=Text,
    name=Text,
    value=Number,
    low=Number,
    high=Number,
    n=Integer,
)

# Rounds that were started as jobs, and what became of them (see `jobs`).
jobs = _table("jobs", "id", kind=Text, options=Text, asked_by=Text, resumes=Integer, at=Text)
job_events = _table("job_events", "seq", job=Integer, kind=Text, detail=Text, at=Text)
promotions = _table(
    "promotions",
    "seq",
    kind=Text,
    round=Integer,
    model_id=Text,
    stage=Text,
    replaced_round=Integer,
    replaced_id=Text,
    replaced_stage=Text,
    decided_by=Text,
    why=Text,
    verdict=Text,
    at=Text,
)


def now() -> str:
    """The time in UTC as ISO 8601, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Cut any iterable into lists of at most `CHUNK`, lazily."""
    left = iter(values)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def append(connection: Connection, table: Table, records: Iterable[Any], **more: object) -> None:
    """Insert records of one class in their order, lazily; `more` is in every row and wins.

    A million pseudo-labels must not take minutes, so rows go to the driver as tuples: SQLAlchemy
    would spend most of the time on its way from dictionaries to parameters.
    """
    left = iter(records)
    if (first := next(left, None)) is None:
        return
    names = [field.name for field in fields(first) if field.name not in more]
    values, tail = attrgetter(*names), tuple(more.values())
    rows = ((*map(_null_for_nan, values(record)), *tail) for record in chain([first], left))
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in (*names, *more))
    if connection.dialect.name == "postgresql":
        _copy(connection, f"COPY {table.name} ({columns}) FROM STDIN", rows)
    else:
        blanks = ", ".join("?" for _ in (*names, *more))
        for chunk in chunks(rows):
            statement = f"INSERT INTO {table.name} ({columns}) VALUES ({blanks})"
            connection.exec_driver_sql(statement, chunk)


def _null_for_nan(value: object) -> object:
    return None if value != value else value


def _copy(connection: Connection, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def select_records(table: Table, record: type, *leading: str) -> Select[Any]:
    """Select the columns that make up a record, after the `leading` ones."""
    names = (*leading, *(field.name for field in fields(record)))
    return select(*(table.c[name] for name in names))


def fetch(connection: Connection, record: type[T], query: Select[Any]) -> list[T]:
    """The records that a `select_records` of this class finds."""
    streamed = connection.execute(query.execution_options(yield_per=CHUNK))
    return [record(*row) for row in streamed]
