"""How soon an alarm on pseudo-labels is raised, and how often without cause, on planted errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from app import show
from ssl_core.auditing.alarm import RoundAudit, watch
from ssl_core.config import Alarm as Rules

POOL = 1_000  # items kept
KAPPA = 0.75  # of the pool that is kept
ABSENT_WRONG = 0.02  # of what is kept as absent
RAMP = 4  # rounds until the planted error is whole
CONFIDENCE = (0.80, 0.95)  # of what is kept as present, in the first round and the last


@dataclass(frozen=True, slots=True)
class Row:
    """Alarms in `times` histories: `raised` is their share; `delay` the median round of the first.

    `planted` is the share of what is kept as present that a growing error adds to the wrong (0: a
    teacher whose confidence is true). `delay` is infinite where fewer than half raised one.
    """

    prevalence: float
    reads: int
    planted: float
    raised: float
    delay: float
    times: int


def run(
    prevalences: Sequence[float],
    reads: Sequence[int],
    planted: Sequence[float],
    *,
    rounds: int = 12,
    times: int = 100,
    seed: int = 0,
    rules: Rules | None = None,
) -> Iterator[Row]:
    """Simulate the slices of `rounds` rounds, `times` times for each combination."""
    told = rules or Rules()
    for prevalence in prevalences:
        for count in reads:
            for error in planted:
                rng = np.random.default_rng([seed, count, round(1e4 * prevalence)])
                first = [
                    first_alarm(history(rng, rounds, count, prevalence, error), told)
                    for _ in range(times)
                ]
                raised = float(np.isfinite(first).mean())
                middle = float(np.sort(first)[(times - 1) // 2])  # the lower of two middles
                yield Row(prevalence, count, error, raised, middle, times)


def history(
    rng: np.random.Generator, rounds: int, reads: int, prevalence: float, planted: float
) -> list[RoundAudit]:
    """Slices of `reads` each, of a teacher that calls ever more of some negatives present.

    Its confidence rises from .80 to .95, as that of one that learns; without a planted error its
    precision rises as well.
    """
    found = []
    sure = np.linspace(*CONFIDENCE, rounds)
    for r in range(rounds):
        wrong = min(1.0, 1 - sure[r] + planted * min(1.0, r / (RAMP - 1)))
        shares = [KAPPA * prevalence, KAPPA * (1 - prevalence), 1 - KAPPA]
        present, absent, dropped = rng.multinomial(reads, shares).tolist()
        false, missed = int(rng.binomial(present, wrong)), int(rng.binomial(absent, ABSENT_WRONG))
        rest = int(rng.binomial(dropped, prevalence))
        found.append(
            RoundAudit(
                round=r + 1,
                confidence=(float(sure[r]), 1 - ABSENT_WRONG),
                judged=(present, absent),
                wrong=(false, missed),
                share=prevalence,
                positives=present - false + missed + rest,
                reads=reads,
                kept=POOL,
            )
        )
    return found


def first_alarm(audits: Sequence[RoundAudit], rules: Rules) -> float:
    """The round whose audit raised the first alarm; infinite where none did."""
    raised = watch("finding", audits, rules).history
    return float(raised[0].round) if raised else math.inf


def table(rows: Sequence[Row], rounds: int) -> Table:
    """The rows of `run` for the terminal."""
    columns = ("prevalence", "reads a round", "planted error", "raised", "median round")
    title = f"Alarms within {rounds} rounds ({rows[0].times} histories a row)"
    made = show.table(title, columns, left=0)
    for row in rows:
        when = f"{row.delay:.0f}" if math.isfinite(row.delay) else "–"
        error = f"{row.planted:.2f}" if row.planted else "none"
        made.add_row(f"{row.prevalence:.2f}", str(row.reads), error, f"{row.raised:.2f}", when)
    made.caption = (
        "planted error: added to the wrong among what is kept as present, whole after "
        f"{RAMP} rounds. Without one a row's alarms are false."
    )
    return made
