"""What hinted readers are shown: the opinion of the model in use, at its operating point.

Where findings are drawn, that is the model's masks at a probability of one half, and "absent"
where it draws no pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.claims.promotion import Made, find_in_use
from ssl_core.masks import files
from ssl_core.masks.predict import Maps, predict_masks
from ssl_core.progress import Report, silent
from ssl_core.recipes import plan
from ssl_core.records import Hint
from ssl_core.student import operating_point, present
from ssl_core.training.predict import predict
from ssl_core.workspace import Workspace

DRAWN = 0.5  # probability of a pixel from which it is drawn, as where masks are measured


def hints_for(
    ws: Workspace, item_ids: Sequence[str], report: Report = silent
) -> dict[str, list[Hint]]:
    """The opinion of the model in use on each item, one hint a finding; empty without a model.

    Masks are kept at the working size, as the model drew them.
    """
    found = find_in_use(ws)
    if found is None or not item_ids:
        return {}
    made = _drawn if ws.ledger.task.kind == "segmentation" else _told
    return made(ws, found, item_ids, report)


def _told(
    ws: Workspace, found: Made, item_ids: Sequence[str], report: Report
) -> dict[str, list[Hint]]:
    number, model = found
    task = ws.ledger.task
    scores = predict(
        ws.load(model),
        ws.images.array,
        ws.images.positions(list(item_ids)),
        exclusive=task.exclusive,
        device=ws.device,
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


def _drawn(
    ws: Workspace, found: Made, item_ids: Sequence[str], report: Report
) -> dict[str, list[Hint]]:
    model, findings, folder = found[1], ws.ledger.task.findings, ws.masks_folder

    def keep(places: npt.NDArray[np.intp], made: Maps) -> dict[str, Any]:
        masks = made.maps >= DRAWN
        digests = [[files.keep(folder, m) if m.any() else "" for m in each] for each in masks]
        return {"scores": made.classes, "digests": np.array(digests, dtype="U64")}

    told = predict_masks(
        ws.load_segmenter(model),
        ws.images.array,
        ws.images.positions(list(item_ids)),
        keep,
        device=ws.device,
        tta=plan(ws.config.recipe).tta,
        report=report,
        stage="hints",
    )
    return {
        item_id: [
            Hint(item_id, finding, float(bool(digest)), score, model.id, digest or None)
            for finding, score, digest in zip(findings, scores, digests, strict=True)
        ]
        for item_id, scores, digests in zip(
            item_ids, told["scores"].tolist(), told["digests"].tolist(), strict=True
        )
    }
