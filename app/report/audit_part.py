"""The pseudo-labels: how many were kept, how right they are, calibration, alarms and pauses."""

from __future__ import annotations

import json
import math

from app.report import audit_masks_part
from app.report.html import Part, Points, Section, Table
from app.report.scene import UNKNOWN, Scene, percent, plural
from ssl_core.auditing import audit, pauses
from ssl_core.auditing.alarm import Watch, sentence
from ssl_core.auditing.calibration import Reliability
from ssl_core.errors import ReadloopError
from ssl_core.evidence import Estimate

TITLE = "Pseudo-labels, audited"
WHAT = (
    "A pseudo-label is a model's opinion that training took for a label. Readers' blind reads of "
    "the random slice, which no model has seen, say how many of them are right."
)


def audited(scene: Scene) -> Section:
    """Precision and recall per finding, calibration, alarms and pauses."""
    drawn = scene.ws.ledger.task.kind == "segmentation"
    title = audit_masks_part.TITLE if drawn else TITLE
    numbers = _rounds(scene)
    if not numbers:
        text = "No round has made pseudo-labels yet, so there is nothing to audit."
        return Section("audit", title, (audit_masks_part.NONE if drawn else text,))
    newest = numbers[-1]
    watches = pauses.watches(scene.ws, scene.ws.config.alarm)
    parts: list[Part] = audit_masks_part.masks(scene) if drawn else [WHAT]
    parts.append(Points(tuple(_alarms(scene, watches, numbers))))
    rows = audit.kept(scene.ws, newest)
    if all(math.isnan(row.precision.value) for row in rows):
        parts.append(
            f"Precision of round {newest} is not known yet: no blind read judges what it kept."
        )
    parts.append(_kept(scene, newest, rows))
    if not drawn:
        parts += _calibration(scene, numbers)
    return Section("audit", title, tuple(parts))


def _rounds(scene: Scene) -> list[int]:
    """The rounds that made pseudo-labels of their own, not for their shadow control alone."""
    found = []
    for one in scene.ws.ledger.rounds():
        stages = scene.ws.ledger.stages(one.number)
        if any(s.kind == "pseudo-label" and not s.name.startswith("control ") for s in stages):
            found.append(one.number)
    return found


def _alarms(scene: Scene, watches: list[Watch], numbers: list[int]) -> list[str]:
    rules = scene.ws.config.alarm
    told = []
    for one in watches:
        if one.alarm is not None:
            paused = pauses.is_paused(one, rules)
            state = "paused" if paused else "in doubt, but not paused (the settings say so)"
            told.append(f"{one.finding}: {state}. {sentence(one.alarm)}")
    if not told:
        told.append(
            "No alarm stands. A finding whose claims hold raises one, in all its rounds together, "
            f"with a chance of {rules.false_alarm:.0%} at the most."
        )
    over = [(a, one) for one in watches for a in one.history if a is not one.alarm]
    if over:
        names = ", ".join(f"{a.finding} (round {a.round})" for a, _ in over)
        told.append(f"Alarms that are over: {names}.")
    return [*told, _paused(scene, numbers)]


def _paused(scene: Scene, numbers: list[int]) -> str:
    found = []
    for number in numbers:
        for stage in scene.ws.ledger.stages(number):
            if stage.kind == "pseudo-label" and not stage.name.startswith("control "):
                found += [
                    f"{f} (round {number})" for f in json.loads(stage.detail).get("paused", ())
                ]
    if not found:
        return "No round has had to do without pseudo-labels of a finding."
    return f"Rounds that kept none because of a pause: {', '.join(dict.fromkeys(found))}."


def _kept(scene: Scene, number: int, found: list[audit.Kept]) -> Table:
    so_far = audit.precision_so_far(scene.ws)
    rows = tuple(
        (
            row.finding,
            row.sign,
            f"{row.kept:,} of {row.pool:,}",
            _share(row.share),
            _share(row.prior),
            percent(row.precision),
            percent(row.recall),
            f"{row.precision.n:,}",
            _of(so_far[row.finding, row.sign]),
        )
        for row in found
    )
    head = (
        *("finding", "kept as", "kept", "share of the kept", "expected"),
        *("precision [95 %]", "recall [95 %]", "reads", "precision, all rounds [95 %]"),
    )
    caption = (
        f"Round {number}, the newest with pseudo-labels. Precision: of what was kept so, how much "
        "is right. Recall: of what truly is so, how much was kept so. Both are inclusion-weighted "
        "and speak of the pool that the round scored; the last column adds up each round's own "
        "slice, unweighted. Not known where no blind read judges."
    )
    return Table(head, rows, caption, 2)


def _share(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.0%}"


def _of(found: Estimate) -> str:
    return f"{percent(found)} of {found.n:,}" if found.n else UNKNOWN


def _calibration(scene: Scene, numbers: list[int]) -> list[Part]:
    try:
        found = audit.calibration(scene.ws, numbers)
    except ReadloopError as error:
        return [f"Calibration is not known: {_plain(error)}."]
    if not any(one.n for one in found):
        return ["Calibration is not known: no random slice has been read blind yet."]
    rows = tuple(_fit(one) for one in found if one.n)
    caption = (
        f"Do the teachers' scores mean what they say, on the slices of "
        f"{plural(len(numbers), 'round')}. p: how often true probabilities would fit as badly "
        "(Spiegelhalter's test); one finding in twenty falls below .05 by chance."
    )
    head = ("finding", "reads", "mean score", "present", "calibration error [95 %]", "p", "says")
    return [Table(head, rows, caption, 1, 1)]


def _plain(error: ReadloopError) -> str:
    return str(error).rstrip(".")


def _fit(one: Reliability) -> tuple[str, ...]:
    says = "scores do not fit the reads" if one.p < 0.05 else "no misfit seen"
    numbers = (f"{one.n:,}", _share(one.score), _share(one.present), percent(one.error))
    return (one.finding, *numbers, f"{one.p:.3f}", says)
