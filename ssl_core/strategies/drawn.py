"""Strategies for masks: what the maps of each item came to, see `masks.selection`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_core.errors import SelectionError
from ssl_core.masks import selection
from ssl_core.strategies.view import PoolView, Reason, Scores, Strategy, float64

READ_OFF = ("mask_entropy", "boundary_entropy", "mask_inconsistency", "mask_disagreement")
"""Strategies whose score is that of `masks.selection` of the same meaning, read off the view."""


def _read_off(name: str) -> Strategy:
    def score(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
        return float64(_of_masks(view, name)[name])

    score.__doc__ = f"The view's own {name}."
    return score


def foreground_random(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Random, with two of three that show a predicted finding; see `masks.selection`."""
    shown = _of_masks(view, "foreground_random")["foreground"] > 0
    return selection.foreground_random(np.asarray(shown.any(axis=1)), rng)


def foreground_random_reason(
    view: PoolView, position: int, score: float, findings: Sequence[str]
) -> str:
    """Whether anything was predicted, and what most."""
    pixels = _of_masks(view, "foreground_random")["foreground"][position]
    if not pixels.any():
        return "drawn at random among items where nothing is predicted"
    top = int(pixels.argmax())
    return f"drawn at random among items with a predicted finding ({findings[top]})"


def _entropy_reason(view: PoolView, position: int, score: float, findings: Sequence[str]) -> str:
    by_finding = float64(_of_masks(view, "mask_entropy")["entropy_by_finding"])
    return selection.entropy_reason(by_finding, position, findings)


def _inconsistency_reason(
    view: PoolView, position: int, score: float, findings: Sequence[str]
) -> str:
    return selection.inconsistency_reason(score)


def _disagreement_reason(
    view: PoolView, position: int, score: float, findings: Sequence[str]
) -> str:
    return selection.disagreement_reason(score)


MASK_STRATEGIES: dict[str, Strategy] = {
    **{name: _read_off(name) for name in READ_OFF},
    "foreground_random": foreground_random,
}

MASK_NEEDS: dict[str, frozenset[str]] = {
    "mask_entropy": frozenset({"masks"}),
    "boundary_entropy": frozenset({"masks"}),
    "mask_inconsistency": frozenset({"masks", "mask_views"}),
    "mask_disagreement": frozenset({"masks", "members"}),
    "foreground_random": frozenset({"masks"}),
}

MASK_REASONS: dict[str, Reason] = {
    "mask_entropy": _entropy_reason,
    "boundary_entropy": _entropy_reason,
    "mask_inconsistency": _inconsistency_reason,
    "mask_disagreement": _disagreement_reason,
    "foreground_random": foreground_random_reason,
}


def _of_masks(view: PoolView, name: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    if view.masks is None:
        raise SelectionError(
            f"strategy '{name}' looks at predicted masks and there are none: it is for "
            "segmentation, once a model is trained"
        )
    return dict(view.masks)
