"""Features on a plane: UMAP, t-SNE or principal components, the same for the same seed.

All three see the same points: features of length 1 (so that Euclidean distances order pairs as
cosines do, as `neighbours` does), brought to 50 principal components. Equal features are one point.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssl_core.errors import MapError
from ssl_core.strategies.view import unit_rows

Method = Literal["umap", "tsne", "pca"]
Floats = npt.NDArray[np.float32]

FEW = 100  # different points; of fewer, a neighbour graph says less than two components do
COMPILED = 2_000  # from here on umap's compiling, 15 to 60 s once on a machine, is worth its time
FITTED = {"umap": 200_000, "tsne": 10_000}  # points at most: a minute or two on one core
PLACED_BY = 5  # fitted neighbours that place a point which was not fitted
DIMENSIONS = 50

UMAP: dict[str, Any] = {"n_neighbors": 15, "min_dist": 0.1, "metric": "euclidean", "init": "pca"}
TSNE: dict[str, Any] = {
    "perplexity": 30.0,
    "learning_rate": "auto",
    "early_exaggeration": 12.0,
    "max_iter": 1000,
    "init": "pca",
}


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """N items on a plane, and how they came there.

    `coordinates` `(N, 2)` float32; NaN for items whose features are not finite. `method` is what
    was done, which `note` explains where it is not what was asked. `parameters` are those of the
    method, and the principal components that it saw.
    """

    method: Method
    coordinates: Floats
    parameters: dict[str, Any]
    seed: int
    note: str = ""


def method_for(items: int) -> Method:
    """The method of "auto": t-SNE until UMAP, which has to be compiled first, is the faster one."""
    return "umap" if items >= COMPILED else "tsne"


def embed(features: npt.ArrayLike, method: Method, *, seed: int) -> Embedding:
    """Lay N features out on a plane; deterministic for a seed on one machine.

    Fewer than `FEW` different points get their first two principal components, whatever the
    method. Of more than `FITTED`, a sample drawn with the seed is fitted, and every other point
    lies at the mean of its `PLACED_BY` nearest points of the sample, weighted by 1 / distance.

    Args:
        features: `(N, D)`, any float type; N = 0 is an empty map.
        method: "umap" (McInnes, Healy and Melville 2018, arXiv:1802.03426), "tsne" (van der Maaten
            and Hinton, JMLR 2008; Barnes-Hut, van der Maaten, JMLR 2014) or "pca".
        seed: below 2³².

    Raises:
        ValueError: features that are not a matrix, or a method of another name.
    """
    values = np.asarray(features, dtype=np.float32)
    if values.ndim != 2 or method not in _METHODS:
        raise ValueError(f"features {values.shape} and method {method!r} cannot be embedded")
    finite = np.isfinite(values).all(axis=1)
    points, back = _distinct(unit_rows(values[finite]))
    points = principal_components(points, DIMENSIONS)
    notes = (
        [] if finite.all() else [f"{int((~finite).sum())} items have features that are not finite"]
    )
    if method != "pca" and len(points) < FEW:
        notes.append(f"of {len(points)} different points, fewer than {FEW}, the map is a PCA")
        method = "pca"
    placed, parameters, note = _place(points, method, seed)
    coordinates = np.full((len(values), 2), np.nan, dtype=np.float32)
    coordinates[finite] = placed[back]
    return Embedding(method, coordinates, parameters, seed, "; ".join(filter(None, [*notes, note])))


def principal_components(points: Floats, dimensions: int) -> Floats:
    """The first `dimensions` principal components of `(N, D)`, or as many as there are.

    Signs are those of scikit-learn's `svd_flip`: the largest loading of each is positive.
    """
    from sklearn.decomposition import PCA  # slow to import

    count = min(dimensions, *points.shape)
    if len(points) < 2 or count == 0:
        return np.zeros((len(points), count), np.float32)
    solver = "covariance_eigh" if len(points) > points.shape[1] else "full"
    return np.asarray(PCA(count, svd_solver=solver).fit_transform(points), dtype=np.float32)


def _distinct(points: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The different rows, by first occurrence, and for each row its place among them."""
    first: dict[bytes, int] = {}
    rows: list[int] = []
    back = np.empty(len(points), dtype=np.int64)
    for row, point in enumerate(points):
        key = hashlib.blake2b((point + np.float32(0)).tobytes(), digest_size=16).digest()
        place = first.setdefault(key, len(rows))  # + 0 turns -0.0 into 0.0
        if place == len(rows):
            rows.append(row)
        back[row] = place
    return points[rows], back


