"""Strategies of two parts: diversity among the uncertain or the random, and typical first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ssl_core.strategies.diversity import k_center_order
from ssl_core.strategies.optimal import design_order, still_open
from ssl_core.strategies.uncertainty import margin, margin_reason
from ssl_core.strategies.view import (
    Array,
    PoolView,
    Rows,
    Scores,
    in_order,
    need_features,
    place,
)

SHORTLIST = 5  # times n: the uncertain items among which the farthest are picked
LOT = 2  # times n: the random items among which the farthest are picked; 1 is random itself
DECAY = 50  # labels a finding at which half of the places go to uncertain items


def margin_diverse(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Of the `SHORTLIST` · n items with the smallest margin, those far from each other.

    `k_center` within the shortlist, with the labeled features; the items outside of it follow by
    their margin. Ties are broken by `rng`. Scores are N, N-1, ..., 1 in that order. Uncertain
    items alone are often alike, far items alone are often odd.

    The shortlist is the prefilter of Zhdanov, Diverse mini-batch Active Learning, 2019 (there of
    weighted k-means); k-center is Sener and Savarese's (see `k_center`).
    """
    doubt, features = margin(view, n, rng), need_features(view, "margin_diverse")
    by_doubt = np.lexsort((rng.random(view.size), -doubt))
    short, rest = by_doubt[: SHORTLIST * n], by_doubt[SHORTLIST * n :]
    order = k_center_order(features[short], view.labeled_features, n, rng)
    return in_order(np.concatenate([short[order], rest]))


def random_diverse(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Of `LOT` · n items drawn by lot, those far from each other: random with fewer repeats.

    `k_center` within the lot, with the labeled features; the items outside of it follow in random
    order. Ties are broken by `rng`. Scores are N, N-1, ..., 1 in that order. The lot is small:
    the farthest of many are odd images, and this is what is asked when nothing has proved better
    than chance. No model is asked, so it is as good at any budget.
    """
    features, order = need_features(view, "random_diverse"), rng.permutation(view.size)
    lot, rest = order[: LOT * n], order[LOT * n :]
    spread = k_center_order(features[lot], view.labeled_features, n, rng)
    return in_order(np.concatenate([lot[spread], rest]))


def auto(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Typical first, uncertain later: two orders merged, with a share that the labels decide.

    With L labeled items and C findings, the share w = L / (L + `DECAY` · max(C, 2)) of places
    go to `margin_diverse` and the others to `design`, in which a pool item counts by how open the
    model leaves it (`still_open`): place j (from 1) to the former
    where floor(j · w) > floor((j - 1) · w). An item that the other order has placed is passed over;
    what the typical order asks counts as asked for the uncertain one. Without labels or without
    a model w = 0, and this is `design`. Scores are N, N-1, ..., 1.

    Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit
    High and Low Budgets, ICML 2022, for the direction; the rule is this project's own.
    """
    features, share = need_features(view, "auto"), uncertain_share(view)
    uncertain_count = math.floor(n * share + 1e-9)
    open_ = still_open(view) if share else np.ones(view.size)
    typical = np.argsort(-design_order(view, open_, n - uncertain_count, rng, "auto"))
    if share == 0.0:
        return in_order(typical)
    asked = features[typical[: n - uncertain_count]]
    aware = replace(view, labeled_features=_joined(view.labeled_features, asked))
    uncertain = np.argsort(-margin_diverse(aware, uncertain_count, rng))
    return in_order(_merged(typical, uncertain, _uncertain_places(view.size, share)))


def uncertain_share(view: PoolView) -> float:
    """w in [0, 1): the share of places that `auto` gives to uncertain items."""
    if view.probabilities is None:
        return 0.0
    return view.labeled / (view.labeled + DECAY * max(view.probabilities.shape[1], 2))


def margin_diverse_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and its margin."""
    return (
        f"place {place(view, score)} of {view.size} in an order that asks first what is farthest "
        f"from labeled and asked images among the most uncertain: "
        f"{margin_reason(view, i, score, findings)}"
    )


def random_diverse_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and what that order is."""
    return (
        f"place {place(view, score)} of {view.size} in an order that asks first what is farthest "
        "from labeled and asked images among some that were drawn at random"
    )


def auto_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Which of the two orders placed it, how many places that one has, and why it is next."""
    share, at = uncertain_share(view), place(view, score)
    uncertain = bool(_uncertain_places(view.size, share)[at - 1])
    given = share if uncertain else 1.0 - share
    which = "uncertain" if uncertain else "typical"
    found = (
        f"place {at} of {view.size}, one of the {given:.0%} for {which} images "
        f"with {view.labeled} labeled: "
    )
    if uncertain:
        return found + f"far from labeled and asked ones, {margin_reason(view, i, score, findings)}"
    return found + "it tells most about the pool, given labeled and asked images"


def _uncertain_places(size: int, share: float) -> npt.NDArray[np.bool_]:
    """`(N,)`: whether each place, from the first, goes to an uncertain item."""
    taken = np.floor(np.arange(size + 1) * share + 1e-9)
    return np.asarray(taken[1:] > taken[:-1], dtype=np.bool_)


def _merged(typical: Rows, uncertain: Rows, places: npt.NDArray[np.bool_]) -> Rows:
    placed = np.zeros(len(typical), dtype=bool)
    order = np.empty(len(typical), dtype=np.int64)
    sources = {True: iter(uncertain.tolist()), False: iter(typical.tolist())}
    for at, is_uncertain in enumerate(places.tolist()):
        item = next(i for i in sources[is_uncertain] if not placed[i])
        placed[item] = True
        order[at] = item
    return order


def _joined(labeled: Array | None, asked: Array) -> Array:
    return asked if labeled is None else np.concatenate([labeled, asked])
