"""Train, validation and vault are drawn by group (patient), stratified over findings, from a seed.

Stratified systematic sampling rather than a greedy search (Sechidis et al. 2011): greedy fills
the neediest split first, so whether a patient comes into the vault depends on how rare and how
large the patient is. Here every group has the same chance of entering each split, which is the
split's share, so that the vault is an unbiased sample of patients. There are two exceptions,
both for want of patients. A very large group (see `draw_splits`) stays in train. And a finding
so rare that a split missed it is moved in by a group, so a split of few patients holds somewhat
more of the rarest findings than chance would give it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.errors import ImportRefusedError
from ssl_core.records import SPLITS, Split

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

OFFICIAL_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout", "vault"), "vault"),
}
GOLDEN = (5**0.5 - 1) / 2


def draw_splits(
    groups: Sequence[str],
    labels: npt.ArrayLike,
    *,
    validation: float = 0.1,
    vault: float = 0.2,
    seed: int,
) -> list[Split]:
    """Draw a split for each of N items: `groups` are N patients, `labels` `(N, C)` of 1, 0, NaN.

    `validation` and `vault` are shares of the groups, each in [0, 1) with a sum below 1; a share
    of 0 leaves that split out. Items of a group stay together. Groups are sorted by what they
    hold (positives and negatives of each finding, rarest first, then size), so that shares of
    items and rates of each finding come close. A group with more items than the smallest
    split should hold, and more than twice the average, stays in train. Each finding's
    positives, and its negatives, stand in every split if as many groups as splits have them,
    unless findings compete for the same few groups.

    The result depends on the seed and on the set of items, never on their order. Raises
    `ImportRefusedError` for fewer groups than splits, `ValueError` for wrong shapes or shares.
    """
    values = np.asarray(labels, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(groups):
        raise ValueError(f"labels {values.shape} do not fit {len(groups)} groups")
    if not (0 <= validation < 1 and 0 <= vault < 1 and validation + vault < 1):
        raise ValueError(f"shares out of range: validation {validation}, vault {vault}")
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    shares = np.array([1 - validation - vault, validation, vault])
    active = np.flatnonzero(shares > 0)
    if len(names) < len(active):
        raise ImportRefusedError(
            f"{len(names)} patients cannot fill {len(active)} splits; add patients, or check the "
            "patient column."
        )
    rng = np.random.default_rng(seed)
    sizes = np.bincount(member, minlength=len(names))
    holds = _holdings(values, member, len(names))
    drawn = _systematic(holds, sizes, shares, rng)
    too_large = (sizes > shares[active].min() * len(member)) & (sizes > 2 * sizes.mean())
    drawn[too_large] = 0
    _cover(drawn, holds, active, too_large, rng)
    return [SPLITS[split] for split in drawn[member]]


def keep_official(
    official: Sequence[Split],
    groups: Sequence[str],
    labels: npt.ArrayLike,
    *,
    validation: float = 0.1,
    smallest_validation: int = 50,
    allow_shared_groups: bool = False,
    seed: int,
) -> tuple[list[Split], tuple[str, ...]]:
    """Keep N items' official splits, and name the groups that stand in more than one of them.

    A validation split of fewer than `smallest_validation` items chooses no checkpoint: it goes
    back to train, and `validation`, a share of train's groups, is drawn there by `draw_splits`.
    Shared groups are counted once validation went back; drawing validation adds none to train.

    Raises `ImportRefusedError` where train or vault is empty, or, unless they are allowed, for
    shared groups.
    """
    splits = list(official)
    for word, split in (("train", "train"), ("test", "vault")):
        if split not in splits:
            raise ImportRefusedError(
                f"The official split has no {word} items; mend its column, or leave it out to "
                "have the splits drawn by patient."
            )
    draw = splits.count("validation") < smallest_validation
    if draw:
        splits = ["train" if split == "validation" else split for split in splits]
    shared = _shared(splits, groups)
    if shared and not allow_shared_groups:
        named = ", ".join(map(repr, shared[:5])) + (", ..." if len(shared) > 5 else "")
        raise ImportRefusedError(
            f"{len(shared)} patients stand in more than one official split ({named}); mend the "
            "split column, leave it out to have splits drawn by patient, or allow shared patients."
        )
    if draw:
        train = [i for i, split in enumerate(splits) if split == "train"]
        of_train = [groups[i] for i in train], np.asarray(labels, dtype=np.float64)[train]
        drawn = draw_splits(*of_train, validation=validation, vault=0.0, seed=seed)
        for i, split in zip(train, drawn, strict=True):
            splits[i] = split
    return splits, shared


def _shared(splits: Sequence[Split], groups: Sequence[str]) -> tuple[str, ...]:
    """Name the groups that stand in more than one split, sorted."""
    found: dict[str, set[Split]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        found[group].add(split)
    return tuple(sorted(group for group, where in found.items() if len(where) > 1))


def _holdings(values: Floats, member: Ints, n_groups: int) -> Bools:
    """`(G, 1 + 2C)`: the group is there; it has a positive, a negative of each, rarest first."""
    held = np.zeros((n_groups, 1 + 2 * values.shape[1]), dtype=bool)
    held[:, 0] = True
    for finding, column in enumerate(values.T):
        held[member[column == 1], 1 + 2 * finding] = True
        held[member[column == 0], 2 + 2 * finding] = True
    order = np.argsort(held[:, 1:].sum(axis=0), kind="stable")
    return held[:, np.concatenate([[0], 1 + order])]


def _systematic(holds: Bools, sizes: Ints, shares: Floats, rng: np.random.Generator) -> Ints:
    """Split of each group: alike groups stand in a row, and every stretch is dealt by shares.

    Points of the golden-ratio sequence from a random start are each uniform (hence the equal
    chances), while any stretch of n of them fills an interval with its share of n within O(log n).
    """
    # lexsort's last key is the first to sort by: rarest holding, ..., size, and chance for ties.
    order = np.lexsort([rng.random(len(sizes)), sizes, *holds.T[::-1]])
    points = (rng.random() + GOLDEN * np.arange(len(sizes))) % 1.0
    drawn = np.empty(len(sizes), dtype=np.int64)
    # The last bound is left out: rounding may put a sum of shares a hair below 1.
    drawn[order] = np.searchsorted(np.cumsum(shares)[:-1], points, side="right")
    return drawn


def _cover(drawn: Ints, holds: Bools, active: Ints, fixed: Bools, rng: np.random.Generator) -> None:
    """Move single groups, in place, into splits that miss a holding which could stand in all."""
    enough = holds[:, holds.sum(axis=0) >= len(active)]
    for last, column in enumerate(enough.T):
        settled = enough[:, : last + 1]
        for split in active:
            if np.any(column & (drawn == split)):
                continue
            counts = np.array([settled[drawn == s].sum(axis=0) for s in range(len(SPLITS))])
            # A group may leave if its split keeps another of everything settled that it holds.
            spare = np.all(~settled | (counts[drawn] > 1), axis=1)
            candidates = np.flatnonzero(column & spare & ~fixed)
            if len(candidates):
                drawn[rng.choice(candidates)] = split
