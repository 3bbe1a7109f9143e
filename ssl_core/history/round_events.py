"""Rounds inside a transaction of the ledger: which is open, which is next, which is over."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from ssl_core.errors import LedgerError
from ssl_core.history import schema
from ssl_core.records import Round


def latest(connection: Connection) -> int:
    """The number of the latest round opened; 0 before the first."""
    number: int | None = connection.scalar(select(func.max(schema.rounds.c.number)))
    return number or 0


def is_finished(connection: Connection, number: int) -> bool:
    """Whether the round has its closing row."""
    ends = schema.round_ends.c.round
    return connection.scalar(select(ends).where(ends == number)) is not None


def refuse_unopened(connection: Connection, number: int) -> None:
    """Raise `LedgerError` for a round that was never opened."""
    newest = latest(connection)
    if not 1 <= number <= newest:  # numbers are consecutive
        raise LedgerError(f"Round {number} was never opened; the latest one is {newest}.")


def refuse_closed(connection: Connection, number: int) -> None:
    """Raise `LedgerError` for a round that is not open: history is only appended."""
    refuse_unopened(connection, number)
    if is_finished(connection, number):
        raise LedgerError(f"Round {number} is finished and takes nothing more; open the next one.")


def open_next(connection: Connection, round_: Round) -> None:
    """Append the round; raises `LedgerError` unless it is next and the one before is finished."""
    newest = latest(connection)
    if round_.number != newest + 1:
        raise LedgerError(f"Round {round_.number} cannot be opened: the next is {newest + 1}.")
    if newest and not is_finished(connection, newest):
        raise LedgerError(
            f"Round {round_.number} cannot be opened while round {newest} is unfinished; resume "
            "that one first."
        )
    schema.append(connection, schema.rounds, [round_], at=schema.now())


def finish(connection: Connection, number: int, detail: str) -> None:
    """Append the closing row of an open round; raises `LedgerError` otherwise."""
    refuse_closed(connection, number)
    row = {"round": number, "detail": detail, "at": schema.now()}
    connection.execute(insert(schema.round_ends), row)
