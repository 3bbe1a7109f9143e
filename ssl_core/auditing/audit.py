"""Are the pseudo-labels right: how many were kept, of what, and how the border looks.

Precision and recall are those of blind reads, each with its inclusion weight: see `fair_reads`. The
vault has no pseudo-labels and is in nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core import pseudo_labels
from ssl_core.auditing.calibration import Reliability, reliability
from ssl_core.auditing.fair_reads import (
    SIGNS,
    Sign,
    blind_answers,
    detail_of,
    fair_sample,
    judge,
    precision,
    signs_of,
    slice_labels,
    stage_of,
)
from ssl_core.errors import WorkspaceError
from ssl_core.evidence import Estimate
from ssl_core.probabilities import Floats, find_round, labeled, probabilities, stage_model
from ssl_core.progress import Report, silent
from ssl_core.recipes import PseudoLabel as PseudoLabelStage
from ssl_core.turn import replay
from ssl_core.workspace import Workspace

KAPPAS = tuple(k / 10 for k in range(1, 11))


@dataclass(frozen=True, slots=True)
class Kept:
    """The pseudo-labels, or pseudo-masks, of one finding and sign in one round.

    `pool` counts the items scored, `kept` those kept with this sign. `share` is the share of this
    sign among the kept, and `prior` the share that the round expected; NaN where nothing was kept
    or no prior was known. `precision` and `recall` are of the pool that the round scored, `n` the
    blind reads that judge.
    """

    finding: str
    sign: Sign
    pool: int
    kept: int
    share: float
    prior: float
    precision: Estimate
    recall: Estimate


@dataclass(frozen=True, slots=True)
class Border:
    """Items at the edge of one finding and sign, as ids with the teacher's probability.

    `kept` begins with the least confident that was kept, `dropped` with the most confident that
    was not.
    """

    finding: str
    sign: Sign
    kept: tuple[tuple[str, float], ...]
    dropped: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a keep fraction would have kept on validation, and how much of it was right.

    `kept` counts validation items with this sign, labeled for this finding or not; `precision`
    rests on those that are (`n`).
    """

    keep_fraction: float
    finding: str
    sign: Sign
    kept: int
    precision: Estimate


def kept(ws: Workspace, number: int, stage: str | None = None) -> list[Kept]:
    """What a round kept, and how right it was, by finding and sign.

    Exclusive classes have the sign "present" alone: an item kept for one is absent of the others.

    Args:
        ws: the workspace.
        number: the round.
        stage: its pseudo-labeling stage; None: the last one.

    Raises:
        WorkspaceError: the round has no pseudo-labels.
    """
    made = stage_of(ws, number, stage)
    detail, findings = detail_of(ws, number, made.name), ws.ledger.task.findings
    judged = judge(ws, number, made, blind_answers(ws))
    rows = []
    for c, finding in enumerate(findings):
        total, positives = int(detail["kept"][c]), int(detail["positives"][c])
        prior = detail["prior"][c] if "prior" in detail else None
        for sign in _signs(ws):
            present = sign == "present"
            count = positives if present else total - positives
            expected = np.nan if prior is None else (prior if present else 1 - prior)
            rows.append(
                Kept(
                    finding=finding,
                    sign=sign,
                    pool=int(detail["pool"]),
                    kept=count,
                    share=count / total if total else np.nan,
                    prior=expected,
                    precision=judged[sign][c].precision,
                    recall=judged[sign][c].recall,
                )
            )
    return rows


def precision_so_far(ws: Workspace) -> dict[tuple[str, Sign], Estimate]:
    """The precision of every round's last pseudo-labels against its own slice, all together.

    The reads of one model are added to those of another, so each counts alike: unweighted.
    """
    answers, parts = blind_answers(ws), []
    for round_ in ws.ledger.rounds():
        try:
            made = stage_of(ws, round_.number, None)
        except WorkspaceError:
            continue
        parts.append(fair_sample(ws, round_.number, made, answers))
    findings = ws.ledger.task.findings
    if not parts:
        nothing = Estimate(np.nan, np.nan, np.nan, 0)
        return {(f, sign): nothing for f in findings for sign in _signs(ws)}
    signs = np.concatenate([p[0] for p in parts])
    labels = np.concatenate([p[1] for p in parts])
    found = precision(signs, labels, np.concatenate([p[2] for p in parts]))
    return {
        (f, sign): found[sign].findings[c].estimate
        for c, f in enumerate(findings)
        for sign in _signs(ws)
    }


