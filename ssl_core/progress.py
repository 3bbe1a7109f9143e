"""How long work speaks to whoever watches: one small event, one callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` steps of `stage`; `note` is a short figure worth showing, or empty."""

    stage: str
    done: int
    total: int
    note: str = ""


Report = Callable[[Progress], None]
"""Called often. It may raise `Cancelled`: what was finished is kept and can be resumed."""


def silent(event: Progress) -> None:
    """Report to nobody."""
