"""All numbers of one model's masks on one split, as `metrics.describe` has them of its scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssl_core.evidence import Estimate, PerFinding
from ssl_core.masks.localising import d_auc
from ssl_core.masks.overlap import (
    average,
    dice,
    iou,
    pixel_accuracy,
    pooled_iou,
    presence,
    shown,
)
from ssl_core.masks.surface import in_pixels, share_of_diagonal, surface_distances

IN_PIXELS = ("surface distance", "surface distance 95")


def mask_metrics(
    maps: npt.ArrayLike,
    truth: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    sure: npt.ArrayLike | None = None,
    threshold: float = 0.5,
) -> dict[str, PerFinding]:
    """Every metric by name, from maps `(N, C, H, W)` in [0, 1] and true masks of that shape.

    Masks are maps ≥ `threshold`. Names: dice, iou, pooled iou, pixel accuracy, sensitivity,
    specificity (of images), d-auc, and the two surface distances, which are shares of the diagonal
    here so that `evidence.compare` fits them all. Map and truth are to be empty where a pixel is
    not `sure` `(N, C, H, W)`; pixel accuracy leaves it out. Dice and IoU of a finding that no known
    item shows are NaN.
    """
    p = np.asarray(maps)
    predicted, context = p >= threshold, (known, groups)
    covered = shown(truth, known)
    edges = surface_distances(predicted, truth, known)
    images = presence(predicted, truth, *context)
    return {
        "dice": average(dice(predicted, truth, covered), groups),
        "iou": average(iou(predicted, truth, covered), groups),
        "pooled iou": pooled_iou(predicted, truth, covered, groups),
        "pixel accuracy": average(pixel_accuracy(predicted, truth, known, sure), groups),
        "sensitivity": images["sensitivity"],
        "specificity": images["specificity"],
        "d-auc": d_auc(p, truth, *context),
        IN_PIXELS[0]: share_of_diagonal(edges.mean, edges.diagonal, groups),
        IN_PIXELS[1]: share_of_diagonal(edges.worst, edges.diagonal, groups),
    }


def describe(
    metrics: dict[str, PerFinding], diagonal: float
) -> list[tuple[int | None, str, Estimate]]:
    """What `mask_metrics` gave, as rows: (finding's column, or None for macro; name; number).

    Surface distances are in pixels of a picture with that `diagonal`.
    """
    rows: list[tuple[int | None, str, Estimate]] = []
    for name, metric in metrics.items():
        for c, s in [*enumerate(metric.findings), (None, metric.macro)]:
            shown = in_pixels(s.estimate, diagonal) if name in IN_PIXELS else s.estimate
            rows.append((c, name, shown))
    return rows
