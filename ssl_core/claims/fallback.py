"""When `auto` gives up: chance asks where the strategy is not shown to be better than chance.

Design, rule 7: a strategy that cannot be told from random says so, and the default policy falls
back. What is judged is AUROC on validation against the shadow control's: the vault chooses nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from ssl_core.evaluation import DIFFERENCE
from ssl_core.evidence import Estimate, Z
from ssl_core.history.ledger import Ledger
from ssl_core.records import CONTROL, Round
from ssl_core.shadow import controls
from ssl_core.turn import Turn

FALLS_BACK = "auto"
TO = "random_diverse"
BECAUSE = f"; {FALLS_BACK} fell back to this, being not shown to be better than chance"


def should_fall_back(differences: Sequence[Estimate], after: int) -> str | None:
    """Why a strategy is not shown to be better than chance; None while it is, or may yet be.

    Args:
        differences: the strategy's AUROC less its control's at equal budgets, one a control and
            oldest first, each with its interval over patients (see `equal_budget`).
        after: this many must be known before anything is said; 0 never says anything.

    Returns:
        The end of a sentence whose subject is the strategy: what was measured, with its interval.
    """
    known = [d for d in differences if not math.isnan(d.low) and not math.isnan(d.high)]
    if not after or len(known) < after:
        return None
    mean = mean_difference(known)
    if mean.low > 0:
        return None
    verdict = "is worse than chance" if mean.high < 0 else "cannot be told from chance"
    return (
        f"{verdict} after {mean.n} shadow controls: AUROC on validation {mean.value:+.3f} "
        f"[{mean.low:+.3f}, {mean.high:+.3f}] against random labels at equal budgets"
    )


def mean_difference(known: Sequence[Estimate]) -> Estimate:
    """The mean of differences that share their patients and most of their labels, with 95 %.

    Var = (mean of the standard errors over patients)² + s²/K: the first term is that of patients
    whose luck all K share, the most it can be; the second is what other trainings would change,
    as in `evidence.paired_over_seeds`, with its degrees of freedom. `n` is K, of at least 1.
    """
    values = np.array([d.value for d in known])
    patients = float(np.mean([(d.high - d.low) / (2 * Z) for d in known])) ** 2
    trained = float(values.var(ddof=1)) / len(known) if len(known) > 1 else 0.0
    error, t = math.sqrt(patients + trained), Z
    if trained > 0:
        freedom = (len(known) - 1) * ((patients + trained) / trained) ** 2
        t = Z if freedom > 1e6 else float(stdtrit(freedom, 0.975))
    mean = float(values.mean())
    return Estimate(mean, mean - t * error, mean + t * error, len(known))


def asks(turn: Turn) -> tuple[str, dict[str, str]]:
    """The strategy that a round selects with and, if it is not its own, why: for the detail."""
    after, own = turn.config.selection.fall_back_after, turn.round.strategy
    if own != FALLS_BACK or not turn.trains:
        return own, {}
    found = differences(turn.workspace.ledger, FALLS_BACK, turn.round.number)
    why = should_fall_back(found, after)
    return (own, {}) if why is None else (TO, {"fell_back": f"{FALLS_BACK} {why}"})


def differences(ledger: Ledger, strategy: str, until: int) -> list[Estimate]:
    """What the controls up to a round measured on validation of this strategy, oldest first.

    A difference counts where the labels of the models that the control was held against were all
    asked for while the settings named this strategy: another one's failure is not its own.
    """
    by_round = {
        number: Estimate(m.value, m.low, m.high, m.n)
        for number, m in ledger.measurements()
        if (m.stage, m.name, m.split, m.finding) == (CONTROL, DIFFERENCE, "validation", "macro")
    }
    rounds = ledger.rounds()
    return [
        by_round[control.round]
        for control in controls(ledger)
        if control.round in by_round
        and control.round <= until
        and _asked_by(rounds, max(control.against, default=0)) == {strategy}
    ]


def _asked_by(rounds: Sequence[Round], before: int) -> set[str]:
    """The strategies in the settings of the rounds whose labels a round could learn from."""
    configs = (json.loads(one.config) for one in rounds if one.number < before)
    return {config["selection"]["strategy"] for config in configs}
