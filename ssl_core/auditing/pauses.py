"""Alarms of a workspace, replayed from its ledger, and the pause of a finding's pseudo-labels.

The state before round r is a function of what the ledger held when r was opened: blind labels
and reads before r, the rounds' slices, and what they kept. A paused round does not keep, but says
in its stage's detail what it would have kept of the paused finding (packed, about a quarter of a
byte an item), so that reads can speak for it again; no training sees that.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.auditing.alarm import RoundAudit, Watch, sentence, watch
from ssl_core.auditing.fair_reads import (
    Answers,
    Keeping,
    blind_answers,
    detail_of,
    kept_scores,
    masks_of,
    misplaced,
    signs_of,
    slice_labels,
    stage_of,
)
from ssl_core.config import Alarm as Rules
from ssl_core.errors import WorkspaceError
from ssl_core.probabilities import Floats
from ssl_core.turn import Turn
from ssl_core.workspace import Workspace


def watches(ws: Workspace, rules: Rules, before_round: int | None = None) -> list[Watch]:
    """How each finding stands, from what was known before a round was opened (None: now)."""
    told = audits(ws, before_round)
    return [watch(finding, told[finding], rules) for finding in ws.ledger.task.findings]


def audits(ws: Workspace, before_round: int | None = None) -> dict[str, list[RoundAudit]]:
    """What each round's own slice says of each finding, rounds that pseudo-labeled alone."""
    answers = blind_answers(ws, before_round)
    found: dict[str, list[RoundAudit]] = {f: [] for f in ws.ledger.task.findings}
    for round_ in ws.ledger.rounds():
        if before_round is None or round_.number < before_round:
            try:
                made = stage_of(ws, round_.number)
            except WorkspaceError:
                continue
            for finding, one in zip(found, _audit(ws, round_.number, made, answers), strict=True):
                found[finding].append(one)
    return found


def is_paused(one: Watch, rules: Rules) -> bool:
    """Whether the next round keeps no pseudo-labels of the finding."""
    return rules.pause and one.alarm is not None and one.finding not in rules.ignore


def withhold(
    turn: Turn, kept: Floats, scores: Floats, masks: npt.NDArray[np.str_] | None = None
) -> tuple[Floats, dict[str, Any]]:
    """Drop what was kept of paused findings.

    Args:
        turn: the round; its own configuration's `[alarm]` rules.
        kept: `(N, C)` of 1 / 0 / NaN, of the turn's pool.
        scores: `(N, C)`, the teacher's.
        masks: `(N, C)`, digests of what was drawn; None where labels are of whole images.

    Returns:
        `kept` with NaN for paused findings (of exclusive classes: for the items that were kept
        as one of them, since an item needs its class), and what the stage's detail tells:
        `confidence` by finding and sign before anything was dropped, `paused` (why, by finding)
        and `withheld` (what would have been kept).
    """
    rules, findings = turn.config.alarm, turn.findings
    confidence = [mean_confidence(kept[:, c], scores[:, c]) for c in range(len(findings))]
    told: dict[str, Any] = {"confidence": confidence, "paused": {}, "withheld": {}}
    left = kept.copy()
    standing = watches(turn.workspace, rules, turn.round.number) if rules.pause else []
    order = [item.id for item in turn.workspace.ledger.items("train")] if standing else []
    for c, one in enumerate(standing):
        if one.alarm is not None and is_paused(one, rules):
            told["paused"][one.finding] = sentence(one.alarm)
            held = pack(turn.pool.ids, kept[:, c], order)
            if masks is not None:
                held["masks"] = dict(_drawn(turn.pool.ids, kept[:, c], masks[:, c]))
            told["withheld"][one.finding] = held
            if turn.exclusive:
                left[kept[:, c] == 1] = np.nan
            else:
                left[:, c] = np.nan
    return left, told


def mean_confidence(signs: Floats, scores: Floats) -> tuple[float, float]:
    """The mean score for their sign of what was kept as present and as absent; NaN for none."""
    present, absent = scores[signs == 1], 1 - scores[signs == 0]
    return _mean(present), _mean(absent)


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan


