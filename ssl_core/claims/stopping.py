"""Whether to go on reading: what the next labels are likely to add, with the risk said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_core.claims.forecast import Observed, examined

MORE, WORTH, RISK = 100, 0.01, 0.1


@dataclass(frozen=True, slots=True)
class Advice:
    """`probability` that the next `more` labels add an AUROC of `worth` or more.

    `advice` is "stop" where it is `risk` or less: who stops then gives such a gain away with that
    probability at the most. `probability` is None where `refused` says why nothing is known.
    """

    more: int
    worth: float
    risk: float
    probability: float | None
    advice: Literal["stop", "go on", "not known"]
    refused: str


def advise(
    history: Sequence[Observed],
    rng: np.random.Generator,
    more: int = MORE,
    worth: float = WORTH,
    risk: float = RISK,
) -> Advice:
    """The share of the learning curves that the history allows which rise so much (see `forecast`).

    The gain is of the mean AUROC on the same test cases, from the newest point on, not of one
    measurement. Refuses where a forecast would.
    """
    _, found, refused = examined(history, rng)
    if found is None:
        return Advice(more, worth, risk, None, "not known", refused)
    gain = found.at(found.n0 + more) - found.at(found.n0)
    probability = float(np.mean(gain >= worth))
    return Advice(more, worth, risk, probability, "stop" if probability <= risk else "go on", "")
