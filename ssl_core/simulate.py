"""The loop replayed on an archive: what a strategy would have cost, beside its random control.

An arm is a workspace of its own: the archive's items and hidden answers in a fresh ledger, the
same pixels, one strategy and one seed. It goes through `run_round()` like any other workspace, so
a stopped simulation goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core import metrics
from ssl_core.config import Config, Map, Reading, ledger_url, save_config
from ssl_core.errors import ConfigError, TrainingError, WorkspaceError
from ssl_core.evidence import (
    Difference,
    Estimate,
    PerFinding,
    compare,
    mean_interval,
    paired_over_seeds,
)
from ssl_core.ledger import Ledger
from ssl_core.preflight import check_settings, check_task
from ssl_core.progress import Report, silent
from ssl_core.recipes import plan
from ssl_core.rounds import run_round, unfinished
from ssl_core.source import ReadingRoom
from ssl_core.workspace import CONFIG_FILE, Workspace, one_process, part

RoomFor = Callable[[Ledger], ReadingRoom]
ALL = "all"


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one budget: vault numbers by stage, each name to an `Estimate`.

    `labels` counts labeled items by split; `seconds` is the wall time of the round's stages.
    """

    strategy: str
    seed: int
    budget: int
    round: int
    labels: dict[str, int]
    stages: dict[str, dict[str, Estimate]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the label-cost table: a strategy at a budget, over seeds.

    `auroc` and `accuracy` hold a mean over seeds for each stage, with its interval (with one
    seed: that seed's own interval over vault patients). `difference` is the student's macro AUROC
    less the control's, paired by patient and seed (with one seed: of these two models, by patient);
    None for the control itself.
    """

    strategy: str
    budget: int
    labels: dict[str, int]
    auroc: dict[str, Estimate]
    accuracy: dict[str, Estimate]
    difference: Difference | None
    seconds: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What `simulate` found, and of what."""

    recipe: str
    control: str | None
    config: str
    cells: list[Cell]
    rows: list[Row]

    def to_json(self) -> str:
        """Indented JSON; unknown numbers are null."""
        return json.dumps(_plain(asdict(self)), indent=1)


def simulate(
    workspace: Workspace,
    room_for: RoomFor,
    *,
    budgets: Sequence[int | str],
    strategies: Sequence[str],
    seeds: Sequence[int],
    control: str | None = "random",
    report: Report = silent,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> Simulation:
    """Replay the loop on an archive for every strategy and seed, and compare with the control.

    Args:
        workspace: an archive that has hidden answers; its own ledger is not changed.
        room_for: makes the simulated reader of an arm's ledger.
        budgets: training labels at which models are trained, rising; "all" is the whole pool.
        strategies: names of query strategies; each is an arm, and so is the control.
        seeds: one arm each; they vary the labels drawn, the first weights and the order. The same
            seed or strategy given twice counts once.
        control: the strategy to compare with, or None.
        report: told of progress.
        on_cell: called as soon as a cell is finished (or was found finished).

    Raises:
        WorkspaceError: the workspace is no archive, or has no vault.
        ConfigError: budgets do not rise, or exceed the pool; there is no seed or no strategy, or
            one of them cannot be used. Nothing was trained.
        TrainingError: the labels of a budget cannot train a model.
    """
    check_task(workspace.ledger.task)
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
    steps = resolve_budgets(budgets, len(workspace.ledger.items("train")))
    names = list(dict.fromkeys([*strategies, *([control] if control else [])]))
    seeds = list(dict.fromkeys(seeds))
    if not names or not seeds:
        raise ConfigError("There is nothing to simulate: give at least one strategy and one seed.")
    for strategy in names:
        settings = arm_config(workspace.config, strategy, seeds[0])
        check_settings(settings, len(workspace.ledger.task.findings))
    for seed in seeds:
        arm_config(workspace.config, names[0], seed)
    cells: list[Cell] = []
    evidence: dict[tuple[str, int, int], PerFinding] = {}
    for seed in seeds:
        for strategy in names:
            arm = open_arm(workspace, strategy, seed, steps)
            try:
                for cell in _run_arm(arm, room_for(arm.ledger), steps, strategy, seed, report):
                    cells.append(cell)
                    evidence[strategy, seed, cell.budget] = _vault_auroc(arm, cell)
                    on_cell(cell)
            finally:
                arm.ledger.close()
    rows = [
        _row(cells, evidence, strategy, budget, seeds, control)
        for budget in steps
        for strategy in names
    ]
    name = plan(workspace.config.recipe).name
    return Simulation(name, control, workspace.config.digest(), cells, rows)


def resolve_budgets(budgets: Sequence[int | str], pool: int) -> list[int]:
    """Budgets as rising numbers of items, "all" being the pool's size.

    Raises:
        ConfigError: none given, not rising, below 1, or more than the pool holds.
    """
    try:
        steps = [pool if b == ALL else int(b) for b in budgets]
    except ValueError:
        raise ConfigError(f"--budgets {list(budgets)}: give rising numbers, or 'all'.") from None
    if not steps or steps[0] < 1 or any(a >= b for a, b in pairwise(steps)):
        raise ConfigError(f"--budgets {steps}: give rising numbers of labels, 1 or more.")
    if steps[-1] > pool:
        raise ConfigError(f"--budgets {steps[-1]}: the train pool holds {pool} items only.")
    return steps


def arm_config(config: Config, strategy: str, seed: int) -> Config:
    """The configuration of one arm. Raises `ConfigError` for a seed that cannot be used."""
    before_labels = "random" if strategy == "random" else config.selection.cold_start
    selection = {"strategy": strategy, "cold_start": before_labels}
    arm = config.changed(selection=selection, seed=seed, ledger="sqlite")
    # Nobody reads here, and nobody looks at the map.
    return arm.model_copy(update={"reading": Reading(), "map": Map(methods=())})


def open_arm(workspace: Workspace, strategy: str, seed: int, steps: Sequence[int]) -> Workspace:
    """The workspace of one arm, made at the first call: same items and answers, no labels yet.

    It lies under `simulations/`, in a folder named by the configuration's digest and the budgets:
    with another configuration, or asked in other steps, the labels are others.
    """
    config = arm_config(workspace.config, strategy, seed)
    path = hashlib.sha256(repr(list(steps)).encode()).hexdigest()[:8]
    root = workspace.root / "simulations" / config.digest() / f"{strategy}-{seed}-{path}"
    root.mkdir(parents=True, exist_ok=True)
    with one_process(root, "simulating in"):
        if not (root / CONFIG_FILE).is_file():
            _make_arm(workspace.ledger, config, root)
    return Workspace(root, config, Ledger.open(ledger_url(config, root)), workspace.images)


def _make_arm(archive: Ledger, config: Config, root: Path) -> None:
    for half_made in root.glob("ledger.db*"):  # the configuration, written last, makes it whole
        half_made.unlink()
    items = archive.items()
    answers = archive.answers([item.id for item in items])
    Ledger.create(ledger_url(config, root), archive.task, items, answers=answers).close()
    save_config(config, root / CONFIG_FILE)


def _run_arm(
    arm: Workspace,
    room: ReadingRoom,
    steps: Sequence[int],
    strategy: str,
    seed: int,
    report: Report,
) -> list[Cell]:
    """Round 1 asks for the first budget; round k + 1 trains on the k-th and asks up to the next."""
    cells = []
    for number, budget in enumerate([0, *steps], start=1):
        if not arm.ledger.finished(number):
            pending = unfinished(arm)
            following = steps[number - 1] if number <= len(steps) else budget
            run_round(
                arm, room, query_size=following - budget, resume=pending is not None, report=report
            )
        if budget:
            cells.append(_cell(arm, strategy, seed, budget, number))
    return cells


def _cell(arm: Workspace, strategy: str, seed: int, budget: int, number: int) -> Cell:
    stages: dict[str, dict[str, Estimate]] = {}
    for _, m in arm.ledger.measurements(number):
        if m.split == "vault":
            key = m.name if m.finding == "macro" else f"{m.name} {m.finding}"
            stages.setdefault(m.stage, {})[key] = Estimate(m.value, m.low, m.high, m.n)
    seconds = sum(stage.seconds for stage in arm.ledger.stages(number))
    labels = {str(k): v for k, v in arm.ledger.label_counts(number).items()}
    if not stages:
        raise TrainingError(
            f"{strategy}, seed {seed}: the training labels at budget {budget} do not hold two "
            "sides of any finding, so nothing could be trained: begin with a larger budget."
        )
    return Cell(strategy, seed, budget, number, labels, stages, seconds)


def _vault_auroc(arm: Workspace, cell: Cell) -> PerFinding:
    """The student's AUROC with what a paired test needs; a counted look, the same one each time."""
    student = plan(arm.config.recipe).fits[-1].name
    model = next(m for _, m in arm.ledger.models(cell.round) if m.stage == student)
    labels = arm.ledger.look_into_vault(cell.round, model.id, "paired comparison of arms")
    vault = part(arm.ledger.items("vault"), labels, arm.ledger.task.findings, arm.images)
    scores = vault_scores(arm, cell.round)[student]
    return metrics.auroc(scores, vault.labels, np.array(vault.groups))


def vault_scores(workspace: Workspace, number: int) -> dict[str, npt.NDArray[np.float64]]:
    """What every model of a round gave the vault's items, `(N, C)` by stage, in import order."""
    path = workspace.round_folder(number) / "vault.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name.replace("_", " "): arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise WorkspaceError(
            f"{path} is missing or damaged: delete {workspace.root} to simulate it afresh."
        ) from None


def _row(
    cells: Sequence[Cell],
    evidence: Mapping[tuple[str, int, int], PerFinding],
    strategy: str,
    budget: int,
    seeds: Sequence[int],
    control: str | None,
) -> Row:
    mine = [c for c in cells if c.strategy == strategy and c.budget == budget]
    difference = None
    if control and strategy != control:
        ours = [evidence[strategy, seed, budget] for seed in seeds]
        theirs = [evidence[control, seed, budget] for seed in seeds]
        # Of one seed there are two given models to compare, not two ways to make them.
        paired = compare(ours[0], theirs[0]) if len(seeds) == 1 else paired_over_seeds(ours, theirs)
        difference = paired.macro
    return Row(
        strategy=strategy,
        budget=budget,
        labels=mine[0].labels,
        auroc=_over_seeds(mine, "auroc"),
        accuracy=_over_seeds(mine, "accuracy"),
        difference=difference,
        seconds=float(np.mean([c.seconds for c in mine])),
        seeds=len(mine),
    )


def _over_seeds(cells: Sequence[Cell], name: str) -> dict[str, Estimate]:
    by_stage = {stage: [c.stages[stage][name] for c in cells] for stage in cells[0].stages}
    return {
        stage: estimates[0] if len(estimates) == 1 else mean_interval([e.value for e in estimates])
        for stage, estimates in by_stage.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value
