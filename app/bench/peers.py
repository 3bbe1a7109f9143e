"""Query strategies beside those of scikit-activeml, small-text and modAL, on the same arrays.

The peers are no dependencies: `peers` of the project's extras brings them.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from sklearn.base import BaseEstimator, ClassifierMixin

from app import show
from ssl_core.errors import ReadloopError
from ssl_core.strategies import STRATEGIES, PoolView, cold, cover, spread

PACKAGES = {"skactiveml": "scikit-activeml", "small_text": "small-text", "modAL": "modAL-python"}
CLASSES = 4
LABELED = 50
PASSES = 8
SEED = 0

Rows = npt.NDArray[np.int64]
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Arrays:
    """One problem: `features` `(N, D)` of the pool, `labeled` `(L, D)` with their classes, and
    softmax `probabilities` `(N, C)`, as is and over passes `(V, N, C)`."""

    features: npt.NDArray[np.float64]
    labeled: npt.NDArray[np.float64]
    classes: Rows
    probabilities: npt.NDArray[np.float64]
    passes: npt.NDArray[np.float64]

    @property
    def view(self) -> PoolView:
        """What a strategy of ours sees."""
        return PoolView(
            size=len(self.features),
            exclusive=True,
            probabilities=self.probabilities,
            views=self.passes,
            features=self.features,
            labeled_features=self.labeled,
        )


def check() -> None:
    """Raise `ReadloopError` where a peer is missing."""
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ReadloopError(
            f"The peers {', '.join(missing)} are not installed: `pip install 'readloop[peers]'` "
            "into an environment of its own brings them."
        )


def made_up(items: int, width: int, seed: int = SEED) -> Arrays:
    """Clusters of equal spread, a linear model with random weights and dropout passes of it."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, width))

    def features(count: int) -> npt.NDArray[np.float64]:
        return centres[rng.integers(50, size=count)] + rng.normal(size=(count, width))

    pool, weights = features(items), rng.normal(size=(width, CLASSES)) / np.sqrt(width)
    masks = rng.random((PASSES, width)) > 0.2
    classes = np.arange(LABELED) % CLASSES
    passes = np.stack([_softmax((pool * mask) @ weights) for mask in masks])
    return Arrays(pool, features(LABELED), classes, _softmax(pool @ weights), passes)


