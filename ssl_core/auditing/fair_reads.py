"""The reads that may judge pseudo-labels, and how many of those they find right.

Which reads may judge the pseudo-labels of round r, from the ledger's rounds:

1. Round r's teacher learned from labels whose round is below r. Its pool is what had no label
   then. So whatever label an item of that pool got later is one the teacher was not trained on.
2. Later is not enough: the strategy asks for hard cases, so its reads would judge too harshly,
   and later slices come from what the strategy had left over by then, the easier part, and would
   flatter (in a simulation with a margin strategy, .84 where .78 was true). Each read counts with
   its inclusion weight instead (see `weighted`): what was asked for counts once, what chance
   brought stands for the rest. The draws are those of round r and later, each from what was left
   of the pool that round r scored; the slices of earlier rounds were drawn from another pool.
3. A reader who saw a hint saw a model's opinion: only blind answers count. Hints are dealt at
   random within slice and query, so what is left is still a fair sample.
4. Contradictions of a model were read again because it denies them: of an item that was read again
   neither the re-read nor what an adjudicator made of it counts.

A mask that teachers drew is right where the readers' mask of the item overlaps it with a Dice of
`SAME` or more: one in the wrong place finds nothing.

What was kept is known before anything is drawn, so precision is a share of a known part of the
pool (`weighted.pool_share`); recall is a ratio, since only their reads tell the positives apart.
What nobody could tell is left out, so is an image that is unusable. Items that earlier rounds had
asked for and that were not read by then are not spoken of.

The slice of round r alone is a plain random sample of round r's pool: `fair_sample`, for counts
that are added up over rounds, each model judged by its own slice.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssl_core import pseudo_labels
from ssl_core.auditing.pool_reads import draws_of, first_reads, values_of
from ssl_core.auditing.weighted import pool_share, weigh, weighted_share
from ssl_core.errors import WorkspaceError
from ssl_core.evidence import Estimate, PerFinding
from ssl_core.history.truth import label_matrix
from ssl_core.masks.overlap import SAME, as_truth, dice
from ssl_core.masks.truth import mask_truth
from ssl_core.metrics import operating_points
from ssl_core.probabilities import Floats, find_round
from ssl_core.recipes import PseudoLabel as PseudoLabelStage
from ssl_core.recipes import PseudoMasks as PseudoMasksStage
from ssl_core.recipes import plan
from ssl_core.records import HeldRead, Item, Label, PseudoLabel, Task
from ssl_core.workspace import Workspace

Keeping = PseudoLabelStage | PseudoMasksStage
"""The stages that keep what a teacher said of the pool."""

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
    seen: frozenset[str]

    @property
    def groups(self) -> dict[str, str]:
        """Each item's patient."""
        return {item.id: item.group for item in self.items.values()}


def blind_answers(ws: Workspace, before_round: int | None = None) -> Answers:
    """The train pool less unusable images, what blind readers said of it, and what was read.

    With `before_round`, as it was when that round was opened.
    """
    log = ws.ledger.reading
    out = log.unusable(before_round)
    items = {item.id: item for item in ws.ledger.items("train") if item.id not in out}
    labels, reads = ws.ledger.labels(before_round, ["train"]), log.reads(before_round)
    labels = first_reads(labels, log.rereads())
    seen = {label.item_id for label in labels}
    seen |= {read.item_id for read in reads if read.outcome in ("read", "unusable")}
    return Answers(items, tuple(blind(labels, reads)), frozenset(seen))


@dataclass(frozen=True, slots=True)
class Judged:
    """How right the pseudo-labels of one finding and sign are; `n` counts the blind reads.

    `precision`: the share of the kept that is right. `recall`: of the items that truly have the
    sign, the share that was kept with it; dropped items are missed ones.
    """

    precision: Estimate
    recall: Estimate


def judge(ws: Workspace, number: int, stage: Keeping, answers: Answers) -> dict[Sign, list[Judged]]:
    """Precision and recall of what a round kept, by sign and finding, inclusion-weighted."""
    ledger, findings = ws.ledger, ws.ledger.task.findings
    early = {label.item_id for label in ledger.labels(number, ["train"])}
    early |= {s.item_id for _, s in ledger.selected(number)}
    pool = [item_id for item_id in answers.items if item_id not in early]
    draws = draws_of(ledger.selected(), since=number)
    signs = signs_of(ws, number, stage, pool)
    later = [label for label in answers.labels if label.round >= number]
    seen = answers.seen.intersection(pool)
    known = values_of(pool, later, findings, seen)
    elsewhere = misplaced(ws, pool, later, masks_of(ws, number, stage, seen))
    groups, found = answers.groups, dict[Sign, list[Judged]]()
    for sign in SIGNS:
        found[sign] = []
        for c, values in enumerate(known):
            wanted = float(sign == "present")
            right = {i: v if math.isnan(v) else float(v == wanted) for i, v in values.items()}
            kept = [i for i, s in zip(pool, signs[:, c], strict=True) if s == wanted]
            missed = set(itertools.compress(pool, elsewhere[:, c])) if wanted else set[str]()
            hit = set(kept) - missed
            told = {i: float(i in hit) if r == 1.0 else math.nan for i, r in right.items()}
            answered = [i for i, r in right.items() if not math.isnan(r)]
            precise = pool_share(
                {i: right[i] * (i not in missed) for i in kept if i in right}, kept, draws, groups
            ).estimate
            recall = weighted_share(told, weigh(draws, pool, answered, seen), groups)
            found[sign].append(Judged(precise, recall))
    return found


