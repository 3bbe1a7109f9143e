"""The reads of a workspace that chance hinted or left blind, held against the model's opinion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.probabilities import calls, peaks, probabilities
from ssl_core.progress import Report, silent
from ssl_core.readers.anchoring import HintedOrBlind
from ssl_core.readers.hints import DRAWN
from ssl_core.records import Model
from ssl_core.student import operating_point
from ssl_core.workspace import Workspace

Said = dict[tuple[str, str], dict[str, float]]  # by item and reader, the answer to each finding


def hinted_or_blind(ws: Workspace, report: Report = silent) -> list[HintedOrBlind]:
    """Reads of batches that were halved for hints: hinted ones and blind ones, of train alone.

    What the model would have said of a blind item is computed with the model that gave the hints
    of its round, in the same way for both halves. Left out: re-reads, which are blind by design
    and not by chance, and the adjudicator's.

    Raises:
        WorkspaceError: the file of a model that gave hints is missing.
    """
    log = ws.ledger.reading
    models = _hinting_models(ws)
    if not models:
        return []
    again = {(one.item_id, one.reader) for one in log.rereads()}
    reads = [
        read
        for read in log.reads()
        if read.outcome == "read"
        and read.role == "reader"
        and (read.item_id, read.reader) not in again
    ]
    said: Said = {}
    for label in ws.ledger.labels(splits=["train"]):
        said.setdefault((label.item_id, label.reader), {})[label.finding] = label.value
    groups = {item.id: item.group for item in ws.ledger.items("train")}
    found: list[HintedOrBlind] = []
    for number, (made, model) in models.items():
        kinds = {s.item_id: s.kind for s in ws.ledger.selections(number)}
        here = [r for r in reads if r.item_id in kinds and r.item_id in groups]
        opinions = _opinions(ws, made, model, [r.item_id for r in here], report)
        for read, row in zip(here, opinions, strict=True):
            stratum = f"{number} {kinds[read.item_id]}"
            agrees = _agrees(ws, said.get((read.item_id, read.reader), {}), row)
            group = groups[read.item_id]
            hinted = bool(read.hinted)
            found.append(HintedOrBlind(read.reader, group, stratum, hinted, agrees, read.seconds))
    return found


def _hinting_models(ws: Workspace) -> dict[int, tuple[int, Model]]:
    """The model that gave the hints of each round, with the round that made it."""
    hints = {i: shown[0].model_id for i, shown in ws.ledger.reading.hints().items() if shown}
    if not hints:
        return {}
    asked = {s.item_id: number for number, s in ws.ledger.selected()}
    counts: dict[int, Counter[str]] = {}
    for item_id, model_id in hints.items():
        if item_id in asked:
            counts.setdefault(asked[item_id], Counter())[model_id] += 1
    made = {model.id: (number, model) for number, model in ws.ledger.models()}
    usual = {number: count.most_common(1)[0][0] for number, count in sorted(counts.items())}
    return {number: made[name] for number, name in usual.items() if name in made}


def _opinions(
    ws: Workspace, number: int, model: Model, item_ids: Sequence[str], report: Report
) -> npt.NDArray[np.bool_]:
    """What a model calls present, `(n, C)`."""
    if not item_ids:
        return np.zeros((0, len(ws.ledger.task.findings)), dtype=bool)
    if ws.ledger.task.kind == "segmentation":
        return np.asarray(peaks(ws, number, model, item_ids, report) >= DRAWN)
    scores = probabilities(ws, number, model, item_ids, report)
    return calls(ws, scores, operating_point(ws, number, model.stage))


def _agrees(ws: Workspace, answers: dict[str, float], opinion: npt.NDArray[np.bool_]) -> float:
    """The share of findings on which the two say the same; of exclusive classes, all or nothing."""
    same = [
        float(answers[finding] == float(calls_it))
        for finding, calls_it in zip(ws.ledger.task.findings, opinion.tolist(), strict=True)
        if not math.isnan(answers.get(finding, math.nan))
    ]
    if not same:
        return math.nan
    return float(all(same)) if ws.ledger.task.exclusive else float(np.mean(same))
