"""Which reading room a workspace's questions go to."""

from __future__ import annotations

from connectors.archive import ArchiveRoom
from connectors.memory import MemoryRoom
from ssl_core.ledger import Ledger
from ssl_core.source import ReadingRoom


def room_for(ledger: Ledger) -> ReadingRoom:
    """The simulated reader of an archive; otherwise nobody answers (the queue is in the ledger)."""
    return ArchiveRoom(ledger.answers) if ledger.has_answers() else MemoryRoom()
