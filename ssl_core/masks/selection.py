"""Which items to ask masks for: scores of maps, higher = ask first.

Pure functions of arrays: `maps` `(N, C, H, W)` probabilities in [0, 1]; `views` `(V, N, C, H, W)`
the same under V ≥ 2 augmented views, each brought back to the picture's own frame (`views.unwarp`)
with NaN where the view did not reach; `members` `(K, N, C, H, W)` of K ≥ 2 models. Scores are
`(N,)` float64 and finite, an item's from its own maps alone. Wrong shapes, values outside [0, 1]
and NaN where none may be raise ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from ssl_core.masks.ensemble import Maps
from ssl_core.masks.overlap import Bools

Scores = npt.NDArray[np.float64]

FOREGROUND_SHARE = 2 / 3


def mean_entropy(maps: Maps) -> Scores:
    """Mean over findings and pixels of the binary entropy, in [0, 1] (bits).

    Grows with the length of the edges, as that is where pixels are unsure: large organs and many
    lesions are asked first whatever is known of them; see `boundary_entropy`.
    """
    return np.asarray(_entropy(_checked(maps)).mean(axis=(1, 2, 3)))


def boundary_entropy(maps: Maps) -> Scores:
    """Entropy for each pixel of predicted edge, mean over findings; 0 or more.

    The sum of the binary entropies over max(L, √(H·W)), L the pixels of the mask (p ≥ 0.5) that
    touch one outside it. A sharp edge costs a band of unsure pixels for each pixel of its length,
    so this is the width of that band, whatever the size of the mask. The floor, the side of the
    picture, keeps empty and tiny masks finite and from being asked first for a faint haze. The
    normalisation is known from uncertainty maps of organs; the floor is ours.
    """
    p = _checked(maps)
    length = np.maximum(_edges(p >= 0.5), np.sqrt(p.shape[2] * p.shape[3]))
    return np.asarray((_entropy(p).sum(axis=(2, 3)) / length).mean(axis=1))


def inconsistency(views: Maps) -> Scores:
    """1 - Dice between the masks (p ≥ 0.5) of each pair of views, mean over pairs and findings.

    In [0, 1], over the pixels that both views reached. Two empty masks agree.
    """
    v = _several(views, "views", unknown=True)
    apart = [_one_less_dice(a, b) for a, b in combinations(v, 2)]
    return np.asarray(np.mean(apart, axis=0).mean(axis=1))


def disagreement(members: Maps) -> Scores:
    """What the members' entropy leaves unexplained, mean over findings and pixels, in [0, 1].

    H(mean p) - mean H(p): the mutual information of a pixel's answer and the model (Houlsby et al.
    2011, BALD). 0 where all say the same, however unsure; 1 where half are sure of either answer.
    """
    p = _several(members, "members", unknown=False)
    shared = sum((_entropy(one) for one in p), np.zeros(p.shape[1:])) / len(p)
    gained = np.maximum(_entropy(p.mean(axis=0, dtype=np.float64)) - shared, 0.0)
    return np.asarray(gained.mean(axis=(1, 2, 3)))


def foreground(maps: Maps) -> npt.NDArray[np.int64]:
    """How many pixels of each finding are predicted (p ≥ 0.5), `(N, C)`."""
    return np.asarray((_checked(maps) >= 0.5).sum(axis=(2, 3)), dtype=np.int64)


def entropy_by_finding(maps: Maps) -> Scores:
    """`mean_entropy` before the mean over findings, `(N, C)` in [0, 1] (bits)."""
    return np.asarray(_entropy(_checked(maps)).mean(axis=(2, 3)))


def foreground_random(
    shown: Bools, rng: np.random.Generator, *, share: float = FOREGROUND_SHARE
) -> Scores:
    """Random, but `share` of what is asked first has a predicted finding, while there are such.

    Scores are N, N-1, ..., 1 in the order of asking. Items that are `shown` `(N,)` to have a
    finding by the model are drawn at random for a share of the places, spread evenly, the others
    for the rest; when either runs out the other goes on. After the foreground-aware random
    sampling of nnActive (Lüth et al. 2025), which published strategies do not reliably beat; the
    foreground here is the model's, so before it predicts anything this is `random`.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: give a number from 0 to 1")
    chance = rng.permutation(len(shown))
    front, back = chance[shown[chance]], chance[~shown[chance]]
    # The place that each would have if its kind never ran out: then 1, 2, … within each kind.
    with np.errstate(divide="ignore"):
        places = [
            np.arange(1, len(k) + 1) / np.float64(s) for k, s in ((front, share), (back, 1 - share))
        ]
    order = np.concatenate([front, back])[np.argsort(np.concatenate(places), kind="stable")]
    scores = np.empty(len(shown))
    scores[order] = np.arange(len(shown), 0, -1)
    return scores


def entropy_reason(by_finding: Scores, i: int, findings: Sequence[str]) -> str:
    """The finding whose edges are least sure in item i, of `entropy_by_finding`."""
    top = int(by_finding[i].argmax())
    return f"the outline of {findings[top]} is unsure by {by_finding[i, top]:.3f} bits a pixel"


def inconsistency_reason(score: float) -> str:
    """In words: how well the views' masks agree."""
    return f"masks of its augmented views agree with a Dice of {1 - score:.2f}"


def disagreement_reason(score: float) -> str:
    """In words: how much the models differ."""
    return f"the models disagree by {score:.3f} bits a pixel"


def _one_less_dice(a: Maps, b: Maps) -> Scores:
    """`(N, C)` of one pair of views."""
    seen = ~(np.isnan(a) | np.isnan(b))
    ours, theirs = (seen & (x >= 0.5) for x in (a, b))
    both = (ours & theirs).sum(axis=(2, 3))
    whole = ours.sum(axis=(2, 3)) + theirs.sum(axis=(2, 3))
    return np.where(whole > 0, 1 - 2 * both / np.maximum(whole, 1), 0.0)


def _edges(masks: Bools) -> npt.NDArray[np.intp]:
    """Pixels of each mask that touch, on one of four sides, one outside it; `(N, C)`.

    The border of the picture is no edge: the model cannot be unsure beyond it.
    """
    padded = np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[..., :-2, 1:-1] & padded[..., 2:, 1:-1]
    inner &= padded[..., 1:-1, :-2] & padded[..., 1:-1, 2:]
    return np.asarray((masks & ~inner).sum(axis=(2, 3)))


def _entropy(p: Maps) -> Scores:
    x = np.asarray(p, dtype=np.float64)
    return np.asarray((entr(x) + entr(1.0 - x)) / np.log(2.0))


def _checked(maps: Maps) -> Maps:
    if maps.ndim != 4 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must be (N, C, H, W) with pixels, not {maps.shape}")
    if not ((maps >= 0) & (maps <= 1)).all():
        raise ValueError("maps must be probabilities in [0, 1]")
    return maps


def _several(maps: Maps, name: str, *, unknown: bool) -> Maps:
    if maps.ndim != 5 or len(maps) < 2:
        raise ValueError(f"{name} must be at least 2 of (N, C, H, W), not {maps.shape}")
    _checked(np.nan_to_num(maps[0]) if unknown else maps[0])
    if not ((maps >= 0) & (maps <= 1) | (np.isnan(maps) if unknown else False)).all():
        raise ValueError(f"{name} must be probabilities in [0, 1]")
    return maps
