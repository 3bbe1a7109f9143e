"""The exception tree: every message is one sentence that names the thing and says what to do."""

from __future__ import annotations


class ReadloopError(Exception):
    """Base of everything a user can mend; the CLI prints it as one line and exits with 2."""


class ConfigError(ReadloopError):
    """A configuration file or option holds a value that cannot be used."""


class ImportRefusedError(ReadloopError):
    """A manifest or its images cannot become a workspace."""


class ImageError(ReadloopError):
    """One image file cannot be read as a picture."""


class LedgerError(ReadloopError):
    """The ledger is missing, of another version, or was asked to change its history."""


class WorkspaceError(ReadloopError):
    """A workspace is missing, in use, or not in the state that a command needs."""


class TrainingError(ReadloopError):
    """A model cannot be trained on the labels at hand."""


class SelectionError(ReadloopError):
    """A selection cannot be drawn from the pool as asked."""


class MapError(ReadloopError):
    """The map of a round is missing, damaged or could not be made; the round itself is whole."""


class ReadingRoomError(ReadloopError):
    """The reading room cannot be reached or refuses; what was read and synced before is kept."""


class Cancelled(ReadloopError):
    """Long work was stopped on request; what was finished is kept and can be resumed."""


class Replaced(Cancelled):
    """A job must write nothing more: it is over, or another has taken its place."""
