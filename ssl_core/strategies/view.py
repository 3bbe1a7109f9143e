"""What a query strategy may look at, checked once, and what every strategy needs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.errors import SelectionError

Array = npt.NDArray[np.floating[Any]]
Scores = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# Half precision keeps three digits: softmax rows sum to 1 only about.
ROW_SUM_TOLERANCE = 1e-2
# A float32 mean over crops may pass 1 by its last digit.
RANGE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class PoolView:
    """What a strategy may look at: arrays aligned by row to the `size` unlabeled items (N).

    `exclusive`: exactly one finding holds (softmax rows that sum to 1) rather than C independent
    ones (sigmoids; a binary task has C = 1). `probabilities` `(N, C)` in [0, 1], None before the
    first model. `views` `(V, N, C)`: the same under V >= 2 augmented views. `features` `(N, D)`,
    compared by Euclidean distance: scale the rows to unit length where cosine is meant.
    `labeled_features` `(L, D)` of the items already labeled. `teacher_probabilities` `(N, C)`:
    what another model says, where the recipe makes two. `masks`: what the predicted masks of each
    item came to, by name, `(N,)` or `(N, C)` (see `drawn`). Any float type.

    Raises ValueError for shapes that do not fit, NaN or infinite values, probabilities outside
    [0, 1], and rows of an exclusive task that do not sum to 1.
    """

    size: int
    exclusive: bool = False
    probabilities: Array | None = None
    views: Array | None = None
    features: Array | None = None
    labeled_features: Array | None = None
    teacher_probabilities: Array | None = None
    masks: Mapping[str, npt.NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        """Refuse, once and here, what no strategy should meet."""
        columns = None if self.probabilities is None else self.probabilities.shape[-1]
        width = None if self.features is None else self.features.shape[-1]
        _check_shape("probabilities", self.probabilities, (self.size, None))
        _check_shape("views", self.views, (None, self.size, columns))
        _check_shape("features", self.features, (self.size, None))
        _check_shape("labeled_features", self.labeled_features, (None, width))
        _check_shape("teacher_probabilities", self.teacher_probabilities, (self.size, columns))
        _check_probabilities("probabilities", self.probabilities, self.exclusive)
        _check_probabilities("views", self.views, self.exclusive)
        _check_probabilities("teacher_probabilities", self.teacher_probabilities, self.exclusive)
        for name, values in (self.masks or {}).items():
            _check_shape(name, values if values.ndim > 1 else values[:, None], (self.size, None))
        if self.views is not None and len(self.views) < 2:
            raise ValueError(f"views holds {len(self.views)} views: give at least 2 to compare")

    @property
    def labeled(self) -> int:
        """L: how many items are labeled; 0 where `labeled_features` are not given."""
        return 0 if self.labeled_features is None else len(self.labeled_features)


Strategy = Callable[[PoolView, int, np.random.Generator], Scores]
Reason = Callable[[PoolView, int, float, Sequence[str]], str]


def need_probabilities(view: PoolView) -> Scores:
    """Probabilities `(N, C)` within [0, 1]. Raises SelectionError before the first model."""
    if view.probabilities is None:
        raise SelectionError(
            "this strategy needs a model's probabilities and there is no model yet: "
            "start with 'cold_start' or 'random'"
        )
    return np.clip(float64(view.probabilities), 0.0, 1.0)


def need_features(view: PoolView, name: str) -> Array:
    """Features `(N, D)`. Raises SelectionError, for strategy `name`, where there are none."""
    if view.features is None:
        raise SelectionError(
            f"strategy '{name}' needs features of the pool and there are none: "
            "compute them with a backbone, or choose 'random'"
        )
    return view.features


def in_order(order: Rows) -> Scores:
    """Scores N, N-1, ..., 1 for positions `(N,)` given in the order of asking."""
    scores = np.empty(len(order))
    scores[order] = np.arange(len(order), 0, -1)
    return scores


def place(view: PoolView, score: float) -> int:
    """Place (from 1) in the order, of an item with this score by `in_order`."""
    return view.size - int(score) + 1


def float64(values: Any) -> Scores:
    """The values as double precision."""
    return np.asarray(values, dtype=np.float64)


def _check_shape(name: str, array: Array | None, expected: tuple[int | None, ...]) -> None:
    if array is None:
        return
    fits = len(array.shape) == len(expected) and all(
        want is None or want == have for want, have in zip(expected, array.shape, strict=True)
    )
    if not fits or array.shape[-1] == 0:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(
            f"{name} has shape {array.shape}, expected ({wanted}) with a last axis > 0"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values")


def _check_probabilities(name: str, array: Array | None, exclusive: bool) -> None:
    if array is None or array.size == 0:
        return
    if array.min() < -RANGE_TOLERANCE or array.max() > 1.0 + RANGE_TOLERANCE:
        raise ValueError(f"{name} holds values outside [0, 1]: give probabilities, not logits")
    if not exclusive:
        return
    if array.shape[-1] < 2:
        raise ValueError(f"{name} has one column: exclusive findings need at least two")
    if np.abs(array.sum(axis=-1, dtype=np.float64) - 1.0).max() > ROW_SUM_TOLERANCE:
        raise ValueError(f"{name} has rows that do not sum to 1: exclusive findings need a softmax")


def unit_rows(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rows `(N, D)` scaled to length 1, float32; a row of zeros stays one."""
    rows = values.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    rows /= np.where(length > 0, length, 1.0).astype(np.float32)[:, None]
    return rows
