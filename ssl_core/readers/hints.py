"""What hinted readers are shown: the opinion of the model in use, at its operating point."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_core.claims.promotion import find_in_use
from ssl_core.progress import Report, silent
from ssl_core.recipes import plan
from ssl_core.records import Hint
from ssl_core.student import operating_point, present
from ssl_core.training.predict import Device, choose_device, predict
from ssl_core.workspace import Workspace


def hints_for(
    ws: Workspace, item_ids: Sequence[str], report: Report = silent
) -> dict[str, list[Hint]]:
    """The opinion of the model in use on each item, one hint a finding; empty without a model."""
    found = find_in_use(ws)
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
