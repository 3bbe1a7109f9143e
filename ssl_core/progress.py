"""How long work speaks to whoever watches: one small event, one callback."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` steps of `stage`; `note` is a short figure worth showing, or empty.

    Training also tells `history`, the mean training loss and validation AUROC (macro) of each
    epoch that is over, of at most `epochs` (0: this is no training); NaN is unknown. A round
    begins each of its stages with 0 of 0 steps.
    """

    stage: str
    done: int
    total: int
    note: str = ""
    epochs: int = 0
    history: tuple[tuple[float, float], ...] = ()

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return len(self.history)

    @property
    def loss(self) -> float:
        """The last epoch's mean training loss; NaN before the first is over."""
        return self.history[-1][0] if self.history else math.nan

    @property
    def auroc(self) -> float:
        """The last epoch's validation AUROC; NaN where nothing was measured."""
        return self.history[-1][1] if self.history else math.nan


Report = Callable[[Progress], None]
"""Called often. It may raise `Cancelled`: what was finished is kept and can be resumed."""


def silent(event: Progress) -> None:
    """Report to nobody."""
