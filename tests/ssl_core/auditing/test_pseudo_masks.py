"""How good pseudo-masks were, iteration by iteration: from a real round, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ssl_core.auditing.pseudo_masks import Iteration, fall_sentence, falls, iterations
from ssl_core.evidence import Difference, Estimate
from ssl_core.workspace import open_workspace


def test_every_stage_of_every_round_is_told_as_it_said(drawn):
    ws = open_workspace(drawn)
    found = iterations(ws)
    told = {
        round_.number: json.loads(stage.detail)
        for round_ in ws.ledger.rounds()
        for stage in ws.ledger.stages(round_.number)
        if stage.name == "pseudo-masks 1"
    }
    assert [(one.round, one.finding) for one in found] == [
        (number, finding) for number in told for finding in ("Spot", "Bar")
    ]
    for one in found:
        c, detail = ("Spot", "Bar").index(one.finding), told[one.round]
        assert (one.pool, one.drawn, one.absent) == (
            detail["pool"],
            detail["positives"][c],
            detail["kept"][c] - detail["positives"][c],
        )
        quality = detail["validation"]
        assert (one.right, one.of) == (quality["drawn_rightly"][c], quality["drawn"][c])
        assert (one.absent_right, one.absent_of) == (
            quality["absent_rightly"][c],
            quality["absent"][c],
        )
        assert 0 <= one.right <= one.of <= 12
        assert one.teachers == ("teacher 0a", "teacher 0b")
        if one.of:
            assert one.dice.value == pytest.approx(quality["dice"][c][0])


NAN = float("nan")
FIRST = Difference(NAN, NAN, NAN, NAN, 0)


def step(round_, stage, finding, value, change=FIRST):
    dice = Estimate(value, value - 0.02, value + 0.02, 20)
    return Iteration(round_, stage, ("t",), finding, 30, 20, 5, dice, 18, 20, 4, 5, change)


def test_masks_that_got_clearly_worse_are_named_by_hand():
    found = [
        step(1, "pseudo-masks 1", "Spot", 0.80),
        step(1, "pseudo-masks 1", "Bar", 0.80),
        step(1, "pseudo-masks 2", "Spot", 0.79, Difference(-0.02, -0.03, -0.01, 0.001, 18)),
        # Harder cases are drawn, too, and those that were drawn before no worse.
        step(1, "pseudo-masks 2", "Bar", 0.50, Difference(-0.01, -0.02, 0.001, 0.06, 18)),
        step(2, "pseudo-masks 1", "Spot", 0.40),  # another round's is not held against it
        step(2, "pseudo-masks 1", "Bar", 0.90),
    ]
    (pair,) = falls(found)
    assert pair == (found[0], found[2])
    assert fall_sentence(*pair).startswith(
        "Spot: in round 1 the masks of 'pseudo-masks 2' are worse than those of 'pseudo-masks 1' "
        "(Dice −.020 [−.030, −.010] on the 18 validation items that both drew): "
    )
    assert falls([]) == []
    unknown = replace(found[2], change=FIRST)
    assert falls([*found[:2], unknown, found[3]]) == []
