"""Options that hold several values: words or numbers, by commas."""

from __future__ import annotations

from ssl_core.errors import ConfigError


def words(text: str) -> list[str]:
    """The words between the commas, without blanks and empty ones."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers. Raises `ConfigError`, which names the option, for anything else."""
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: give whole numbers, by commas.") from None
