"""Rounds of asking on frozen features: a strategy, a seed, and the AUROC after every round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.bench.frozen import Frozen, Some
from ssl_core import metrics
from ssl_core.selection import draw
from ssl_core.strategies import NEEDS, STRATEGIES, PoolView, Strategy

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

PASSES = 8  # of dropout, for strategies that compare predictions of one item
DROPOUT = 0.2


@dataclass(frozen=True, slots=True)
class Rule:
    """How every round asks and learns, the same for all strategies.

    start: asks while there is no model, where the strategy itself cannot. random_share, group_cap:
    as in `[selection]`. inverse_penalty: C of the logistic regression on standardised features,
    divided by D: the prior's variance of a logit, about. pool_share: of the train pool's patients,
    drawn by each seed, the same for all strategies: one that draws little by lot asks nearly the
    same of one pool every time, and seeds alone would take its luck with that pool for skill.
    """

    start: str = "cold_start"
    random_share: float = 0.15
    group_cap: int = 2
    inverse_penalty: float = 1.0
    pool_share: float = 0.8


@dataclass(frozen=True, slots=True)
class Head:
    """Logistic regressions on standardised features: weights `(D, C)` and offsets `(C,)`."""

    weights: Floats
    offsets: Floats
    exclusive: bool

    def probabilities(self, features: npt.NDArray[np.float32]) -> Floats:
        """`(n, C)` of features `(n, D)`."""
        logits = features @ self.weights + self.offsets
        if not self.exclusive:
            return 1.0 / (1.0 + np.exp(-logits))
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def curve(
    frozen: Frozen, strategy: str, query_size: int, budgets: Sequence[int], seed: int, rule: Rule
) -> Iterator[tuple[int, list[float]]]:
    """Ask in rounds of `query_size` up to the last budget; a budget on the way is stopped at.

    Yields, after every round, the labels so far and the vault's AUROC: the macro, then each
    finding's (NaN where the vault has one side only). The generator of a seed is the strategy's
    alone, and draws the same for all strategies until they ask differently.
    """
    ask, need = STRATEGIES[strategy], NEEDS[strategy]
    first = ask if "probabilities" not in need else STRATEGIES[rule.start]
    train, rng = _pool(frozen, seed, rule), np.random.default_rng([seed, *b"selection"])
    labeled: Rows = np.zeros(0, np.int64)
    head: Head | None = None
    last = min(max(budgets), len(train.features))
    while len(labeled) < last:
        stops = [b for b in [*budgets, last] if b > len(labeled)]
        n = min(query_size, min(stops) - len(labeled))
        pool = np.setdiff1d(np.arange(len(train.features)), labeled)
        view = _view(train, frozen.exclusive, pool, labeled, head, need, rng)
        chosen = first if head is None else ask
        name = strategy if chosen is ask else rule.start
        labeled = np.append(
            labeled, pool[_drawn(chosen, name, view, train.groups[pool], n, rng, rule)]
        )
        head = fit(train.features[labeled], train.labels[labeled], frozen.exclusive, rule)
        yield len(labeled), vault_auroc(frozen, head)


def _pool(frozen: Frozen, seed: int, rule: Rule) -> Some:
    """The patients that a seed draws, with all their items."""
    rng, patients = np.random.default_rng([seed, *b"pool"]), np.unique(frozen.train.groups)
    some = rng.permutation(patients)[: max(1, round(rule.pool_share * len(patients)))]
    return frozen.train.at(np.flatnonzero(np.isin(frozen.train.groups, some)))


def fit(
    features: npt.NDArray[np.float32], labels: Floats, exclusive: bool, rule: Rule
) -> Head | None:
    """The regressions on labeled items; None before there are two sides of any finding.

    A finding with one side only is given its smoothed share for every item. With an L2 penalty the
    weights lie in the span of the n labeled items: they are found in its n coordinates, exactly.
    """
    span, _ = np.linalg.qr(features.T.astype(np.float64))
    inside, c = features @ span, rule.inverse_penalty / features.shape[1]
    found = _softmax(inside, labels, c) if exclusive else _each(inside, labels, c)
    return None if found is None else Head(span @ found.weights, found.offsets, exclusive)


def vault_auroc(frozen: Frozen, head: Head | None) -> list[float]:
    """Macro and each finding's AUROC; one half where nothing could be learned."""
    vault = frozen.vault
    if head is None:
        scores = np.full(vault.labels.shape, 0.5)
    else:
        scores = head.probabilities(vault.features)
    found = metrics.auroc(scores, vault.labels)
    return [found.macro.estimate.value, *(one.estimate.value for one in found.findings)]


