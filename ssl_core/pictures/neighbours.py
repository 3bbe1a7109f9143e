"""What lies near an image in a round's features: the nearest labeled items, and its own place.

Near is by cosine of the stored features. Labels are those of train and validation; the vault's are
never asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssl_core.errors import MapError
from ssl_core.history.truth import label_matrix
from ssl_core.pictures.embedding import Floats, Method
from ssl_core.pictures.map_files import RoundMap
from ssl_core.records import SPLITS
from ssl_core.strategies.view import unit_rows
from ssl_core.workspace import Workspace

SAME = 1e-6  # cosines that differ by less are equal: half precision and the order of sums move them
_ROWS = 2_048  # brought to single precision at a time: they stay in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Labeled:
    """The L items of a map that have a label; never the vault's.

    `labels` `(L, C)` 1 / 0 / NaN; `units` `(L, D)` float32, their features at length 1.
    """

    ids: tuple[str, ...]
    labels: npt.NDArray[np.float64]
    units: Floats


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item near another: `similarity` is the cosine in [-1, 1], `labels` one a finding."""

    item_id: str
    similarity: float
    labels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Star:
    """Where an image lands on a map.

    `nearest` are the items that place it, with their cosines in `similarities`; `spread` is their
    root mean square distance from the star, in the map's units: large where they lie apart, and
    the place then says little.
    """

    x: float
    y: float
    nearest: tuple[str, ...]
    similarities: tuple[float, ...]
    spread: float


def labeled_items(workspace: Workspace, found: RoundMap) -> Labeled:
    """The items of a map that readers, or the import, have labeled by now, in the map's order.

    Items that readers called unusable are left out. Worth keeping between two questions.
    """
    ledger = workspace.ledger
    labels = ledger.labels()  # of train and validation: the ledger gives no others
    known = {label.item_id for label in labels} - ledger.reading.unusable()
    rows = np.array([r for r, item_id in enumerate(found.ids) if item_id in known], np.int64)
    rows = rows[found.splits[rows] != SPLITS.index("vault")]
    ids = [found.ids[row] for row in rows]
    truth = label_matrix(ids, labels, found.findings)
    kept = ~np.isnan(truth).all(axis=1) & np.isfinite(found.features[rows]).all(axis=1)
    ids = [item_id for item_id, keep in zip(ids, kept, strict=True) if keep]
    return Labeled(tuple(ids), truth[kept], unit_rows(found.features[rows[kept]]))


def features_of(found: RoundMap, item_id: str) -> Floats:
    """The features `(D,)` of an item of the map.

    Raises:
        MapError: the item is not on it.
    """
    if item_id not in found.place:
        raise MapError(f"The item {item_id!r} is not on the map of round {found.round}.")
    return np.asarray(found.features[found.place[item_id]], dtype=np.float32)


def nearest(
    labeled: Labeled, features: npt.ArrayLike, k: int = 8, *, exclude: str | None = None
) -> list[Neighbour]:
    """The min(k, L) labeled items nearest to features `(D,)`, the nearest first.

    Equal similarities stand in the order of their ids. `exclude` is the item itself. Features
    that are not finite, or all zero, have no direction and so no neighbours.

    Raises:
        MapError: the features are of another network.
    """
    query = _unit(features, labeled.units.shape[1])
    if query is None:
        return []
    similarity = labeled.units @ query
    order = _first(similarity, labeled.ids, k + 1)
    order = [i for i in order if labeled.ids[i] != exclude][:k]
    return [
        Neighbour(labeled.ids[i], float(similarity[i]), tuple(labeled.labels[i].tolist()))
        for i in order
    ]


def star(
    found: RoundMap,
    features: npt.ArrayLike,
    method: Method,
    k: int = 10,
    *,
    exclude: str | None = None,
) -> Star | None:
    """Where an image with features `(D,)` lands on a map; None where nothing places it.

    No method that made the map is run again: the star is the mean of the coordinates of the k
    items of the map (of any split: no label is looked at) with the highest cosines, weighted by
    these, cosines below 0 as 0. An image that is on the map lands on its own point.

    Raises:
        MapError: the map has no such method, or the features are of another network.
    """
    if method not in found.embeddings:
        has = ", ".join(found.embeddings) or "none"
        raise MapError(f"The map of round {found.round} has no {method}: choose one of {has}.")
    query = _unit(features, found.features.shape[1])
    if query is None:
        return None
    coordinates = found.embeddings[method].coordinates
    similarity = _similarities(found, query)
    similarity[np.isnan(coordinates).any(axis=1)] = -np.inf
    if exclude in found.place:
        similarity[found.place[exclude]] = -np.inf
    near = [i for i in _first(similarity, found.ids, k) if similarity[i] > 0]
    if not near:
        return None
    if similarity[near[0]] > 1 - SAME:
        near = near[:1]
    weight, places = similarity[near].astype(np.float64), coordinates[near].astype(np.float64)
    centre = np.average(places, axis=0, weights=weight)
    spread = float(np.sqrt(np.average(((places - centre) ** 2).sum(axis=1), weights=weight)))
    ids = tuple(found.ids[i] for i in near)
    return Star(float(centre[0]), float(centre[1]), ids, tuple(weight.tolist()), spread)


def _unit(features: npt.ArrayLike, width: int) -> Floats | None:
    """The features at length 1, or None where they have no direction."""
    query = np.asarray(features, dtype=np.float32)
    if query.shape != (width,):
        raise MapError(
            f"The features are of another network ({query.shape} numbers, not {width}): predict "
            "the image with the model of the map's round."
        )
    return unit_rows(query[None])[0] if np.isfinite(query).all() and query.any() else None


def _similarities(found: RoundMap, query: Floats) -> Floats:
    """`(N,)` cosines of every item with a unit vector; -inf where features are not finite.

    The squares of what half precision holds sum up well within single precision.
    """
    cosines = np.empty(len(found.ids), np.float32)
    for start in range(0, len(cosines), _ROWS):
        rows = found.features[start : start + _ROWS].astype(np.float32)
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        cosines[start : start + len(rows)] = rows @ query / np.where(length > 0, length, 1.0)
    return np.where(np.isfinite(cosines), cosines, np.float32(-np.inf))


def _first(similarity: Floats, ids: tuple[str, ...], k: int) -> list[int]:
    """The k most similar rows, the first first; cosines rounded to `SAME`, ties by id."""
    k = min(k, len(ids))
    if k <= 0:
        return []
    rounded = np.round(similarity.astype(np.float64) / SAME)
    last = np.partition(rounded, -k)[-k]
    likely = np.flatnonzero(rounded >= last).tolist()
    return sorted(likely, key=lambda i: (-rounded[i], ids[i]))[:k]
