"""The reads that may judge pseudo-labels, and how many of those they find right.

Which reads may judge the pseudo-labels of round r, from the ledger's rounds:

1. Round r's teacher learned from labels whose round is below r. Its pool is what had no label
   then. So whatever label an item of that pool got later is one the teacher was not trained on.
2. Later is not enough: the strategy asks for hard cases, so its reads would judge too harshly.
   Only the random slice is a fair sample, and only of the pool that it was drawn from.
3. Round r itself draws a slice after it pseudo-labeled, from that same pool. Slices of later
   rounds come from what the strategy had left over by then, the easier part, and would flatter
   (in a simulation with a margin strategy, .84 where .78 was true and the own slice said .78);
   slices of earlier rounds, read late, were drawn from another pool. Both are left out.
4. A reader who saw a hint saw a model's opinion: only blind answers count. Hints are dealt at
   random within the slice, so what is left is still a fair sample.

So a round is judged by the blind reads of its own slice: few, hence the interval. All rounds
together are a larger sample of all pseudo-labels so far, since no item is asked twice. What nobody
could tell is left out, so is an image that is unusable. Items of the pool that earlier rounds had
asked for and that were not read yet are not in the sample. Intervals are Wilson's, by patient.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssl_core import pseudo_labels
from ssl_core.evidence import PerFinding
from ssl_core.metrics import operating_points
from ssl_core.probabilities import Floats
from ssl_core.recipes import PseudoLabel as PseudoLabelStage
from ssl_core.records import HeldRead, Item, Label, PseudoLabel, Task
from ssl_core.truth import label_matrix
from ssl_core.workspace import Workspace

Sign = Literal["present", "absent"]
SIGNS: tuple[Sign, Sign] = ("present", "absent")


def precision(
    signs: Floats, labels: Floats, groups: npt.NDArray[np.str_]
) -> dict[Sign, PerFinding]:
    """How much of what was kept is right, by sign.

    Args:
        signs: `(N, C)` of 1 (kept as present), 0 (as absent), NaN (dropped).
        labels: `(N, C)` of 1 / 0 / NaN; NaN is left out.
        groups: `(N,)` patients, for Wilson's interval by patient.

    Returns:
        For each sign, the share of the kept with a known label that have it.
    """
    present, absent = (signs == 1).astype(float), (signs == 0).astype(float)
    told = (
        operating_points(called, truth, groups=groups)["precision"]
        for called, truth in ((present, labels), (absent, 1 - labels))
    )
    return dict(zip(SIGNS, told, strict=True))


@dataclass(frozen=True, slots=True)
class Answers:
    """What may judge, read once for all rounds: usable train items, and blind labels of today."""

    items: dict[str, Item]
    labels: tuple[Label, ...]


def blind_answers(ws: Workspace) -> Answers:
    """The train pool less unusable images, and what blind readers said of it."""
    log = ws.ledger.reading
    out = log.unusable()
    items = {item.id: item for item in ws.ledger.items("train") if item.id not in out}
    return Answers(items, tuple(blind(ws.ledger.labels(splits=["train"]), log.reads())))


def fair_sample(
    ws: Workspace, number: int, stage: PseudoLabelStage, answers: Answers
) -> tuple[Floats, Floats, npt.NDArray[np.str_]]:
    """Signs, labels and patients of the round's own slice, `(M, C)`, `(M, C)`, `(M,)`."""
    drawn = [s.item_id for s in ws.ledger.selections(number) if s.kind == "random"]
    ids = [item_id for item_id in drawn if item_id in answers.items]
    later = [label for label in answers.labels if label.round >= number]
    labels = label_matrix(ids, later, ws.ledger.task.findings)
    groups = np.array([answers.items[item_id].group for item_id in ids], dtype=np.str_)
    return signs_of(ws, number, stage, ids), labels, groups


def signs_of(ws: Workspace, number: int, stage: PseudoLabelStage, ids: Sequence[str]) -> Floats:
    """How a stage kept these items, `(N, C)` of 1 / 0 / NaN."""
    findings = ws.ledger.task.findings
    rows = ws.ledger.pseudo_labels(number, stage.name, None if stage.soft else ids)
    if stage.soft:
        rows = _hardened(rows, detail_of(ws, number, stage.name)["positives"], ws.ledger.task)
    place = {item_id: i for i, item_id in enumerate(ids)}
    column = {finding: c for c, finding in enumerate(findings)}
    signs = np.full((len(ids), len(findings)), np.nan)
    for row in rows:
        if row.item_id in place:
            signs[place[row.item_id], column[row.finding]] = row.value
    return signs


def blind(labels: Collection[Label], reads: Collection[HeldRead]) -> list[Label]:
    """The labels of readers who saw no hint on that item, nor came with the import."""
    hinted = {(read.item_id, read.reader) for read in reads if read.hinted}
    return [
        label
        for label in labels
        if label.source != "import" and (label.item_id, label.reader) not in hinted
    ]


def detail_of(ws: Workspace, number: int, stage: str) -> dict[str, Any]:
    """What a pseudo-labeling stage wrote of itself: pool, prior, positives, kept."""
    told = next(s.detail for s in ws.ledger.stages(number) if s.name == stage)
    detail: dict[str, Any] = json.loads(told)
    return detail


def _hardened(
    rows: Sequence[PseudoLabel], positives: Sequence[float], task: Task
) -> list[PseudoLabel]:
    """Soft pseudo-labels as 1 / 0: kept again from the kept alone, in the counts of the round.

    A soft value is the teacher's score and does not say with which sign it was kept: with a low
    prior, items below one half are not kept as present, nor need those above a high one be.
    """
    column = {finding: c for c, finding in enumerate(task.findings)}
    ids = list(dict.fromkeys(row.item_id for row in rows))
    place = {item_id: i for i, item_id in enumerate(ids)}
    scores = np.full((len(ids), len(task.findings)), np.nan)
    for row in rows:
        scores[place[row.item_id], column[row.finding]] = row.score
    signs = _kept_again(scores, np.array(positives), task.exclusive)
    return [
        PseudoLabel(
            r.item_id, r.finding, float(signs[place[r.item_id], column[r.finding]]), r.score
        )
        for r in rows
    ]


def _kept_again(scores: Floats, positives: Floats, exclusive: bool) -> Floats:
    """`(M, C)` of 1 / 0 / NaN: dropped items took no room, so the rule decides alike without."""
    if exclusive:
        return pseudo_labels.keep_most_confident_class(scores, positives / len(scores), 1.0)
    signs = np.where(np.isnan(scores), np.nan, 0.0)
    for c, count in enumerate(positives):
        known = np.flatnonzero(~np.isnan(scores[:, c]))
        order = known[np.argsort(scores[known, c], kind="stable")]
        signs[order[len(order) - int(count) :], c] = 1.0
    return signs