def slice_labels(
    ws: Workspace, number: int, answers: Answers
) -> tuple[list[str], Floats, npt.NDArray[np.str_]]:
    """The round's own slice: its usable ids, blind labels `(M, C)` and patients `(M,)`."""
    drawn = [s.item_id for s in ws.ledger.selections(number) if s.kind == "random"]
    ids = [item_id for item_id in drawn if item_id in answers.items]
    later = [label for label in answers.labels if label.round >= number]
    labels = label_matrix(ids, later, ws.ledger.task.findings)
    return ids, labels, np.array([answers.items[i].group for i in ids], dtype=np.str_)


def fair_sample(
    ws: Workspace, number: int, stage: Keeping, answers: Answers
) -> tuple[Floats, Floats, npt.NDArray[np.str_]]:
    """Signs, labels and patients of the round's own slice, `(M, C)`, `(M, C)`, `(M,)`.

    The label is 0, too, where what was kept as present is a mask in the wrong place.
    """
    ids, labels, groups = slice_labels(ws, number, answers)
    elsewhere = misplaced(ws, ids, answers.labels, masks_of(ws, number, stage, ids))
    labels = np.where(elsewhere & ~np.isnan(labels), 0.0, labels)
    return signs_of(ws, number, stage, ids), labels, groups


Drawn = Mapping[tuple[str, str], str]
"""The digests of masks, by item and finding."""


def masks_of(ws: Workspace, number: int, stage: Keeping, ids: Collection[str]) -> Drawn:
    """The masks that a stage kept of these items; none where labels are of whole images."""
    if isinstance(stage, PseudoLabelStage):
        return {}
    rows = ws.ledger.pseudo_labels(number, stage.name, ids)
    return {(row.item_id, row.finding): row.mask for row in rows if row.mask}


def misplaced(
    ws: Workspace, ids: Sequence[str], labels: Collection[Label], drawn: Drawn
) -> npt.NDArray[np.bool_]:
    """Which drawn masks have a Dice below `SAME` with the mask that `labels` say, `(N, C)`.

    False where nothing was drawn, or nobody knows the item's pixels.
    """
    findings = ws.ledger.task.findings
    found = np.zeros((len(ids), len(findings)), dtype=bool)
    touched = {item_id for item_id, _ in drawn} & {label.item_id for label in labels}
    places = [place for place, item_id in enumerate(ids) if item_id in touched]
    if not places:
        return found
    store, some = ws.masks, [ids[place] for place in places]
    truth = mask_truth(some, labels, findings, store)
    for at, (place, item_id) in enumerate(zip(places, some, strict=True)):
        inside, sure, known = as_truth(truth.at([at]), truth.present[[at]])
        masks = np.zeros(inside.shape, dtype=bool)
        for c, finding in enumerate(findings):
            if (item_id, finding) in drawn:
                masks[0, c] = store.at([drawn[item_id, finding]])[0]
        seen = known & masks.any(axis=(2, 3))
        found[place] = dice(masks & sure, inside, seen)[0] < SAME
    return found


def signs_of(ws: Workspace, number: int, stage: Keeping, ids: Sequence[str]) -> Floats:
    """How a stage kept these items, `(N, C)` of 1 / 0 / NaN."""
    findings = ws.ledger.task.findings
    soft = isinstance(stage, PseudoLabelStage) and stage.soft
    rows = ws.ledger.pseudo_labels(number, stage.name, None if soft else ids)
    if soft:
        rows = _hardened(rows, detail_of(ws, number, stage.name)["positives"], ws.ledger.task)
    place = {item_id: i for i, item_id in enumerate(ids)}
    column = {finding: c for c, finding in enumerate(findings)}
    signs = np.full((len(ids), len(findings)), np.nan)
    for row in rows:
        if row.item_id in place:
            signs[place[row.item_id], column[row.finding]] = row.value
    return signs


def kept_scores(ws: Workspace, number: int, stage: Keeping) -> list[tuple[Floats, Floats]]:
    """For each finding, signs (1 / 0) and scores of what a stage kept."""
    rows = ws.ledger.pseudo_labels(number, stage.name)
    if isinstance(stage, PseudoLabelStage) and stage.soft:
        rows = _hardened(rows, detail_of(ws, number, stage.name)["positives"], ws.ledger.task)
    by_finding: dict[str, list[PseudoLabel]] = {f: [] for f in ws.ledger.task.findings}
    for row in rows:
        by_finding[row.finding].append(row)
    return [
        (np.array([r.value for r in kept]), np.array([r.score for r in kept]))
        for kept in by_finding.values()
    ]


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


def stage_of(ws: Workspace, number: int, stage: str | None = None) -> Keeping:
    """A round's pseudo-labeling stage; None: the last one it has done.

    Raises:
        WorkspaceError: the round has no pseudo-labels.
    """
    recipe = plan(json.loads(find_round(ws, number).config)["recipe"])
    done = {s.name for s in ws.ledger.stages(number)}
    found = [
        s
        for s in recipe.stages
        if isinstance(s, Keeping) and s.name in done and stage in (None, s.name)
    ]
    if not found:
        raise WorkspaceError(f"Round {number} of {ws.root} made no pseudo-labels: choose another.")
    return found[-1]


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
