"""The loop replayed on an archive: what a strategy would have cost, beside its random control.

Each strategy and seed is an arm (see `arms`), so a stopped simulation goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np

from ssl_core.arm_runs import Cell, RoomFor, run_arm
from ssl_core.arms import Arm, arm_config
from ssl_core.errors import ConfigError, WorkspaceError
from ssl_core.evidence import (
    Difference,
    Estimate,
    PerFinding,
    compare,
    mean_of_shares,
    paired_over_seeds,
)
from ssl_core.preflight import check_settings, check_task
from ssl_core.progress import Report, silent
from ssl_core.recipes import plan
from ssl_core.workspace import Workspace

ALL = "all"
BESIDE = {"auroc": "accuracy", "dice": "iou"}
"""What is told beside each headline metric."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the label-cost table: a strategy at a budget, over seeds.

    `score` (AUROC, or Dice where masks are drawn) and `beside` (accuracy, or IoU) hold a mean over
    seeds for each stage, with its interval (with one seed: that seed's own interval over vault
    patients). `difference` is the student's macro score less the control's, paired by patient and
    seed (with one seed: of these two models, by patient); None for the control itself.
    """

    strategy: str
    budget: int
    labels: dict[str, int]
    score: dict[str, Estimate]
    beside: dict[str, Estimate]
    difference: Difference | None
    seconds: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What `simulate` found, and of what."""

    recipe: str
    metric: str
    control: str | None
    config: str
    cells: list[Cell]
    rows: list[Row]

    def to_json(self) -> str:
        """Indented JSON; unknown numbers are null."""
        return json.dumps(plain(asdict(self)), indent=1)


