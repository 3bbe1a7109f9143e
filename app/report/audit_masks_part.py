"""The report's audit where masks are drawn: how good the pseudo-masks were, stage by stage."""

from __future__ import annotations

import math

from app.report.html import Part, Table
from app.report.scene import UNKNOWN, Scene
from ssl_core import tell
from ssl_core.auditing.pseudo_masks import Iteration, fall_sentence, falls, iterations
from ssl_core.masks.overlap import SAME

TITLE = "Pseudo-masks, audited"
NONE = "No round has drawn pseudo-masks, so there is nothing to audit."
WHAT = (
    "A pseudo-mask is what teachers drew on images that nobody has read, and training took for a "
    "reader's mask. What the same teachers draw on validation, held against what readers drew, "
    "says how good such masks are. Blind reads of the random slice say it of the pool: a mask is "
    f"right where theirs overlaps it with a Dice of {SAME} or more."
)


def masks(scene: Scene) -> list[Part]:
    """Every stage that drew pseudo-masks, and whether they got worse; nothing where none did."""
    found = iterations(scene.ws)
    if not found:
        return []
    worse = [fall_sentence(*pair) for pair in falls(found)]
    parts: list[Part] = [WHAT, *(worse or ["No iteration drew clearly worse masks than its last."])]
    head = ("round", "stage", "finding", "drawn", "said absent", "left out", "Dice [95 %]")
    more = ("rightly drawn", "rightly absent")
    caption = (
        "Drawn, absent and left out count items of the pool; Dice and what is right are of "
        "validation."
    )
    parts.append(Table((*head, *more), tuple(map(_row, found)), caption, 3))
    return parts


def _row(one: Iteration) -> tuple[str, ...]:
    left = one.pool - one.drawn - one.absent
    dice = UNKNOWN if math.isnan(one.dice.value) else tell.interval(one.dice)
    counts = (f"{one.drawn:,}", f"{one.absent:,}", f"{left:,}")
    right = (_of(one.right, one.of), _of(one.absent_right, one.absent_of))
    return (f"{one.round}", one.stage, one.finding, *counts, dice, *right)


def _of(right: int, of: int) -> str:
    return f"{right:,} of {of:,}" if of else "–"