def borders(
    ws: Workspace,
    number: int,
    stage: str | None = None,
    *,
    most: int = 8,
    report: Report = silent,
) -> list[Border]:
    """The kept items with the least confidence and the dropped ones with the most.

    The ledger holds the teacher's score of what was kept alone, so the pool is scored once more at
    the first call; that takes as long as the round's pseudo-labeling did.

    Raises:
        WorkspaceError: the round has no pseudo-labels, or its teacher cannot be read.
    """
    made = _of_images(ws, number, stage)
    pool = replay(ws, find_round(ws, number), report).pool
    teacher = stage_model(ws, number, made.teacher)
    scores = probabilities(ws, number, teacher, pool.ids, report)
    signs = signs_of(ws, number, made, pool.ids)
    return [
        _border(ws.ledger.task.findings[c], sign, pool.ids, signs[:, c], scores[:, c], most)
        for c in range(signs.shape[1])
        for sign in _signs(ws)
    ]


def sweep(
    ws: Workspace,
    number: int,
    stage: str | None = None,
    *,
    kappas: Sequence[float] = KAPPAS,
    report: Report = silent,
) -> list[Sweep]:
    """What the round's teacher would keep of the validation items, for each keep fraction.

    With the round's own prior, and the rule it keeps by. The teacher's epoch was chosen on these
    items and the prior is partly theirs, so the precision is a little kind.

    Raises:
        WorkspaceError: the round has no pseudo-labels, or its teacher cannot be read.
    """
    made, task = _of_images(ws, number, stage), ws.ledger.task
    items = labeled(ws, "validation")
    teacher = stage_model(ws, number, made.teacher)
    scores = probabilities(ws, number, teacher, items.ids, report)
    prior = np.array(detail_of(ws, number, made.name)["prior"], dtype=np.float64)
    keep = pseudo_labels.keep_most_confident
    if task.exclusive:
        keep = pseudo_labels.keep_most_confident_class
    rows = []
    for kappa in kappas:
        signs = keep(scores, prior, kappa)
        found = precision(signs, items.labels, np.array(items.groups, dtype=np.str_))
        rows += [
            Sweep(
                keep_fraction=kappa,
                finding=finding,
                sign=sign,
                kept=int((signs[:, c] == (sign == "present")).sum()),
                precision=found[sign].findings[c].estimate,
            )
            for c, finding in enumerate(task.findings)
            for sign in _signs(ws)
        ]
    return rows


def calibration(
    ws: Workspace, numbers: Sequence[int], *, report: Report = silent
) -> list[Reliability]:
    """How well the scores of the rounds' teachers fit their own slices' blind reads, by finding.

    Dropped items too. Scores that a round did not put by are computed again.

    Raises:
        WorkspaceError: a round has no pseudo-labels, or its teacher cannot be read.
    """
    answers, parts = blind_answers(ws), []
    for number in numbers:
        made = _of_images(ws, number, None)
        ids, labels, groups = slice_labels(ws, number, answers)
        told = [i for i, row in enumerate(labels) if not np.isnan(row).all()]
        if told:
            teacher = stage_model(ws, number, made.teacher)
            scores = probabilities(ws, number, teacher, [ids[i] for i in told], report)
            parts.append((scores, labels[told], groups[told]))
    width = len(ws.ledger.task.findings)
    parts.append((np.empty((0, width)), np.empty((0, width)), np.empty(0, np.str_)))
    scores, labels, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
    return [
        reliability(finding, scores[:, c], labels[:, c], groups)
        for c, finding in enumerate(ws.ledger.task.findings)
    ]


def _of_images(ws: Workspace, number: int, stage: str | None) -> PseudoLabelStage:
    made = stage_of(ws, number, stage)
    if not isinstance(made, PseudoLabelStage):
        raise WorkspaceError(
            f"Round {number} of {ws.root} drew masks, and kept no scores of whole images: choose "
            "a round that did."
        )
    return made


def _signs(ws: Workspace) -> tuple[Sign, ...]:
    return SIGNS[:1] if ws.ledger.task.exclusive else SIGNS


def _border(
    finding: str, sign: Sign, ids: Sequence[str], signs: Floats, scores: Floats, most: int
) -> Border:
    """One finding and sign: `signs` and `scores` are `(N,)`."""
    present = sign == "present"
    confidence = scores if present else 1 - scores
    inside = np.flatnonzero(signs == present)
    outside = np.flatnonzero(np.isnan(signs))
    least = inside[np.argsort(confidence[inside], kind="stable")][:most]
    best = outside[np.argsort(-confidence[outside], kind="stable")][:most]
    told = (tuple((ids[i], float(scores[i])) for i in rows.tolist()) for rows in (least, best))
    return Border(finding, sign, *told)
