"""Query strategies on frozen features, over many seeds: cells that are kept, and their rows."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.bench import selection_loop
from app.bench.frozen import Frozen
from app.bench.selection_loop import Rule, curve
from ssl_core import strategies
from ssl_core.errors import ConfigError
from ssl_core.evidence import Estimate, paired_mean_interval

CONTROL = "random"
COMMON = 20  # positives in the vault from which a finding's AUROC says something
RESAMPLES = 1_000
NOT_ON_FEATURES = ("augmentation", "disagreement")
"""They compare augmented pictures or two networks, of which frozen features know nothing."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """What is compared: each strategy, query size and seed is a cell, run up to the last budget."""

    strategies: tuple[str, ...]
    budgets: tuple[int, ...]
    query_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    rule: Rule = field(default_factory=Rule)
    jobs: int = 1


Cell = tuple[str, int, int]
"""Strategy, query size and seed."""

Curves = dict[Cell, dict[int, list[float]]]
"""Of each cell, by labels so far: the vault's AUROC, macro first, then of each finding."""


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy with one query size over all seeds, against `random` with the same seeds.

    measure: "macro", or the mean over the findings with at least `COMMON` positives in the vault.
    auroc, spread: mean and standard deviation over seeds, by budget. difference: to random, paired
    by seed. reaches: the labels at which the mean curve first reaches random's at the last budget,
    as a share of that budget, with a bootstrap interval over seeds; infinite where it does not.
    """

    measure: str
    query_size: int
    strategy: str
    auroc: dict[int, float]
    spread: dict[int, float]
    difference: dict[int, Estimate]
    reaches: Estimate

    @property
    def verdicts(self) -> dict[int, str]:
        """By budget: "win", "tie" or "loss", by whether the interval excludes zero."""
        return {
            budget: "win" if found.low > 0 else "loss" if found.high < 0 else "tie"
            for budget, found in self.difference.items()
        }


def check(trial: Trial) -> None:
    """Raise `ConfigError` for what cannot be run."""
    known = [name for name in strategies.STRATEGIES if name not in NOT_ON_FEATURES]
    for name in (*trial.strategies, trial.rule.start):
        if name not in known:
            raise ConfigError(f"strategy {name!r} cannot be run here; use some of {known}.")
    if "probabilities" in strategies.NEEDS[trial.rule.start]:
        raise ConfigError(f"--start {trial.rule.start!r} needs a model: use kmeans_start.")
    if CONTROL not in trial.strategies:
        raise ConfigError("--strategies must hold random: the others are held against it.")
    if not trial.budgets or min(trial.budgets) < 1 or min(trial.query_sizes, default=0) < 1:
        raise ConfigError("--budgets and --query-sizes: give whole numbers of 1 or more.")
    if len(trial.seeds) < 2:
        raise ConfigError("--seeds: give at least 2, an interval needs them.")


def run(
    frozen: Frozen, trial: Trial, out: Path, say: Callable[[str], None] = lambda line: None
) -> Curves:
    """The curves of all cells; those that were finished before are only read.

    A finished cell is kept under `out`/cells in a folder named by data, rule and the source of
    strategies and loop: what is changed there is run again.
    """
    check(trial)
    folder = out / "cells" / _name(frozen, trial)
    folder.mkdir(parents=True, exist_ok=True)
    cells = [
        (name, size, seed)
        for seed in trial.seeds
        for size in trial.query_sizes
        for name in trial.strategies
    ]
    waiting = [cell for cell in cells if not _path(folder, cell).is_file()]
    for count, cell in enumerate(_work(frozen, trial, folder, waiting), start=1):
        if count % 20 == 0 or count == len(waiting):
            say(f"{count} of {len(waiting)} cells: {cell[0]}, {cell[1]} a round, seed {cell[2]}")
    return {cell: _read(_path(folder, cell)) for cell in cells}


def rows_of(frozen: Frozen, trial: Trial, curves: Curves) -> list[Row]:
    """A row a measure, query size and strategy, random first."""
    order = [CONTROL, *(name for name in trial.strategies if name != CONTROL)]
    return [
        _row(trial, curves, measure, columns, size, name)
        for measure, columns in _measures(frozen).items()
        for size in trial.query_sizes
        for name in order
    ]


def _measures(frozen: Frozen) -> Mapping[str, list[int]]:
    """Which numbers of a cell make a measure: 0 is the macro, 1 the first finding."""
    found = {"macro": [0]}
    if not frozen.exclusive and len(frozen.findings) > 1:
        often = np.flatnonzero(np.nansum(frozen.vault.labels, axis=0) >= COMMON)
        found[f"mean of {len(often)} common"] = (often + 1).tolist()
    return found


def _row(
    trial: Trial, curves: Curves, measure: str, columns: list[int], size: int, name: str
) -> Row:
    ours, theirs = (_table(trial, curves, columns, size, one) for one in (name, CONTROL))
    steps = sorted(curves[name, size, trial.seeds[0]])
    at = {budget: steps.index(min(budget, steps[-1])) for budget in trial.budgets}
    return Row(
        measure=measure,
        query_size=size,
        strategy=name,
        auroc={budget: float(ours[:, k].mean()) for budget, k in at.items()},
        spread={budget: float(ours[:, k].std(ddof=1)) for budget, k in at.items()},
        difference={
            budget: paired_mean_interval(ours[:, k].tolist(), theirs[:, k].tolist())
            for budget, k in at.items()
            if name != CONTROL
        },
        reaches=_reaches(np.array(steps), ours, theirs),
    )


def _table(trial: Trial, curves: Curves, columns: list[int], size: int, name: str) -> Floats:
    """`(seeds, rounds)`: one measure of a strategy."""
    return np.array(
        [
            [
                np.mean(np.array(values)[columns])
                for _, values in sorted(curves[name, size, s].items())
            ]
            for s in trial.seeds
        ]
    )


def _reaches(steps: npt.NDArray[np.int64], ours: Floats, theirs: Floats) -> Estimate:
    """Where the mean curve first reaches the control's last value, over that number of labels."""
    rng, count = np.random.default_rng(0), len(ours)
    drawn = [rng.integers(count, size=count) for _ in range(RESAMPLES)]
    shares = [_first(steps, ours[i].mean(axis=0), theirs[i, -1].mean()) for i in drawn]
    low, high = np.quantile(shares, [0.025, 0.975], method="nearest").tolist()
    return Estimate(_first(steps, ours.mean(axis=0), theirs[:, -1].mean()), low, high, count)


