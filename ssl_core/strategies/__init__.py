"""Query strategies: what is known of the pool in, one score an item out (higher = ask first).

Every strategy has the signature `(view, n, rng) -> scores`: a `PoolView` of N items, the number
of items that will be taken, and a generator; the scores are `(N,)` float64 and finite. A strategy
that builds an order one item after the other returns that order as descending scores, N for the
first. Nothing is modified, and the same generator state gives the same scores.

A read answers all C findings of an item at once, so the score of an item with independent
findings is the mean over its findings: in proportion to the whole uncertainty that one read
settles, comparable between tasks, and not ruled by one finding that the model never learned
(its probabilities sit at 0.5 everywhere), as a maximum would be.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssl_core.strategies.chance import (
    class_balanced_random,
    class_balanced_random_reason,
    random,
    random_reason,
)
from ssl_core.strategies.cold import (
    MAX_CLUSTERS,
    NEIGHBOURS,
    cold_start,
    cold_start_reason,
    kmeans_start,
    kmeans_start_reason,
)
from ssl_core.strategies.committee import (
    augmentation,
    augmentation_reason,
    bald,
    bald_reason,
    disagreement,
    disagreement_reason,
)
from ssl_core.strategies.cover import prob_cover, prob_cover_reason
from ssl_core.strategies.diversity import k_center, k_center_reason
from ssl_core.strategies.drawn import MASK_NEEDS, MASK_REASONS, MASK_STRATEGIES
from ssl_core.strategies.duplicates import DUPLICATE, demote_duplicates, suppress_duplicates
from ssl_core.strategies.gradients import badge, badge_reason
from ssl_core.strategies.hybrid import (
    auto,
    auto_reason,
    margin_diverse,
    margin_diverse_reason,
    random_diverse,
    random_diverse_reason,
)
from ssl_core.strategies.optimal import design, design_reason
from ssl_core.strategies.uncertainty import (
    entropy,
    entropy_reason,
    least_confidence,
    least_confidence_reason,
    margin,
    margin_reason,
)
from ssl_core.strategies.view import PoolView, Reason, Strategy

__all__ = [
    "ALL_NEEDS",
    "ALL_STRATEGIES",
    "DUPLICATE",
    "MASK_STRATEGIES",
    "MAX_CLUSTERS",
    "NEEDS",
    "NEIGHBOURS",
    "STRATEGIES",
    "PoolView",
    "Strategy",
    "demote_duplicates",
    "reason",
    "suited",
    "suppress_duplicates",
]

STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "class_balanced_random": class_balanced_random,
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
    "augmentation": augmentation,
    "bald": bald,
    "disagreement": disagreement,
    "cold_start": cold_start,
    "kmeans_start": kmeans_start,
    "design": design,
    "k_center": k_center,
    "badge": badge,
    "prob_cover": prob_cover,
    "margin_diverse": margin_diverse,
    "random_diverse": random_diverse,
    "auto": auto,
}

NEEDS: dict[str, frozenset[str]] = {
    "random": frozenset(),
    "class_balanced_random": frozenset({"probabilities"}),
    "entropy": frozenset({"probabilities"}),
    "margin": frozenset({"probabilities"}),
    "least_confidence": frozenset({"probabilities"}),
    "augmentation": frozenset({"probabilities", "views"}),
    "bald": frozenset({"probabilities", "views"}),
    "disagreement": frozenset({"probabilities", "teacher_probabilities"}),
    "cold_start": frozenset({"features"}),
    "kmeans_start": frozenset({"features"}),
    "design": frozenset({"features"}),
    "k_center": frozenset({"features"}),
    "badge": frozenset({"probabilities", "features"}),
    "prob_cover": frozenset({"features"}),
    "margin_diverse": frozenset({"probabilities", "features"}),
    "random_diverse": frozenset({"features"}),
    "auto": frozenset({"features"}),
}
"""The fields of `PoolView` that a strategy cannot do without: what the loop computes for it.

A strategy with any need is given probabilities too where there is a model, and labeled features
where there are labels: some use them, and do without.
"""

ALL_STRATEGIES = STRATEGIES | MASK_STRATEGIES
"""Those for masks too."""
ALL_NEEDS = NEEDS | MASK_NEEDS


def suited(segmentation: bool) -> list[str]:
    """The strategies that a task can use: where masks are drawn, those that look at masks, at
    features or at nothing.
    """
    if not segmentation:
        return sorted(STRATEGIES)
    others = [name for name in STRATEGIES if not NEEDS[name] - {"features"}]
    return sorted([*MASK_STRATEGIES, *others])


_REASONS: dict[str, Reason] = {
    "random": random_reason,
    "class_balanced_random": class_balanced_random_reason,
    "entropy": entropy_reason,
    "margin": margin_reason,
    "least_confidence": least_confidence_reason,
    "augmentation": augmentation_reason,
    "bald": bald_reason,
    "disagreement": disagreement_reason,
    "cold_start": cold_start_reason,
    "kmeans_start": kmeans_start_reason,
    "design": design_reason,
    "k_center": k_center_reason,
    "badge": badge_reason,
    "prob_cover": prob_cover_reason,
    "margin_diverse": margin_diverse_reason,
    "random_diverse": random_diverse_reason,
    "auto": auto_reason,
    **MASK_REASONS,
}


def reason(name: str, view: PoolView, position: int, score: float, findings: Sequence[str]) -> str:
    """Why strategy `name` asks for the item at `position`: one plain sentence, true of the view.

    `findings` names the C columns. Numbers are read from the item's row, rounded to two digits
    (an order, as of cold_start, reads `score`: the one that the strategy gave this item).
    With several independent findings the sentence gives the mean and the finding that weighs most.
    """
    return _REASONS[name](view, position, score, findings)
