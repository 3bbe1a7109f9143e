"""Of the masks that teachers drew for students: how good they were, iteration by iteration.

Each stage that draws pseudo-masks decides the same on validation, and is held there against what
readers drew (see `mask_work.pseudo_masks_stage`). A student that learns its teachers' errors draws
worse masks for the next one: S3's authors saw five findings get worse so (confirmation bias).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_core import tell
from ssl_core.evidence import Difference, Estimate
from ssl_core.records import CONTROL
from ssl_core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Iteration:
    """What one stage drew of one finding.

    Of the `pool` items `drawn` were given a mask, `absent` an empty one, and the others none.
    `dice` is that of the masks which the same teachers drew on validation, by patient; `right` and
    `of` count the validation items whose finding was said to be there and truly is, of those with
    a known label; `absent_right` and `absent_of` likewise. A stage without validation has 0 of 0.
    `change` is the difference in Dice to the iteration before on the items that both drew, paired
    by patient; NaN for the first.
    """

    round: int
    stage: str
    teachers: tuple[str, ...]
    finding: str
    pool: int
    drawn: int
    absent: int
    dice: Estimate
    right: int
    of: int
    absent_right: int
    absent_of: int
    change: Difference


def iterations(ws: Workspace) -> list[Iteration]:
    """Every stage of every round that drew pseudo-masks, in order, finding by finding.

    The shadow control's own are left out.
    """
    found: list[Iteration] = []
    for round_ in ws.ledger.rounds():
        for stage in ws.ledger.stages(round_.number):
            if stage.kind != "pseudo-label" or stage.name.startswith(f"{CONTROL} "):
                continue
            detail: dict[str, Any] = json.loads(stage.detail)
            if "teachers" in detail:  # else labels of whole images
                findings = enumerate(ws.ledger.task.findings)
                found += [_one(round_.number, stage.name, detail, c, f) for c, f in findings]
    return found


def falls(found: Sequence[Iteration]) -> list[tuple[Iteration, Iteration]]:
    """Pairs of stages of one round and finding, of which the later drew worse masks.

    On the items that both drew; the interval of the difference lies below 0.
    """
    worse = []
    for before, after in zip(found, found[_findings(found) :], strict=False):
        same = (before.round, before.finding) == (after.round, after.finding)
        if same and after.change.high < 0:
            worse.append((before, after))
    return worse


def fall_sentence(before: Iteration, after: Iteration) -> str:
    """What such a pair means, in words."""
    return (
        f"{after.finding}: in round {after.round} the masks of {after.stage!r} are worse than "
        f"those of {before.stage!r} (Dice {tell.difference(after.change)} on the {after.change.n} "
        "validation items that both drew): students learn their teachers' errors, so raise "
        "`positive` in the recipe, or have more masks drawn."
    )


def _findings(found: Sequence[Iteration]) -> int:
    return max(1, len({one.finding for one in found}))


def _one(number: int, stage: str, detail: dict[str, Any], c: int, finding: str) -> Iteration:
    told = detail["validation"] or {}
    value, low, high = (
        math.nan if x is None else float(x) for x in told.get("dice", {c: (None,) * 3})[c]
    )

    def count(name: str) -> int:
        return int(told[name][c]) if told else 0

    return Iteration(
        round=number,
        stage=stage,
        teachers=tuple(detail["teachers"]),
        finding=finding,
        pool=int(detail["pool"]),
        drawn=int(detail["positives"][c]),
        absent=int(detail["kept"][c] - detail["positives"][c]),
        dice=Estimate(value, low, high, count("drawn")),
        right=count("drawn_rightly"),
        of=count("drawn"),
        absent_right=count("absent_rightly"),
        absent_of=count("absent"),
        change=_change(told, c),
    )


def _change(told: dict[str, Any], c: int) -> Difference:
    *numbers, n = (told.get("change") or {c: (None, None, None, None, 0)})[c]
    value, low, high, p = (math.nan if x is None else float(x) for x in numbers)
    return Difference(value, low, high, p, int(n))
