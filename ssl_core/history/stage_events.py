"""What the stages of rounds made, inside a transaction of the ledger: appended once, and found."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table, select

from ssl_core.history import round_events, schema
from ssl_core.records import CONTROL, Measurement, Model, PseudoLabel, Selection, Stage

R = TypeVar("R")


def append(
    connection: Connection,
    stage: Stage,
    models: Iterable[Model],
    selections: Iterable[Selection],
    pseudo_labels: Iterable[PseudoLabel],
    measurements: Iterable[Measurement],
) -> bool:
    """Append a stage with all that it made; False, with nothing written, where it is held.

    Raises `LedgerError` if its round is not open.
    """
    table, parent = schema.stages, {"round": stage.round, "added_by": stage.name}
    same = (table.c.round == stage.round) & (table.c.name == stage.name)
    if connection.scalar(select(table.c.seq).where(same)) is not None:
        return False
    round_events.refuse_closed(connection, stage.round)
    schema.append(connection, table, [stage], at=schema.now())
    schema.append(connection, schema.models, models, **parent)
    schema.append(connection, schema.selections, selections, **parent)
    schema.append(connection, schema.pseudo_labels, pseudo_labels, **parent)
    schema.append(connection, schema.measurements, measurements, **parent)
    return True


def of_round(table: Table, record: type[Any], number: int) -> Select[Any]:
    """Select one kind of record of one round, in no order."""
    return schema.select_records(table, record).where(table.c.round == number)


def made(
    connection: Connection, table: Table, record: type[R], number: int | None
) -> list[tuple[int, R]]:
    """Records of a round (None: every round) with its number, oldest first."""
    query = schema.select_records(table, record, "round").order_by(table.c.seq)
    if number is not None:
        query = query.where(table.c.round == number)
    return _numbered(connection, record, query)


def selected(connection: Connection, before_round: int | None) -> list[tuple[int, Selection]]:
    """Selections of the rounds before this one (None: all), by round and rank."""
    table = schema.selections
    query = schema.select_records(table, Selection, "round")
    if before_round is not None:
        query = query.where(table.c.round < before_round)
    return _numbered(connection, Selection, query.order_by(table.c.round, table.c.rank))


def pseudo_labels(
    number: int, stage: str | None, item_ids: Collection[str] | None
) -> Iterator[Select[Any]]:
    """Select a round's pseudo-labels as `Ledger.pseudo_labels` says; a query for each chunk."""
    table = schema.pseudo_labels
    shadow = table.c.added_by.startswith(f"{CONTROL} ")
    query = of_round(table, PseudoLabel, number)
    query = query.where(~shadow if stage is None else table.c.added_by == stage)
    query = query.order_by(table.c.seq)
    if item_ids is None:
        yield query
    else:
        yield from (query.where(table.c.item_id.in_(c)) for c in schema.chunks(item_ids))


def _numbered(connection: Connection, record: type[R], query: Select[Any]) -> list[tuple[int, R]]:
    return [(row[0], record(*row[1:])) for row in connection.execute(query)]