def _first(steps: npt.NDArray[np.int64], values: Floats, target: float) -> float:
    """Linear between rounds; infinite where the curve stays below the target."""
    above = np.flatnonzero(values >= target)
    if not len(above):
        return math.inf
    k = int(above[0])
    if k == 0:
        return float(steps[0] / steps[-1])
    part = (target - values[k - 1]) / (values[k] - values[k - 1])
    return float((steps[k - 1] + part * (steps[k] - steps[k - 1])) / steps[-1])


# --- cells -------------------------------------------------------------------------------------


def _name(frozen: Frozen, trial: Trial) -> str:
    told = hashlib.sha256()
    for part in (frozen.train, frozen.vault):
        for array in (part.features, part.labels, part.groups):
            told.update(np.ascontiguousarray(array).tobytes())
    sources = sorted(Path(strategies.__file__).parent.glob("*.py"))
    for file in (*sources, Path(selection_loop.__file__)):
        told.update(file.read_bytes())
    told.update(json.dumps([trial.budgets, asdict(trial.rule)]).encode())
    return f"{frozen.data}-{frozen.split}-{told.hexdigest()[:12]}"


def _path(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell[0]}-{cell[1]}-{cell[2]}.json"


def _read(path: Path) -> dict[int, list[float]]:
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {
        labels: [math.nan if value is None else value for value in values]
        for labels, values in kept
    }


def _work(frozen: Frozen, trial: Trial, folder: Path, waiting: Sequence[Cell]) -> Iterator[Cell]:
    """Run the cells that wait, in as many processes as there are jobs; each is kept when done."""
    if trial.jobs == 1 or len(waiting) < 2:
        for cell in waiting:
            _keep(_path(folder, cell), frozen, trial, cell)
            yield cell
        return
    cores = os.cpu_count() or 1
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // trial.jobs))  # the children's, from birth
    try:
        with ProcessPoolExecutor(
            trial.jobs, get_context("spawn"), initializer=_take, initargs=(frozen, trial, folder)
        ) as pool:
            for done in as_completed([pool.submit(_one, cell) for cell in waiting]):
                yield done.result()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


_given: list[tuple[Frozen, Trial, Path]] = []  # of a child process: sent once, not with every cell


def _take(frozen: Frozen, trial: Trial, folder: Path) -> None:
    _given.append((frozen, trial, folder))


def _one(cell: Cell) -> Cell:
    frozen, trial, folder = _given[-1]
    _keep(_path(folder, cell), frozen, trial, cell)
    return cell


def _keep(path: Path, frozen: Frozen, trial: Trial, cell: Cell) -> None:
    name, size, seed = cell
    found = [
        [labels, [None if math.isnan(value) else value for value in values]]
        for labels, values in curve(frozen, name, size, trial.budgets, seed, trial.rule)
    ]
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(found), encoding="utf-8")
    scratch.replace(path)
