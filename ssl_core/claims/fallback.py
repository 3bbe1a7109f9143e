"""When `auto` gives up: chance asks where the strategy is not shown to be better than chance.

Design, rule 7: a strategy that cannot be told from random says so, and the default policy falls
back. What is judged is AUROC on validation against the shadow control's: the vault chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssl_core.claims.sequence import Look, so_far
from ssl_core.claims.shadow_looks import shadow_looks
from ssl_core.records import METRICS
from ssl_core.turn import Turn

FALLS_BACK = "auto"
TO = "random_diverse"
BECAUSE = f"; {FALLS_BACK} fell back to this, being not shown to be better than chance"


def should_fall_back(
    looks: Sequence[Look], after: int, metric: str = METRICS["auroc"]
) -> str | None:
    """Why a strategy is not shown to be better than chance; None while it is, or may yet be.

    Args:
        looks: the strategy's AUROC less its control's at equal budgets, one a control and oldest
            first. The mean is judged as `sequence.so_far` does, which may be asked after each.
        after: this many must be known before anything is said; 0 never says anything.
        metric: what people call what was measured.

    Returns:
        The end of a sentence whose subject is the strategy: what was measured, with its interval.
    """
    mean = so_far(looks)
    if not after or mean is None or mean.n < after or mean.low > 0:
        return None
    verdict = "is worse than chance" if mean.high < 0 else "cannot be told from chance"
    return (
        f"{verdict} after {mean.n} shadow controls: {metric} on validation {mean.value:+.3f} "
        f"[{mean.low:+.3f}, {mean.high:+.3f}] against random labels at equal budgets"
    )


def asks(turn: Turn) -> tuple[str, dict[str, str]]:
    """The strategy that a round selects with and, if it is not its own, why: for the detail."""
    after, own = turn.config.selection.fall_back_after, turn.round.strategy
    if own != FALLS_BACK or not turn.trains:
        return own, {}
    looks = shadow_looks(turn.workspace.ledger, FALLS_BACK, "validation", turn.round.number)
    why = should_fall_back(looks, after, turn.workspace.ledger.task.metric_name)
    return (own, {}) if why is None else (TO, {"fell_back": f"{FALLS_BACK} {why}"})
