"""What an arm of a simulation keeps of its student's macro AUROC, so that claims need no look.

The vault's labels are read where the arm measures, in its counted look. What a paired test needs
of them later is the influence of each patient on the AUROC, and that is kept beside the scores.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssl_core.arms import EVIDENCE_FILE, Arm, arm_folder, replayed_arms
from ssl_core.claims.savings import Paths, paths
from ssl_core.evidence import Estimate, Statistic
from ssl_core.workspace import Workspace


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A strategy and its control, replayed with the same seeds at the same budgets.

    `arms` are the folders of the strategy's arms, one a seed.
    """

    ours: Paths
    control: Paths
    seeds: tuple[int, ...]
    arms: tuple[Path, ...]


def pair(ws: Workspace, strategy: str, control: str, seeds: Sequence[int], arm: Arm) -> Pair:
    """Two replayed strategies; `arm` says with which budgets, and which validation.

    Raises ValueError where an arm is not finished, or was replayed by an earlier release.
    """
    roots = {
        name: [arm_folder(ws, replace(arm, strategy=name, seed=seed)) for seed in seeds]
        for name in (strategy, control)
    }
    both = [
        paths(name, arm.budgets, [[one for _, one in _rounds(root)] for root in found])
        for name, found in roots.items()
    ]
    return Pair(both[0], both[1], tuple(seeds), tuple(roots[strategy]))


def pairs(ws: Workspace, control: str = "random") -> list[Pair]:
    """Every strategy that was replayed beside the control under the workspace's configuration.

    Of arms that were asked in other steps, those count of which most are finished. Seeds that the
    strategy and its control have not both finished are left out.
    """
    arms: dict[tuple[str, str], dict[int, Path]] = {}
    for one in replayed_arms(ws):
        arms.setdefault((one.strategy, one.steps), {})[one.seed] = one.root
    found = []
    for strategy in sorted({name for name, _ in arms} - {control}):
        ours = [
            _pair(strategy, control, arms[name, steps], arms.get((control, steps), {}))
            for name, steps in arms
            if name == strategy
        ]
        best = max((p for p in ours if p), key=lambda p: p.ours.values.size, default=None)
        found += [best] if best else []
    return found


def _pair(
    strategy: str, control: str, ours: dict[int, Path], theirs: dict[int, Path]
) -> Pair | None:
    sides = [{seed: _rounds(root) for seed, root in side.items()} for side in (ours, theirs)]
    size = max((len(rounds) for side in sides for rounds in side.values()), default=0)
    seeds = [s for s in sorted(ours) if all(len(side.get(s, ())) == size for side in sides)]
    if not seeds or not size:
        return None
    budgets = [budget for budget, _ in sides[0][seeds[0]]]
    both = [
        paths(name, budgets, [[one for _, one in side[seed]] for seed in seeds])
        for name, side in zip((strategy, control), sides, strict=True)
    ]
    return Pair(both[0], both[1], tuple(seeds), tuple(ours[seed] for seed in seeds))


def _rounds(root: Path) -> list[tuple[int, Statistic]]:
    found = [_load(folder) for folder in sorted((root / "rounds").glob("*"))]
    return [one for one in found if one is not None]


def _load(folder: Path) -> tuple[int, Statistic] | None:
    try:
        with np.load(folder / EVIDENCE_FILE, allow_pickle=False) as kept:
            value, low, high, hidden = (float(x) for x in kept["numbers"])
            budget, n, trials = (int(x) for x in kept["counts"])
            influence = kept["influence"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return budget, Statistic(Estimate(value, low, high, n), influence, hidden, trials)
