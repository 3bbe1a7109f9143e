"""Which reading room a workspace's questions go to."""

from __future__ import annotations

from connectors.archive import ArchiveRoom
from ssl_core.history.ledger import Ledger
from ssl_core.source import ReadingRoom
from ssl_core.workspace import Workspace


def is_archive(ws: Workspace) -> bool:
    """Whether a simulated reader answers, from the labels that the import hid."""
    chosen = ws.config.reading.room
    return chosen == "archive" or (chosen == "auto" and ws.ledger.has_answers())


def archive_room(ledger: Ledger) -> ReadingRoom:
    """The simulated reader of a ledger with hidden answers."""
    return ArchiveRoom(ledger.answers)


def simulated_room(ws: Workspace) -> ReadingRoom | None:
    """The simulated reader of an archive; None where people read, at their own time."""
    return archive_room(ws.ledger) if is_archive(ws) else None
