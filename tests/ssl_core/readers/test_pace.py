"""The pace model: what it says of planted effects, and whether its intervals hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.readers.pace import (
    LEAST,
    Case,
    TimedRead,
    fit_pace,
    minutes_of,
    seconds_of,
    times_as_long,
)
from ssl_core.readers.pace_reads import timed
from ssl_core.records import HeldRead

CUT = 300.0


def simulated(rng, readers: int, n: int, start: dict[str, int] | None = None, levels=None):
    """Reads by planted effects: chosen 1.28 times as long, hinted .82 times."""
    levels = 3.3 + 0.35 * rng.standard_normal(readers) if levels is None else levels
    counts, found = dict(start or {}), []
    for _ in range(n):
        r = int(rng.integers(readers))
        before = counts.get(f"r{r}", 0)
        counts[f"r{r}"] = before + 1
        chosen, hinted = bool(rng.random() < 0.7), bool(rng.random() < 0.3)
        logs = levels[r] - 0.06 * math.log2(1 + before) + 0.25 * chosen - 0.2 * hinted
        seconds = math.exp(logs + 0.6 * rng.standard_normal())
        case = Case(f"r{r}", before, None, hinted, "margin" if chosen else "")
        found.append(TimedRead(case, seconds))
    return found, counts, levels


def test_with_few_reads_nothing_is_said():
    reads = [TimedRead(Case("ann"), 10.0 + i) for i in range(LEAST)]
    assert fit_pace(reads[:-1], CUT) is None
    assert fit_pace(reads, CUT) is not None


def test_reads_that_are_all_alike_take_as_long():
    reads = [TimedRead(Case("ann"), 30.0)] * 200
    found = seconds_of(fit_pace(reads, CUT), Case("ann"))
    assert found.value == pytest.approx(30.0, rel=0.02)
    assert minutes_of(fit_pace(reads, CUT), [Case("ann")] * 10).value == pytest.approx(5, rel=0.02)


def test_an_idle_read_counts_as_the_cut():
    reads = [TimedRead(Case("ann"), 30_000.0)] * 50
    assert seconds_of(fit_pace(reads, CUT), Case("ann")).value == pytest.approx(CUT, rel=0.02)


def test_a_reader_with_few_reads_is_drawn_to_the_others():
    rng = np.random.default_rng(1)
    others = [
        TimedRead(Case(f"r{k % 5}"), float(20 * np.exp(0.3 * rng.standard_normal())))
        for k in range(200)
    ]
    own = [TimedRead(Case("new"), 80.0)] * 2
    found = seconds_of(fit_pace([*others, *own], CUT), Case("new"))
    assert 22 < found.value < 75  # their mean is 80, the others' 21
    many = [TimedRead(Case("new"), 80.0)] * 60
    assert seconds_of(fit_pace([*others, *many], CUT), Case("new")).value > 70
    stranger = seconds_of(fit_pace(others, CUT), Case("nobody"))
    known = seconds_of(fit_pace(others, CUT), Case("r0"))
    assert stranger.high - stranger.low > known.high - known.low


def test_planted_effects_are_found_and_the_same_reads_say_the_same():
    reads, _, _ = simulated(np.random.default_rng(3), 4, 1500)
    model = fit_pace(reads, CUT)
    effects = {effect.name: effect.times for effect in model.effects}
    assert effects["chosen by margin"].low > 1
    assert effects["hint"].high < 1
    assert effects["practice"].high < 1
    assert "sitting" not in effects  # no read told its time of day
    longer = times_as_long(model, "margin")
    assert longer.mean() == pytest.approx(math.exp(0.25), rel=0.12)
    diluted = times_as_long(model, "margin", slice_share=0.5)
    np.testing.assert_allclose(diluted, 0.5 + 0.5 * longer)
    unseen = times_as_long(model, "badge")
    assert np.quantile(unseen, 0.05) < 0.6 < 1.6 < np.quantile(unseen, 0.95)
    again = fit_pace(reads, CUT)
    np.testing.assert_array_equal(model.draws, again.draws)


@pytest.mark.parametrize(("readers", "n"), [(1, 40), (3, 100)])
def test_a_queue_takes_as_long_as_was_said(readers, n):
    """At least 93 of 100 intervals of a queue's minutes, and of the planted effects, hold."""
    runs, held, effect = 80, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        reads, counts, levels = simulated(rng, readers, n)
        later, _, _ = simulated(rng, readers, 60, counts, levels)
        model = fit_pace(reads, CUT)
        told = minutes_of(model, [one.case for one in later])
        held += told.low <= sum(min(one.seconds, CUT) for one in later) / 60 <= told.high
        times = {e.name: e.times for e in model.effects}["chosen by margin"]
        effect += times.low <= math.exp(0.25) <= times.high
    assert held / runs >= 0.91  # 93 % less what 80 runs leave to chance
    assert effect / runs >= 0.91


def held(item: str, when: str | None, reader: str = "ann", seconds: float | None = 9.0, **more):
    told = {"outcome": "read", "hinted": False} | more
    return HeldRead(
        item, item, reader, reason="", seconds=seconds, read_at=when, role="reader", round=1, **told
    )


def test_practice_and_sittings_follow_the_clock():
    reads = [
        held("c", "2026-01-05T09:10:00Z"),
        held("a", "2026-01-05T08:00:00Z"),
        held("b", "2026-01-05T08:10:00Z", seconds=None),
        held("d", "2026-01-05T09:12:00Z", hinted=True),
        held("e", "2026-01-05T09:12:00Z", reader="bob"),
        held("f", None, reader="bob"),
        held("g", "2026-01-05T09:13:00Z", outcome="skipped"),
    ]
    found = timed(reads, {"c": ("margin", 0.9)})
    assert [one.case for one in found] == [
        Case("ann", 0, 0),
        Case("ann", 2, 0, chosen="margin", rank=0.9),  # an hour after b: a new sitting
        Case("ann", 3, 1, hinted=True),
        Case("bob", 0, None),
        Case("bob", 1, 0),
    ]
