"""How good pseudo-masks were, iteration by iteration: from a real round, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ssl_core.auditing.pseudo_masks import Iteration, fall_sentence, falls, iterations
from ssl_core.evidence import Estimate
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


def step(round_, stage, finding, value, half):
    dice = Estimate(value, value - half, value + half, 20)
    return Iteration(round_, stage, ("t",), finding, 30, 20, 5, dice, 18, 20, 4, 5)


def test_masks_that_got_clearly_worse_are_named_by_hand():
    found = [
        step(1, "pseudo-masks 1", "Spot", 0.80, 0.02),
        step(1, "pseudo-masks 1", "Bar", 0.80, 0.02),
        step(1, "pseudo-masks 2", "Spot", 0.70, 0.02),
        step(1, "pseudo-masks 2", "Bar", 0.77, 0.02),  # the intervals meet
        step(2, "pseudo-masks 1", "Spot", 0.40, 0.02),  # another round's is not held against it
        step(2, "pseudo-masks 1", "Bar", 0.90, 0.02),
    ]
    (pair,) = falls(found)
    assert pair == (found[0], found[2])
    assert fall_sentence(*pair).startswith(
        "Spot: in round 1 the masks of 'pseudo-masks 2' (Dice .700 [.680, .720]) are worse than "
        "those of 'pseudo-masks 1' (.800 [.780, .820])"
    )
    assert falls([]) == []
    nan = float("nan")
    unknown = replace(found[2], dice=Estimate(nan, nan, nan, 0))
    assert falls([*found[:2], unknown, found[3]]) == []