def simulate(
    workspace: Workspace,
    room_for: RoomFor,
    *,
    budgets: Sequence[int | str],
    strategies: Sequence[str],
    seeds: Sequence[int],
    control: str | None = "random",
    validation: int | None = None,
    report: Report = silent,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> Simulation:
    """Replay the loop on an archive for every strategy and seed, and compare with the control.

    Args:
        workspace: an archive that has hidden answers; its own ledger is not changed.
        room_for: makes the simulated reader of an arm's ledger.
        budgets: training labels at which models are trained, rising; "all" is the whole pool, and
            "2%" that share of it.
        strategies: names of query strategies; each is an arm, and so is the control.
        seeds: one arm each; they vary the labels drawn, the first weights and the order. The same
            seed or strategy given twice counts once.
        control: the strategy to compare with, or None.
        validation: at most that many validation items are labeled, drawn at random by patient with
            the arm's seed; the others stay unknown and take no part. None labels all.
        report: told of progress.
        on_cell: called as soon as a cell is finished (or was found finished).

    Raises:
        WorkspaceError: the workspace is no archive, or has no vault.
        ConfigError: budgets do not rise, or exceed the pool; there is no seed or no strategy, or
            one of them or the validation cannot be used. Nothing was trained.
        TrainingError: the labels of a budget cannot train a model.
    """
    _refuse_what_cannot_be_replayed(workspace)
    steps = resolve_budgets(budgets, len(workspace.ledger.items("train")))
    if validation is not None and validation < 1:
        raise ConfigError(f"validation = {validation}: label 1 item or more, or all (None).")
    names = list(dict.fromkeys([*strategies, *([control] if control else [])]))
    seeds = list(dict.fromkeys(seeds))
    _check_arms(workspace, names, seeds)
    recipe = plan(workspace.config.recipe)
    student, metric = recipe.fits[-1].name, workspace.ledger.task.metric
    cells: list[Cell] = []
    evidence: dict[tuple[str, int, int], PerFinding] = {}
    for seed, strategy in product(seeds, names):
        arm = Arm(strategy, seed, tuple(steps), validation)
        for cell, found in run_arm(workspace, room_for, arm, report):
            cells.append(cell)
            evidence[strategy, seed, cell.budget] = found[student]
            on_cell(cell)
    rows = [
        _row(cells, evidence, strategy, budget, seeds, control, metric)
        for budget, strategy in product(steps, names)
    ]
    return Simulation(recipe.name, metric, control, workspace.config.digest(), cells, rows)


def _refuse_what_cannot_be_replayed(workspace: Workspace) -> None:
    check_task(workspace.ledger.task, workspace.config)
    if not workspace.ledger.has_answers():
        raise WorkspaceError(
            f"{workspace.root} holds no hidden labels to replay: "
            "make the workspace with `readloop init --archive`."
        )
    if not workspace.ledger.items("vault"):
        raise WorkspaceError(
            f"{workspace.root} has no vault, so nothing could be compared: make the workspace with "
            "a --vault above 0."
        )


def _check_arms(workspace: Workspace, names: Sequence[str], seeds: Sequence[int]) -> None:
    if not names or not seeds:
        raise ConfigError("There is nothing to simulate: give at least one strategy and one seed.")
    for strategy in names:
        settings = arm_config(workspace.config, strategy, seeds[0])
        check_task(workspace.ledger.task, settings)
        check_settings(settings, len(workspace.ledger.task.findings))
    for seed in seeds:
        arm_config(workspace.config, names[0], seed)


def resolve_budgets(budgets: Sequence[int | str], pool: int) -> list[int]:
    """Budgets as rising numbers of items: "all" is the pool's size, "2%" that share, 1 or more.

    Raises:
        ConfigError: none given, not rising, below 1, or more than the pool holds.
    """
    try:
        steps = [_labels(budget, pool) for budget in budgets]
    except ValueError:
        raise ConfigError(
            f"--budgets {list(budgets)}: give rising numbers, shares such as 2%, or 'all'."
        ) from None
    if not steps or steps[0] < 1 or any(a >= b for a, b in pairwise(steps)):
        raise ConfigError(f"--budgets {steps}: give rising numbers of labels, 1 or more.")
    if steps[-1] > pool:
        raise ConfigError(f"--budgets {steps[-1]}: the train pool holds {pool} items only.")
    return steps


def _labels(budget: int | str, pool: int) -> int:
    if budget == ALL:
        return pool
    if isinstance(budget, str) and budget.endswith("%"):
        share = float(budget[:-1]) / 100
        if not 0 < share <= 1:
            raise ValueError(budget)
        return max(1, round(share * pool))
    return int(budget)


def _row(
    cells: Sequence[Cell],
    evidence: Mapping[tuple[str, int, int], PerFinding],
    strategy: str,
    budget: int,
    seeds: Sequence[int],
    control: str | None,
    metric: str,
) -> Row:
    mine = [c for c in cells if c.strategy == strategy and c.budget == budget]
    difference = None
    if control and strategy != control:
        ours = [evidence[strategy, seed, budget] for seed in seeds]
        difference = paired(ours, [evidence[control, seed, budget] for seed in seeds])
    return Row(
        strategy=strategy,
        budget=budget,
        labels=mine[0].labels,
        score=_over_seeds(mine, metric),
        beside=_over_seeds(mine, BESIDE[metric]),
        difference=difference,
        seconds=float(np.mean([c.seconds for c in mine])),
        seeds=len(mine),
    )


def _over_seeds(cells: Sequence[Cell], name: str) -> dict[str, Estimate]:
    return {stage: over_seeds([c.stages[stage][name] for c in cells]) for stage in cells[0].stages}


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds with its interval; of one seed, its own over vault patients."""
    return estimates[0] if len(estimates) == 1 else mean_of_shares([e.value for e in estimates])


def paired(ours: Sequence[PerFinding], theirs: Sequence[PerFinding]) -> Difference:
    """The macro's mean difference over seeds; of one seed, of these two models, by patient."""
    if len(ours) == 1:  # two given models to compare, not two ways to make them
        return compare(ours[0], theirs[0]).macro
    return paired_over_seeds(ours, theirs).macro


def plain(value: Any) -> Any:
    """What JSON can hold: unknown numbers are null."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value