def pack(ids: Sequence[str], signs: Floats, order: Sequence[str]) -> dict[str, Any]:
    """Signs `(N,)` of items as JSON can hold them: counts, and a packed byte an item of `order`."""
    said = dict(zip(ids, np.where(np.isnan(signs), 0, np.where(signs == 1, 1, 2)), strict=True))
    row = np.array([said.get(item_id, 0) for item_id in order], dtype=np.uint8)
    packed = base64.b64encode(zlib.compress(row.tobytes(), 9)).decode("ascii")
    return {
        "kept": int((row > 0).sum()),
        "positives": int((row == 1).sum()),
        "signs": packed,
    }


def unpack(packed: dict[str, Any], ids: Sequence[str], order: Sequence[str]) -> Floats:
    """The signs of some items, `(N,)` of 1 / 0 / NaN, from what `pack` made."""
    row = np.frombuffer(zlib.decompress(base64.b64decode(packed["signs"])), dtype=np.uint8)
    place = {item_id: i for i, item_id in enumerate(order)}
    value: npt.NDArray[np.float64] = np.array([np.nan, 1.0, 0.0])
    return value[row[[place[item_id] for item_id in ids]]]


def _drawn(
    ids: Sequence[str], signs: Floats, masks: npt.NDArray[np.str_]
) -> Iterator[tuple[str, str]]:
    return ((ids[i], str(masks[i])) for i in np.flatnonzero(signs == 1).tolist())


def _audit(ws: Workspace, number: int, made: Keeping, answers: Answers) -> list[RoundAudit]:
    """One round's audit of each finding."""
    detail = detail_of(ws, number, made.name)
    ids, labels, _ = slice_labels(ws, number, answers)
    signs = signs_of(ws, number, made, ids)
    withheld = detail.get("withheld", {})
    drawn = dict(masks_of(ws, number, made, ids))
    for finding, held in withheld.items():
        drawn |= {(i, finding): mask for i, mask in held.get("masks", {}).items()}
    elsewhere = misplaced(ws, ids, answers.labels, drawn)
    order = [item.id for item in ws.ledger.items("train")] if withheld else []
    confidence = detail.get("confidence")
    if confidence is None:  # a round from before it was told
        confidence = [mean_confidence(*one) for one in kept_scores(ws, number, made)]
    found = []
    for c, finding in enumerate(ws.ledger.task.findings):
        kept = {"kept": detail["kept"][c], "positives": detail["positives"][c]}
        if finding in withheld:
            kept = withheld[finding]
            signs[:, c] = unpack(kept, ids, order)
        sure = tuple(math.nan if value is None else float(value) for value in confidence[c])
        found.append(
            _counted(
                number,
                signs[:, c],
                labels[:, c],
                elsewhere[:, c],
                sure,
                kept,
                ws.ledger.task.exclusive,
            )
        )
    return found


def _counted(
    number: int,
    signs: Floats,
    labels: Floats,
    elsewhere: npt.NDArray[np.bool_],
    confidence: tuple[float, ...],
    kept: dict[str, Any],
    exclusive: bool,
) -> RoundAudit:
    """The slice's signs and labels `(M,)` as counts; exclusive classes have no absent.

    `elsewhere` `(M,)`: what was kept as present is a mask in the wrong place.
    """
    known = ~np.isnan(labels)
    present, absent = known & (signs == 1), known & (signs == 0) & (not exclusive)
    return RoundAudit(
        round=number,
        confidence=(confidence[0], math.nan if exclusive else confidence[1]),
        judged=(int(present.sum()), int(absent.sum())),
        wrong=(
            int(((labels == 0) | elsewhere)[present].sum()),
            int((labels[absent] == 1).sum()),
        ),
        share=float(kept["positives"]) / kept["kept"] if kept["kept"] else math.nan,
        positives=int((labels == 1).sum()),
        reads=int(known.sum()),
        kept=int(kept["kept"]),
    )
