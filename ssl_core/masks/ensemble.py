"""Several teachers' maps become pseudo-masks: S3's ensembles and its two thresholds a finding.

Everywhere: `maps` `(K, N, C, H, W)` probabilities of K ≥ 1 teachers, `classes` `(K, N, C)` of their
auxiliary classifiers, or None where they have none. Wrong shapes or values raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssl_core.evidence import Floats
from ssl_core.masks.overlap import Bools

Maps = npt.NDArray[np.floating]
Ensemble = Callable[[Maps, Maps | None], Maps]


def weights(maps: Maps, classes: Maps | None = None) -> Floats:
    """S3's weight of each teacher for each item and finding, `(K, N, C)` in [0, 1].

    Half the classifier's probability and half the map's maximum (5:5); without classifiers the
    map's maximum alone. So a teacher that is sure of the finding is heard more than one that sees
    nothing: the ensemble leans to "abnormal", which the negative threshold has to make up for.
    """
    p, q = _checked(maps, classes)
    highest = p.max(axis=(3, 4)).astype(np.float64)
    return np.asarray(highest if q is None else 0.5 * q.astype(np.float64) + 0.5 * highest)


def single(maps: Maps, classes: Maps | None = None) -> Maps:
    """The first teacher's maps, `(N, C, H, W)`."""
    return np.asarray(_checked(maps, classes)[0][0])


def soft(maps: Maps, classes: Maps | None = None) -> Maps:
    """The mean of the teachers' maps, `(N, C, H, W)`."""
    return np.asarray(_checked(maps, classes)[0].mean(axis=0))


def weighted_soft(maps: Maps, classes: Maps | None = None) -> Maps:
    """S3's: Σ w_k map_k / Σ w_k, `(N, C, H, W)`; the plain mean where all weights are 0."""
    p, _ = _checked(maps, classes)
    w = weights(maps, classes)
    whole = w.sum(axis=0)
    shares = np.where(whole > 0, w / np.where(whole > 0, whole, 1.0), 1 / len(p))
    mean = np.einsum("knc,knchw->nchw", shares.astype(p.dtype), p)
    return np.asarray(mean.clip(0.0, 1.0))  # shares may sum to 1 and a last digit


ENSEMBLES: dict[str, Ensemble] = {"single": single, "soft": soft, "weighted_soft": weighted_soft}
"""The rows of S3's comparison of ensembles."""


def confidence(maps: Maps, classes: Maps | None = None) -> Floats:
    """How sure the teachers are that an item shows a finding: `(N, C)`, the mean weight."""
    return np.asarray(weights(maps, classes).mean(axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class PseudoMasks:
    """What the ensemble decided.

    `decided` `(N, C)`: 1 abnormal, 0 normal, NaN dropped (it gives no loss). `masks`
    `(N, C, H, W)` boolean: the drawn mask where abnormal, empty elsewhere; `targets` has both.
    """

    decided: Floats
    masks: Bools

    @property
    def targets(self) -> npt.NDArray[np.float32]:
        """`(N, C, H, W)` of 1, 0 and NaN, as the objectives want them: dropped is unknown."""
        dropped = np.isnan(self.decided)[..., None, None]
        return np.where(dropped, np.nan, self.masks).astype(np.float32)


def decide(
    maps: Maps,
    scores: npt.ArrayLike,
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    *,
    threshold: float = 0.5,
) -> PseudoMasks:
    """S3's two thresholds: abnormal from the positive one, normal up to the negative one.

    Between the two an item is dropped for that finding. So is one whose score says abnormal while
    no pixel of its map reaches `threshold`: a mask without pixels would teach the opposite. A
    normal item's mask is empty whatever its map says.

    Args:
        maps: `(N, C, H, W)`, an ensemble's.
        scores: `(N, C)` in [0, 1], see `confidence`.
        positive, negative: `(C,)` or one number for all, negative < positive.
        threshold: from which probability a pixel is in the mask.
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.shape != maps.shape[:2]:
        raise ValueError(f"scores {s.shape} do not fit maps {maps.shape}")
    high, low = (
        np.broadcast_to(np.asarray(t, np.float64), s.shape[1:]) for t in (positive, negative)
    )
    if not (low < high).all():
        raise ValueError(f"negative thresholds {low} must lie below the positive ones {high}")
    drawn = np.asarray(maps >= threshold)
    abnormal = (s >= high) & drawn.any(axis=(2, 3))
    decided = np.where(abnormal, 1.0, np.where(s <= low, 0.0, np.nan))
    return PseudoMasks(decided, drawn & abnormal[..., None, None])


def _checked(maps: Maps, classes: Maps | None) -> tuple[Maps, Maps | None]:
    if maps.ndim != 5 or not len(maps):
        raise ValueError(f"maps must be (K, N, C, H, W) of K ≥ 1 teachers, not {maps.shape}")
    if classes is not None and classes.shape != maps.shape[:3]:
        raise ValueError(f"classes {classes.shape} do not fit maps {maps.shape}")
    for values in (maps, classes):
        if values is not None and not ((values >= 0) & (values <= 1)).all():
            raise ValueError("maps and classes must be probabilities in [0, 1]")
    return maps, classes
