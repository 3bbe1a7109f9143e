"""The newest measured student, its operating point, and what follows from its scores."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ssl_core.recipes import plan
from ssl_core.records import Model
from ssl_core.workspace import Workspace


def find_student(ws: Workspace) -> tuple[int, Model] | None:
    """The last model of the newest measured round, and that round's number; None without one.

    A round that was given up before it was measured has none.
    """
    student = plan(ws.config.recipe).fits[-1].name
    made = [(number, model) for number, model in ws.ledger.models() if model.stage == student]
    measured = {number for number, _ in ws.ledger.measurements()}
    for number, model in reversed(made):
        if number in measured and ws.ledger.finished(number):
            return number, model
    return None


def operating_point(ws: Workspace, number: int, stage: str) -> list[float]:
    """The C thresholds that a round chose on validation for the model of one of its stages.

    Where masks are drawn they are cut at one half, whatever the round.
    """
    if ws.ledger.task.kind == "segmentation":
        return [0.5] * len(ws.ledger.task.findings)
    detail = next(s.detail for s in ws.ledger.stages(number) if s.name == "evaluate")
    chosen: list[float] = json.loads(detail)["thresholds"][stage]
    return chosen


def present(row: Sequence[float], thresholds: Sequence[float], exclusive: bool) -> list[bool]:
    """Which of C findings hold, from probabilities `(C,)`: the largest, or those at threshold."""
    if exclusive:
        return [position == row.index(max(row)) for position in range(len(row))]
    return [p >= t for p, t in zip(row, thresholds, strict=True)]
