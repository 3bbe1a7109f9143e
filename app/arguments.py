"""Arguments that several commands share, and options that hold several values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssl_core.errors import ConfigError

WorkspacePath = Annotated[Path, typer.Argument(metavar="WORKSPACE", help="The workspace's folder.")]


def words(text: str) -> list[str]:
    """The words between the commas, without blanks and empty ones."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers. Raises `ConfigError`, which names the option, for anything else."""
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: give whole numbers, by commas.") from None
