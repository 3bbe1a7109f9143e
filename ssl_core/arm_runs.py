"""Running one arm of a simulation: every budget a round, every round's vault numbers a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core import metrics
from ssl_core.arms import EVIDENCE_FILE, Arm, open_arm, vault_scores
from ssl_core.errors import TrainingError
from ssl_core.evidence import Estimate, PerFinding, Statistic
from ssl_core.history.ledger import Ledger
from ssl_core.masks.overlap import average
from ssl_core.progress import Report, silent
from ssl_core.rounds import run_round, unfinished
from ssl_core.source import ReadingRoom
from ssl_core.workspace import Workspace, part

RoomFor = Callable[[Ledger], ReadingRoom]


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


def run_arm(
    workspace: Workspace, room_for: RoomFor, arm: Arm, report: Report = silent
) -> Iterator[tuple[Cell, dict[str, PerFinding]]]:
    """Replay one arm: at each budget its cell, and every stage's AUROC (Dice) on the vault.

    Round 1 asks for the first budget; round k + 1 trains on the k-th and asks up to the next. What
    is finished is only read. The AUROCs hold what a paired test needs.

    Raises:
        TrainingError: the labels of a budget cannot train a model.
        WorkspaceError: another process runs this arm.
    """
    own = open_arm(workspace, arm)
    try:
        room = room_for(own.ledger)
        for number, budget in enumerate([0, *arm.budgets], start=1):
            if not own.ledger.finished(number):
                pending = unfinished(own)
                last = number > len(arm.budgets)
                asked = 0 if last else arm.budgets[number - 1] - budget
                run_round(own, room, query_size=asked, resume=pending is not None, report=report)
            if budget:
                cell, found = _cell(own, arm, budget, number), _vault_evidence(own, number)
                _keep_evidence(own.round_folder(number), budget, list(found.values())[-1].macro)
                yield cell, found
    finally:
        own.ledger.close()


def _keep_evidence(folder: Path, budget: int, macro: Statistic) -> None:
    """What `kept_evidence` reads of the student: written whole or not at all."""
    found, scratch = macro.estimate, folder / "evidence.tmp.npz"
    np.savez(
        scratch,
        allow_pickle=False,
        numbers=np.array([found.value, found.low, found.high, macro.hidden]),
        counts=np.array([budget, found.n, macro.trials]),
        influence=macro.influence,
    )
    scratch.replace(folder / EVIDENCE_FILE)


def _cell(own: Workspace, arm: Arm, budget: int, number: int) -> Cell:
    stages: dict[str, dict[str, Estimate]] = {}
    for _, m in own.ledger.measurements(number):
        if m.split == "vault":
            key = m.name if m.finding == "macro" else f"{m.name} {m.finding}"
            stages.setdefault(m.stage, {})[key] = Estimate(m.value, m.low, m.high, m.n)
    seconds = sum(stage.seconds for stage in own.ledger.stages(number))
    labels = {str(k): v for k, v in own.ledger.label_counts(number).items()}
    if not stages:
        raise TrainingError(
            f"{arm.strategy}, seed {arm.seed}: the training labels at budget {budget} do not hold "
            "two sides of any finding, so nothing could be trained: begin with a larger budget."
        )
    return Cell(arm.strategy, arm.seed, budget, number, labels, stages, seconds)


def _vault_evidence(own: Workspace, number: int) -> dict[str, PerFinding]:
    """Each stage's AUROC (Dice of masks) with what a paired test needs.

    A counted look, the same one each time; the Dice of each item was measured in the round.
    """
    if own.ledger.task.kind == "segmentation":
        out = own.ledger.reading.unusable(number)
        patients = np.array([i.group for i in own.ledger.items("vault") if i.id not in out])
        return {stage: average(d, patients) for stage, d in vault_scores(own, number).items()}
    student = own.ledger.models(number)[-1][1]
    labels = own.ledger.look_into_vault(number, student.id, "paired comparison of arms")
    vault = part(own.ledger.items("vault"), labels, own.ledger.task.findings, own.images)
    groups = np.array(vault.groups)
    return {
        stage: metrics.auroc(scores, vault.labels, groups)
        for stage, scores in vault_scores(own, number).items()
    }
