"""Arms of a simulation: a strategy and a seed replayed on an archive, in a workspace of their own.

The archive's items and hidden answers in a fresh ledger, the same pixels. An arm goes through
`run_round()` like any other workspace, so one that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssl_core.config import Config, Map, Reading, ledger_url, save_config
from ssl_core.errors import ConfigError, WorkspaceError
from ssl_core.history.ledger import Ledger
from ssl_core.records import Answer
from ssl_core.workspace import CONFIG_FILE, Workspace, one_process

EVIDENCE_FILE = "evidence.npz"


@dataclass(frozen=True, slots=True)
class Arm:
    """What makes an arm: `validation` caps its labeled validation items (None: all of them)."""

    strategy: str
    seed: int
    budgets: tuple[int, ...]
    validation: int | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """An arm that lies in a workspace; `steps` names its budgets and validation in one word."""

    strategy: str
    seed: int
    steps: str
    root: Path


def arm_config(config: Config, strategy: str, seed: int) -> Config:
    """The configuration of one arm. Raises `ConfigError` for a seed that cannot be used."""
    before_labels = "random" if strategy == "random" else config.selection.cold_start
    # The random arm is the control here, and an arm asks by its own strategy to the end.
    alone = {"control": "off", "fall_back_after": 0}
    selection = {"strategy": strategy, "cold_start": before_labels, **alone}
    arm = config.changed(selection=selection, seed=seed, ledger="sqlite")
    # Nobody reads here, and nobody looks at the map.
    return arm.model_copy(update={"reading": Reading(), "map": Map(methods=())})


def arm_folder(workspace: Workspace, arm: Arm) -> Path:
    """Where an arm lies: under `simulations/`, named by the configuration's digest and the budgets.

    With another configuration, asked in other steps or with other validation, it is another.
    """
    steps = list(arm.budgets)
    path = repr(steps) if arm.validation is None else repr((steps, arm.validation))
    name = f"{arm.strategy}-{arm.seed}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    digest = arm_config(workspace.config, arm.strategy, arm.seed).digest()
    return workspace.root / "simulations" / digest / name


def replayed_arms(workspace: Workspace) -> list[Replayed]:
    """The arms of this configuration, begun or finished, by the names of their folders."""
    found = []
    for path in sorted((workspace.root / "simulations").glob(f"*/*/{CONFIG_FILE}")):
        name, _, steps = path.parent.name.rpartition("-")
        strategy, _, seed = name.rpartition("-")
        if strategy and seed.isdigit() and _same(workspace, strategy, int(seed), path):
            found.append(Replayed(strategy, int(seed), steps, path.parent))
    return found


def _same(workspace: Workspace, strategy: str, seed: int, path: Path) -> bool:
    try:
        return arm_config(workspace.config, strategy, seed).digest() == path.parent.parent.name
    except ConfigError:  # a folder that somebody named
        return False


def open_arm(workspace: Workspace, arm: Arm) -> Workspace:
    """The workspace of one arm, made at the first call: same items and answers, no labels yet."""
    root, config = arm_folder(workspace, arm), arm_config(workspace.config, arm.strategy, arm.seed)
    root.mkdir(parents=True, exist_ok=True)
    with one_process(root, "simulating in"):
        if not (root / CONFIG_FILE).is_file():
            _make_arm(workspace.ledger, config, root, arm)
    return Workspace(root, config, Ledger.open(ledger_url(config, root)), workspace.images)


def arm_finished(workspace: Workspace, arm: Arm) -> bool:
    """Whether `run_arm` would only read."""
    root = arm_folder(workspace, arm)
    if not (root / CONFIG_FILE).is_file():
        return False
    with Ledger.open(ledger_url(arm_config(workspace.config, arm.strategy, arm.seed), root)) as own:
        return own.finished(len(arm.budgets) + 1)


def vault_scores(workspace: Workspace, number: int) -> dict[str, npt.NDArray[np.float64]]:
    """What every model of a round gave the vault's items, `(N, C)` by stage, in import order.

    Probabilities; where masks are drawn, each item's Dice (NaN where nobody drew).
    """
    path = workspace.round_folder(number) / "vault.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name.replace("_", " "): arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise WorkspaceError(
            f"{path} is missing or damaged: delete {workspace.root} to simulate it afresh."
        ) from None


def _make_arm(archive: Ledger, config: Config, root: Path, arm: Arm) -> None:
    for half_made in root.glob("ledger.db*"):  # the configuration, written last, makes it whole
        half_made.unlink()
    items, answers = archive.items(), _answers(archive, arm)
    Ledger.create(ledger_url(config, root), archive.task, items, answers=answers).close()
    save_config(config, root / CONFIG_FILE)


def _answers(archive: Ledger, arm: Arm) -> list[Answer]:
    """What the arm's reader knows: all, but of the validation no more than the cap.

    Patients come in random order, each with all items until the cap is reached.
    """
    known = archive.answers([item.id for item in archive.items()])
    if arm.validation is None:
        return known
    validation = archive.items("validation")
    patients = sorted({item.group for item in validation})
    order = np.random.default_rng([arm.seed, *b"validation"]).permutation(len(patients))
    place = dict(zip(patients, order.tolist(), strict=True))
    validation.sort(key=lambda item: place[item.group])
    left_out = {item.id for item in validation[arm.validation :]}
    return [answer for answer in known if answer.item_id not in left_out]