def run(
    sizes: Sequence[int],
    width: int,
    asked: int,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Time one query of each strategy that a peer shares, ours and the peer's.

    Returns a row a size, strategy and peer: `ours_s`, `peer_s` (None where the peer took longer
    than `seconds` for a smaller pool, or refused), `ratio` (peer / ours), `same` (the share of
    our picks that the peer has too), `note`: what the two share, or why there is no answer. Picks
    of strategies that draw agree by chance alone.
    """
    rows: list[dict[str, Any]] = []
    slow: set[tuple[str, str]] = set()
    small = made_up(300, 8)
    for name, _, _, query in _pairs():  # once untimed: imports and compiling
        _beside(query, small, 5, _ours(name, small, 5))
    for items in sizes:
        arrays = made_up(items, width)
        ours = {name: _ours(name, arrays, asked) for name in dict.fromkeys(n for n, *_ in _pairs())}
        for name, peer, note, query in _pairs():
            row: dict[str, Any] = {"strategy": name, "peer": peer, "N": items, "note": note}
            row |= {"D": width, "n": asked, "ours_s": ours[name][0], "peer_s": None}
            if (name, peer) not in slow:
                row |= _beside(query, arrays, asked, ours[name])
                if (row["peer_s"] or seconds + 1) > seconds:
                    slow.add((name, peer))
            else:
                row["note"] = "too slow at a smaller pool"
            rows.append(row)
            say(_told(row))
    return rows


def save(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), indent=1), encoding="utf-8")


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of `run` for the terminal."""
    columns = ("strategy", "peer", "N", "ours, s", "peer, s", "peer / ours", "same", "note")
    made = show.table("Query strategies beside their peers", columns, left=2)
    for row in rows:
        numbers = [_number(row.get(key)) for key in ("ours_s", "peer_s", "ratio")]
        same = row.get("same")
        share = "–" if same is None else f"{same:.0%}"
        made.add_row(row["strategy"], row["peer"], f"{row['N']:,}", *numbers, share, row["note"])
    return made


# --- ours and theirs ---------------------------------------------------------------------------


def _ours(name: str, arrays: Arrays, asked: int) -> tuple[float, Rows]:
    view = arrays.view
    start = time.perf_counter()
    scores = STRATEGIES[name](view, asked, np.random.default_rng(SEED))
    picks = np.argsort(-scores, kind="stable")[:asked]
    return time.perf_counter() - start, picks


def _beside(
    query: Callable[[Arrays, int], Call], arrays: Arrays, asked: int, ours: tuple[float, Rows]
) -> dict[str, Any]:
    """Time a peer; what it refuses, or has no memory for, is a row without a time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call = query(arrays, asked)
            start = time.perf_counter()
            picks = np.asarray(call()).ravel()
            taken = time.perf_counter() - start
    except Exception as error:  # a peer's fault is a finding, not ours to mend
        return {"note": f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"}
    same = len(set(picks.tolist()) & set(ours[1].tolist())) / len(ours[1])
    return {"peer_s": taken, "ratio": taken / ours[0], "same": same}


def _pairs() -> Iterator[tuple[str, str, str, Callable[[Arrays, int], Call]]]:
    """Strategy, peer, what differs by its definition, and how the peer is called."""
    for name, method in (
        ("entropy", "entropy"),
        ("margin", "margin_sampling"),
        ("least_confidence", "least_confident"),
    ):
        yield name, "scikit-activeml", "", _skactiveml_doubt(method)
    for name, method in (
        ("entropy", "entropy_sampling"),
        ("margin", "margin_sampling"),
        ("least_confidence", "uncertainty_sampling"),
    ):
        yield name, "modAL", "", _modal(method)
    for name, method in (
        ("entropy", "PredictionEntropy"),
        ("margin", "BreakingTies"),
        ("least_confidence", "LeastConfidence"),
    ):
        yield name, "small-text", "", _small_text(method)
    yield "bald", "small-text", "", _small_text("BALD", dropout_samples=PASSES)
    yield "k_center", "scikit-activeml", "", _skactiveml("CoreSet")
    yield "k_center", "small-text", "", _small_text_coreset
    yield "badge", "scikit-activeml", "both draw at random", _skactiveml_badge
    yield "cold_start", "scikit-activeml", "our clusters", _typiclust
    yield "prob_cover", "scikit-activeml", "our radius", _prob_cover


def _skactiveml_doubt(method: str) -> Callable[[Arrays, int], Call]:
    def query(arrays: Arrays, asked: int) -> Call:
        from skactiveml.pool import UncertaintySampling

        sampler = UncertaintySampling(method=method, random_state=SEED)
        x, y, clf = *_joined(arrays), _known_model(arrays)
        return lambda: sampler.query(x, y, clf, fit_clf=False, batch_size=asked)

    return query


def _skactiveml(name: str, **options: Any) -> Callable[[Arrays, int], Call]:
    def query(arrays: Arrays, asked: int) -> Call:
        from skactiveml import pool

        sampler = getattr(pool, name)(random_state=SEED, **options)
        x, y = _joined(arrays)
        return lambda: sampler.query(x, y, batch_size=asked)

    return query


def _skactiveml_badge(arrays: Arrays, asked: int) -> Call:
    from skactiveml.pool import Badge

    sampler = Badge(random_state=SEED)
    x, y, clf = *_joined(arrays), _known_model(arrays)
    return lambda: sampler.query(x, y, clf, fit_clf=False, batch_size=asked)


def _modal(method: str) -> Callable[[Arrays, int], Call]:
    def query(arrays: Arrays, asked: int) -> Call:
        from modAL import uncertainty

        clf = SimpleNamespace(predict_proba=lambda x: arrays.probabilities)
        ask = getattr(uncertainty, method)
        return lambda: ask(clf, arrays.features, n_instances=asked)[0]

    return query


def _small_text(name: str, **options: Any) -> Callable[[Arrays, int], Call]:
    def query(arrays: Arrays, asked: int) -> Call:
        import small_text
        from small_text.data import SklearnDataset

        sampler = getattr(small_text, name)(**options)
        x, count = np.zeros((len(arrays.features), 1)), len(arrays.features)
        data = SklearnDataset(x, np.zeros(count, np.int64), target_labels=np.arange(CLASSES))
        unlabeled = np.arange(count)

        def proba(dataset: Any, dropout_sampling: int = 1) -> npt.NDArray[np.float64]:
            if dropout_sampling > 1:
                return np.swapaxes(arrays.passes, 0, 1)
            return arrays.probabilities

        clf = SimpleNamespace(predict_proba=proba)
        nothing = np.zeros(0, np.int64)
        return lambda: sampler.query(clf, data, unlabeled, nothing, nothing, n=asked)

    return query


def _small_text_coreset(arrays: Arrays, asked: int) -> Call:
    from small_text.query_strategies.coresets import greedy_coreset

    (x, _), count = _joined(arrays), len(arrays.features)
    pool, known = np.arange(count), np.arange(count, len(x))
    return lambda: greedy_coreset(x, pool, known, asked, distance_metric="euclidean")


def _typiclust(arrays: Arrays, asked: int) -> Call:
    """With our clusters: theirs would differ by the seed alone."""
    from skactiveml.pool import TypiClust

    points = cold._centred(arrays.features, arrays.labeled)

    class Clusters:
        """Our k-means, as theirs is called; its time counts as theirs does."""

        def __init__(self, n_clusters: int) -> None:
            self.n_clusters = n_clusters

        def fit_predict(self, x: Any) -> Rows:
            return cold.k_means(points, self.n_clusters, np.random.default_rng(SEED))

    sampler = TypiClust(random_state=SEED, cluster_algo=Clusters, k=cold.NEIGHBOURS)
    x, y = _joined(arrays)
    return lambda: sampler.query(x, y, batch_size=asked)


def _prob_cover(arrays: Arrays, asked: int) -> Call:
    """With our radius: theirs is the best of a list that the caller gives."""
    from skactiveml.pool import ProbCover

    rng = np.random.default_rng(SEED)
    shuffle = rng.permutation(len(arrays.features))[: cover.ITEMS]
    pool = spread.points(next(spread.centred(arrays.features, shuffle)))
    classes = cold.k_means(pool.rows, CLASSES, rng, cover.STARTS)
    reach, _ = cover.purity_radius(pool, classes)
    sampler = ProbCover(random_state=SEED, n_classes=CLASSES, deltas=[float(np.sqrt(reach))])
    x, y = _joined(arrays)
    return lambda: sampler.query(x, y, batch_size=asked)


def _joined(arrays: Arrays) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """All features, the pool's first, and the classes, NaN for the pool."""
    x = np.concatenate([arrays.features, arrays.labeled])
    return x, np.concatenate([np.full(len(arrays.features), np.nan), arrays.classes])


def _known_model(arrays: Arrays) -> Any:
    """A classifier of scikit-activeml that says the probabilities of the pool."""
    from skactiveml.base import SkactivemlClassifier

    class Known(SkactivemlClassifier, ClassifierMixin, BaseEstimator):
        """Its answer does not hang on what it is asked: the pool, always."""

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self.classes_ = np.arange(CLASSES)
            return self

        def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
            return arrays.probabilities

        def predict(self, X: Any) -> Rows:
            return arrays.probabilities.argmax(axis=1)

    return Known(classes=list(range(CLASSES))).fit(None, None)


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _told(row: Mapping[str, Any]) -> str:
    taken = "no answer" if row["peer_s"] is None else f"{row['peer_s']:.2f} s"
    return (
        f"{row['N']:,} items, {row['strategy']}, {row['peer']}: {taken}, ours {row['ours_s']:.2f} s"
    )
