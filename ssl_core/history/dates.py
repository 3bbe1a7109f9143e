"""When things happened, by the database's clock: the import, and each round's opening and end."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from ssl_core.history import schema
from ssl_core.history.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Dates:
    """ISO 8601 in UTC. `imported` is None without items; `ended` holds closed rounds alone.

    `labeled` is when the newest label came, None before the first. Vault labels count: a time is
    no look at them.
    """

    imported: str | None
    labeled: str | None
    opened: dict[int, str]
    ended: dict[int, str]


def dates(ledger: Ledger) -> Dates:
    """Read them from a ledger."""
    rounds, ends = schema.rounds.c, schema.round_ends.c
    opened, ended = select(rounds.number, rounds.at), select(ends.round, ends.at)
    with ledger._reading() as connection:
        return Dates(
            imported=connection.scalar(select(func.min(schema.items.c.at))),
            labeled=connection.scalar(select(func.max(schema.labels.c.at))),
            opened={row.number: row.at for row in connection.execute(opened)},
            ended={row.round: row.at for row in connection.execute(ended)},
        )
