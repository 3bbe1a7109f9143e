"""How long work speaks to whoever watches: one small event, one callback."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` steps of `stage`; `note` is a short figure worth showing, or empty.

    Training also tells how many of at most `epochs` epochs are over (`epoch`; 0 of 0 for other
    work), and of the last of those the mean training loss and the validation AUROC (macro); NaN
    is unknown. A round begins each of its stages with 0 of 0 steps.
    """

    stage: str
    done: int
    total: int
    note: str = ""
    epoch: int = 0
    epochs: int = 0
    loss: float = math.nan
    auroc: float = math.nan


Report = Callable[[Progress], None]
"""Called often. It may raise `Cancelled`: what was finished is kept and can be resumed."""


def silent(event: Progress) -> None:
    """Report to nobody."""
