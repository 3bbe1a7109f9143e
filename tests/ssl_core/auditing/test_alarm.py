"""Alarms on pseudo-labels: the false-alarm rate, the delay, the words, and how a pause ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssl_core.auditing.alarm import RoundAudit, capital, limits, odds_times, sentence, watch
from ssl_core.config import Alarm as Rules

RULES = Rules()
GOOD = RoundAudit(1, (0.9, 0.98), (10, 15), (1, 0), 0.4, 12, 30, 1000)


def rounds(*audits: RoundAudit) -> list[RoundAudit]:
    return [replace(one, round=number) for number, one in enumerate(audits, 1)]


def test_the_capital_by_hand():
    """One read of a null of 1/2: half the capital is on round 1; a bet b gains or loses b."""
    bets = np.array([0.05, 0.1, 0.2, 0.4, 0.7])
    assert capital([1], [1], [0.5])[0] == pytest.approx(0.5 * (1 + bets).mean() + 0.5)
    assert capital([0], [1], [0.5])[0] == pytest.approx(0.5 * (1 - bets).mean() + 0.5)
    second = 0.5 * (1 + bets) * (1 - bets) + (1 / 6) * (1 - bets)
    assert capital([1, 0], [1, 1], [0.5, 0.5])[1] == pytest.approx(second.mean() + 1 / 3)


def test_no_read_and_no_claim_change_nothing():
    np.testing.assert_allclose(capital([0, 3, 3], [0, 3, 3], [0.1, np.nan, 1.0]), 1.0)
    assert watch("f", [], RULES).alarm is None
    unread = replace(GOOD, judged=(0, 0), wrong=(0, 0), positives=0, reads=0)
    assert watch("f", rounds(*[unread] * 4), RULES).evidence == 0


def test_under_the_null_a_bet_gains_nothing():
    """A martingale: the mean capital stays 1 at the edge of the null."""
    k = np.random.default_rng(0).binomial(2, 0.5, (40_000, 4))
    held = capital(k, np.full(4, 2), np.full(4, 0.5))
    np.testing.assert_allclose(held.mean(axis=0), 1.0, atol=0.03)


@pytest.mark.parametrize("reads", [1, 4, 20])
def test_the_chance_of_a_false_alarm_holds_over_all_rounds(reads):
    """At the edge of the null, over twelve rounds together, by other histories than the limits'."""
    counts, allowed, alpha = np.full(12, float(reads)), np.linspace(0.35, 0.15, 12), 0.04
    limit = limits(tuple(counts), tuple(allowed), alpha)
    k = np.random.default_rng(9).binomial(reads, allowed, (20_000, 12))
    ever = (capital(k, counts, allowed) > limit).any(axis=1).mean()
    assert ever <= 1.25 * alpha
    assert ever > 0.3 * alpha or reads == 1
    fewer = np.random.default_rng(9).binomial(reads, allowed / 2, (20_000, 12))
    assert (capital(fewer, counts, allowed) > limit).any(axis=1).mean() < 0.1 * alpha


def test_later_rounds_do_not_move_the_limits_of_earlier_ones():
    short = limits((5.0, 7.0), (0.2, 0.3), 0.04)
    np.testing.assert_array_equal(limits((5.0, 7.0, 9.0), (0.2, 0.3, 0.1), 0.04)[:2], short)


def test_the_larger_the_planted_error_the_sooner_it_is_seen():
    """Eight judged a round; confidence rises from .80 to .95 while a growing share is wrong."""
    rng, counts = np.random.default_rng(3), np.full(12, 8.0)
    sure, ramp = np.linspace(0.8, 0.95, 12), np.minimum(1.0, np.arange(12) / 3)
    allowed = 1 - sure + RULES.tolerance
    limit = limits(tuple(counts), tuple(allowed), 0.04)
    raised, delay = [], []
    for planted in (0.0, 0.2, 0.4, 0.6):
        k = rng.binomial(8, np.minimum(1 - sure + planted * ramp, 1.0), (2000, 12))
        over = capital(k, counts, allowed) > limit
        raised.append(over.any(axis=1).mean())
        delay.append(np.median(np.where(over.any(axis=1), over.argmax(axis=1) + 1, 99)))
    assert raised[0] < 0.005
    assert raised[0] < raised[1] < raised[2] <= raised[3]
    assert raised[2] > 0.95
    assert delay[3] <= 4
    assert delay[3] < delay[2] < 9


def test_a_collapse_is_told_with_its_numbers():
    bad = replace(GOOD, confidence=(0.95, 0.98), wrong=(7, 0))
    found = watch("mass", rounds(GOOD, GOOD, bad, bad), RULES)
    assert found.alarm is not None
    assert (found.alarm.kind, found.alarm.round) == ("present", 3)
    assert (found.alarm.against, found.alarm.reads) == (9, 30)
    told = sentence(found.alarm)
    assert "9 of 30 blind reads of what was kept as present were wrong (rounds 1 to 3)" in told
    assert "confidence went from 90% to 95%" in told
    assert "15% wrong" in told


def test_a_teacher_that_is_unsure_and_says_so_raises_none():
    unsure = replace(GOOD, confidence=(0.45, 0.98), wrong=(5, 0))
    assert watch("f", rounds(*[unsure] * 10), RULES).history == ()


def test_missed_ones_are_an_alarm_of_the_absent():
    missing = replace(GOOD, wrong=(0, 9))
    found = watch("f", rounds(missing, missing), RULES).alarm
    assert found is not None
    assert found.kind == "absent"


@pytest.mark.parametrize(("share", "kind"), [(0.05, "more common"), (0.9, "rarer")])
def test_a_class_ratio_that_drifts(share, kind):
    drifted = replace(GOOD, confidence=(0.5, 0.5), share=share)
    found = watch("f", rounds(*[drifted] * 3), RULES).alarm
    assert found is not None
    assert found.kind == kind
    assert f"the finding is {kind} than the pseudo-labels say" in sentence(found)


def test_a_rare_finding_of_which_nothing_was_kept_is_no_alarm_at_its_first_read():
    none = replace(GOOD, confidence=(np.nan, 0.98), judged=(0, 8), wrong=(0, 0), share=0.0)
    one = replace(none, positives=1, reads=10, kept=10)
    assert watch("f", rounds(one, one), RULES).alarm is None
    assert watch("f", rounds(*[replace(one, positives=6)] * 3), RULES).alarm is not None


def test_odds_by_hand():
    assert odds_times(0.5, 2.0) == pytest.approx(2 / 3)
    assert odds_times(0.02, 2.0) == pytest.approx(0.04 / 1.02)
    assert odds_times(0.0, 2.0) == 0


def test_a_pause_ends_with_enough_good_reads_and_a_new_watch_begins():
    bad = replace(GOOD, wrong=(9, 0))
    few = replace(GOOD, judged=(4, 15), wrong=(0, 0))
    found = watch("f", rounds(bad, bad, few, few), RULES)
    assert found.alarm is not None  # 8 reads since then: too few
    found = watch("f", rounds(bad, few, few, few), RULES)
    assert (found.alarm, found.recovered, len(found.history)) == (None, (4,), 1)
    still = replace(GOOD, judged=(10, 15), wrong=(4, 0))
    assert watch("f", rounds(bad, still, still), RULES).alarm is not None
    again = watch("f", rounds(bad, few, few, few, bad), RULES)
    assert again.alarm is not None
    assert again.alarm.since == 5
    assert len(again.history) == 2
