"""The model in use: the newest measured student, its operating point, and its opinion on items."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ssl_core.errors import WorkspaceError
from ssl_core.predict import Device, choose_device, predict
from ssl_core.progress import Report, silent
from ssl_core.recipes import plan
from ssl_core.records import Hint, Model
from ssl_core.workspace import Workspace


def newest_student(ws: Workspace) -> tuple[int, Model]:
    """The last model of the newest measured round, and that round's number.

    A round that was given up before it was measured has none.

    Raises:
        WorkspaceError: no round has trained a model yet.
    """
    found = find_student(ws)
    if found is None:
        raise WorkspaceError(
            f"{ws.root} has no trained model yet: run `readloop round {ws.root}` until it has."
        )
    return found


def find_student(ws: Workspace) -> tuple[int, Model] | None:
    """The same, or None where no round has trained a model yet."""
    student = plan(ws.config.recipe).fits[-1].name
    made = [(number, model) for number, model in ws.ledger.models() if model.stage == student]
    measured = {number for number, _ in ws.ledger.measurements() if ws.ledger.finished(number)}
    finished = [(number, model) for number, model in made if number in measured]
    return finished[-1] if finished else None


def operating_point(ws: Workspace, number: int, stage: str) -> list[float]:
    """The C thresholds that a round chose on validation for the model of one of its stages."""
    detail = next(s.detail for s in ws.ledger.stages(number) if s.name == "evaluate")
    chosen: list[float] = json.loads(detail)["thresholds"][stage]
    return chosen


def present(row: Sequence[float], thresholds: Sequence[float], exclusive: bool) -> list[bool]:
    """Which of C findings hold, from probabilities `(C,)`: the largest, or those at threshold."""
    if exclusive:
        return [position == row.index(max(row)) for position in range(len(row))]
    return [p >= t for p, t in zip(row, thresholds, strict=True)]


def hints_for(
    ws: Workspace, item_ids: Sequence[str], report: Report = silent
) -> dict[str, list[Hint]]:
    """The newest student's opinion on each item, one hint a finding; empty without a student."""
    found = find_student(ws)
    if found is None or not item_ids:
        return {}
    number, model = found
    task, compute = ws.ledger.task, ws.config.compute
    scores = predict(
        ws.load(model),
        ws.images.array,
        ws.images.positions(list(item_ids)),
        exclusive=task.exclusive,
        device=Device(choose_device(compute.device), compute.batch_size, compute.autocast),
        tta=plan(ws.config.recipe).tta,
        report=report,
        stage="hints",
    ).probabilities.tolist()
    thresholds = operating_point(ws, number, model.stage)
    return {
        item_id: [
            Hint(item_id, finding, float(holds), score, model.id)
            for finding, score, holds in zip(
                task.findings, row, present(row, thresholds, task.exclusive), strict=True
            )
        ]
        for item_id, row in zip(item_ids, scores, strict=True)
    }