def _pca(points: Floats, seed: int) -> Floats:
    placed = np.zeros((len(points), 2), np.float32)
    placed[:, : min(2, points.shape[1])] = points[:, :2]
    return placed


def _umap(points: Floats, seed: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed forbids threads, and of its own dependencies
        from umap import UMAP as Fit  # seconds of numba: only who embeds pays them

        _keep_compiled()
        # One thread: with a seed, umap refuses more, since they would race.
        # numba shares torch's OpenMP, and at its first loop sets the threads of both.
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else 0
        try:
            placed = Fit(n_components=2, random_state=seed, n_jobs=1, **UMAP).fit_transform(points)
        finally:
            if torch:
                torch.set_num_threads(threads)
    return np.asarray(placed, dtype=np.float32)


def _keep_compiled() -> None:
    """Let numba keep on disk what it compiles of umap, of which umap itself asks it for a part."""
    from numba.core.registry import CPUDispatcher

    for name in [n for n in sys.modules if n.partition(".")[0] in ("umap", "pynndescent")]:
        for found in vars(sys.modules[name]).values():
            if isinstance(found, CPUDispatcher) and found.__module__ == name:
                found.enable_caching()


def _tsne(points: Floats, seed: int) -> Floats:
    from sklearn.manifold import TSNE as Fit

    return np.asarray(Fit(random_state=seed, **TSNE).fit_transform(points), dtype=np.float32)


_METHODS: dict[str, tuple[Callable[[Floats, int], Floats], dict[str, Any]]] = {
    "umap": (_umap, UMAP),
    "tsne": (_tsne, TSNE),
    "pca": (_pca, {}),
}


def _place(points: Floats, method: Method, seed: int) -> tuple[Floats, dict[str, Any], str]:
    """Coordinates `(n, 2)` of different points, the parameters, and what there is to note."""
    fit, parameters = _METHODS[method]
    parameters = {"dimensions": points.shape[1], **parameters}
    total, most = len(points), FITTED.get(method, len(points))
    if total <= most:
        return fit(points, seed), parameters, ""
    fitted = np.zeros(total, dtype=bool)
    fitted[np.random.default_rng(seed).choice(total, most, replace=False)] = True
    placed = np.empty((total, 2), np.float32)
    placed[fitted] = fit(points[fitted], seed)
    placed[~fitted] = _between(points[~fitted], points[fitted], placed[fitted])
    note = f"fitted on {most} points drawn at random, the others lie between their nearest"
    return placed, {**parameters, "fitted": most, "placed_by": PLACED_BY}, note


def _between(points: Floats, fitted: Floats, placed: Floats) -> Floats:
    """`(n, 2)`: the mean place of the nearest fitted points, weighted by 1 / distance."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=PLACED_BY, algorithm="brute").fit(fitted)
    distance, nearest = search.kneighbors(points)
    weight = 1.0 / np.maximum(distance, 1e-12)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkd->nd", weight, placed[nearest]), dtype=np.float32)


def embed_apart(
    path: Path, method: Method, *, seed: int, waiting: Callable[[], None] = lambda: None
) -> Embedding:
    """`embed` of a features file `(N, D)` `.npy`, in a process of its own.

    numba holds the interpreter for half a minute at a time, in which no heartbeat would be sent,
    and memory that runs out would take the caller along. `waiting` is called twice a second; what
    it raises ends the process.

    Raises:
        MapError: the process failed.
    """
    code = Path(__file__).parents[2]
    known = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(code), *filter(None, [known])])}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w+") as said:
        command = [
            sys.executable,
            "-m",
            "ssl_core.pictures.embedding",
            str(path),
            method,
            str(seed),
            folder,
        ]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        ) as process:
            try:
                _watch(process, waiting)
            finally:
                process.kill()
        if process.returncode:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
            raise MapError(
                f"The {method} of the map ended with code {process.returncode} ({last[:200]}): "
                "free memory or choose another method under [map]."
            )
        told = json.loads((Path(folder) / "told.json").read_text(encoding="utf-8"))
        return Embedding(coordinates=np.load(Path(folder) / "coordinates.npy"), **told)


def _watch(process: subprocess.Popen[bytes], waiting: Callable[[], None]) -> None:
    while True:
        try:
            process.wait(timeout=0.5)
            return
        except subprocess.TimeoutExpired:
            waiting()


def _main(path: str, method: Method, seed: str, folder: str) -> None:
    made = embed(np.load(path, mmap_mode="r"), method, seed=int(seed))
    np.save(Path(folder) / "coordinates.npy", made.coordinates)
    told = {field: getattr(made, field) for field in ("method", "parameters", "seed", "note")}
    (Path(folder) / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])  # type: ignore[arg-type]