def _each(inside: Floats, labels: Floats, c: float) -> Head | None:
    weights = np.zeros((inside.shape[1], labels.shape[1]))
    offsets = np.zeros(labels.shape[1])
    learned = False
    for column, answers in enumerate(labels.T):
        known = ~np.isnan(answers)
        share = (answers[known].sum() + 0.5) / (known.sum() + 1.0)
        offsets[column] = np.log(share / (1.0 - share))
        if 0 < answers[known].sum() < known.sum():
            learned = True
            coef, intercept = _regression(inside[known], answers[known].astype(int), c)
            weights[:, column], offsets[column] = coef[0], intercept[0]
    return Head(weights, offsets, exclusive=False) if learned else None


def _softmax(inside: Floats, labels: Floats, c: float) -> Head | None:
    classes = labels.argmax(axis=1)
    seen = np.unique(classes)
    if len(seen) < 2:
        return None
    coef, intercept = _regression(inside, classes, c)
    weights = np.zeros((inside.shape[1], labels.shape[1]))
    offsets = np.full(labels.shape[1], -np.inf)  # a class that was never seen has no probability
    if len(seen) == 2:  # one row: of the second class against the first
        weights[:, seen[1]], offsets[seen] = coef[0], [0.0, intercept[0]]
    else:
        weights[:, seen], offsets[seen] = coef.T, intercept
    return Head(weights, offsets, exclusive=True)


def _regression(inside: Floats, answers: Rows, c: float) -> tuple[Floats, Floats]:
    from sklearn.linear_model import LogisticRegression  # slow to import

    solver = "newton-cholesky" if len(np.unique(answers)) == 2 else "lbfgs"
    found = LogisticRegression(C=c, solver=solver, max_iter=500).fit(inside, answers)
    return found.coef_, found.intercept_


def _drawn(
    ask: Strategy,
    name: str,
    view: PoolView,
    groups: npt.NDArray[np.str_],
    n: int,
    rng: np.random.Generator,
    rule: Rule,
) -> list[int]:
    drawn = draw(
        ask(view, n, rng),
        groups.tolist(),
        n,
        random_share=rule.random_share,
        group_cap=rule.group_cap or None,
        rng=rng,
        strategy_name=name,
        reasons=lambda i: "",
    )
    return [one.position for one in drawn]


def _view(
    train: Some,
    exclusive: bool,
    pool: Rows,
    labeled: Rows,
    head: Head | None,
    need: frozenset[str],
    rng: np.random.Generator,
) -> PoolView:
    """What the loop knows of the pool, as a round would."""
    if not need:
        return PoolView(len(pool), exclusive)
    features = train.features[pool]
    return PoolView(
        size=len(pool),
        exclusive=exclusive,
        probabilities=None if head is None else head.probabilities(features),
        views=_passes(features, head, rng) if "views" in need and head is not None else None,
        features=features,
        labeled_features=train.features[labeled] if len(labeled) else None,
    )


def _passes(features: npt.NDArray[np.float32], head: Head, rng: np.random.Generator) -> Floats:
    """Dropout on the features, the same mask for all items of a pass."""
    kept = rng.random((PASSES, features.shape[1])) >= DROPOUT
    masks = (kept / (1.0 - DROPOUT)).astype(np.float32)
    return np.stack([head.probabilities(features * mask) for mask in masks])
