"""The claim: structured numbers and the words made of them, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.claims.claim import Needed, claim, interval, needed
from ssl_core.claims.cost import Cost, Spent
from ssl_core.claims.curve import Curve, Line, Point
from ssl_core.evidence import Estimate, mean_interval

NAN = math.nan


def cost(labels=0, reads=None, hours: float | None = 0.0, money=None, **more) -> Cost:
    told = {"imported": 0, "untimed": 0, "seconds": 0.0, "assumed": None, "reason": ""} | more
    return Cost(
        labels=labels, reads=labels if reads is None else reads, hours=hours, money=money, **told
    )


def point(number, labels, value, low=NAN, high=NAN, hours=None, money=None) -> Point:
    return Point(number, labels, hours, money, Estimate(value, low, high, 500))


def line(role, points, origin="rounds", strategy="margin", seeds=1) -> Line:
    return Line(origin, strategy, "student", role, "macro", seeds, tuple(points))


OWN = line("student", [point(2, 52, 0.9, 0.88, 0.92), point(3, 104, 0.94, 0.92, 0.96)])
CONTROL = line(
    "control",
    [
        Point(2, 50, None, None, mean_interval([0.89, 0.90, 0.91])),
        Point(3, 100, None, None, mean_interval([0.91, 0.92, 0.93])),
        Point(4, 400, None, None, mean_interval([0.95, 0.96, 0.97])),
    ],
    "replay",
    "random",
    3,
)
AT = Spent(
    3,
    cost(104, hours=1.9, money=228.0),
    cost(300, hours=2.5, money=300.0),
    cost(500, hours=4.0, money=480.0),
)


def curve(*lines, spent=(AT,), now=AT, currency="EUR") -> Curve:
    missing = "" if any(x.role == "control" for x in lines) else "no control yet: why"
    return Curve(tuple(lines), ("macro",), tuple(spent), now, missing, currency)


def test_nothing_measured_is_said():
    found = claim(curve(spent=()))
    assert (found.point, found.control) == (None, None)
    assert found.text == "Nothing is measured yet: no round has trained a model on labels."


def test_the_whole_sentence_without_a_control():
    assert claim(curve(OWN)).text == (
        "With 104 training labels, AUROC on the vault is .940 [.920, .960] (student of round 3, "
        "500 items). They took 1.9 reader-hours, EUR 228. Measuring cost 800 labels besides, "
        "6.5 reader-hours, EUR 780. Not known: what random choice would have needed "
        "(no control yet: why)."
    )


def test_another_model_can_be_spoken_of():
    found = claim(curve(OWN), of=(2, "student"))
    assert (found.point.labels, found.evaluation) == (52, None)
    assert claim(curve(OWN), of=(7, "student")).point is None


def test_labels_read_since_then_and_imported_ones_are_said():
    spent = Spent(3, cost(104, reads=100, hours=1.0, imported=4), cost(), cost())
    now = Spent(None, cost(110), cost(), cost())
    text = claim(curve(OWN, spent=[spent], now=now, currency=None)).text
    assert "(student of round 3, 500 items). 6 more were read since. They took 1.0 reader-" in text
    assert "4 of them came with the import." in text
    assert "Measuring" not in text
    assert "Not known: money, because `[cost] per_hour` is not set in readloop.toml." in text


def test_what_was_assumed_is_said_and_so_are_hours_that_are_not_known():
    assumed = cost(
        104, hours=2.0, untimed=3, reason="3 of 104 reads have no time: 30 s assumed each"
    )
    text = claim(curve(OWN, spent=[Spent(3, assumed, cost(), cost())])).text
    assert "They took 2.0 reader-hours (3 of 104 reads have no time: 30 s assumed each)." in text
    unknown = cost(104, hours=None, reason="no read has a time")
    text = claim(curve(OWN, spent=[Spent(3, unknown, cost(), cost())])).text
    assert "Not known: reader-hours, because no read has a time." in text
    assert "They took" not in text


def test_an_undefined_auroc_is_said_and_asks_nothing_of_the_control():
    found = claim(curve(line("student", [point(3, 104, NAN)]), CONTROL))
    assert found.control is None
    assert "AUROC on the vault is –" in found.text
    assert "the vault's labels do not hold two sides of any finding" in found.text


# What the control needed


def test_what_the_control_needed_by_hand():
    """sd .01 over 3 seeds, t = 4.3027: another run lies within 4.3027 * .01 * sqrt(4/3)."""
    half = 4.302653 * 0.01 * math.sqrt(4 / 3)
    found = needed(CONTROL, Estimate(0.94, 0.92, 0.96, 500))
    assert found.labels == pytest.approx(100 * 4**0.5)
    assert half == pytest.approx(0.04968, abs=1e-5)
    assert found.low == 50  # .90 + .0497 is .94 already
    assert found.high == math.inf  # .96 - .0497 is not
    assert (found.first, found.last, found.seeds) == (50, 400, 3)
    assert found.says(104) == "same"


def test_the_band_between_points_by_hand():
    half = 4.302653 * 0.001 * math.sqrt(4 / 3)
    steps = [(50, 0.90), (100, 0.92), (400, 0.96)]
    points = [Point(2, b, None, None, mean_interval([v - 0.001, v, v + 0.001])) for b, v in steps]
    found = needed(line("control", points, "replay", "random", 3), Estimate(0.94, 0, 1, 9))
    assert found.labels == pytest.approx(200)
    assert found.low == pytest.approx(100 * 4 ** ((0.02 - half) / 0.04))
    assert found.high == pytest.approx(100 * 4 ** ((0.02 + half) / 0.04))
    assert [found.says(n) for n in (104, 200, 399)] == ["more", "same", "fewer"]
    text = claim(curve(OWN, line("control", points, "replay", "random", 3))).text
    assert (
        "Random choice, replayed with 3 seeds, needed 200 labels [169, 238] to get there, " in text
    )
    assert "more than the 104 spent." in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_spread_that_is_not_known_is_not_made_up(seeds):
    """One seed has an interval over patients, which is no spread; two that agree show none."""
    points = [point(2, 50, 0.93, 0.93, 0.93), point(3, 100, 0.95, 0.95, 0.95)]
    found = claim(curve(OWN, line("control", points, "replay", "random", seeds)))
    assert found.control.labels == pytest.approx(math.sqrt(5000))
    assert math.isnan(found.control.low)
    assert found.control.says(104) == "unknown"
    assert (
        "needed 71 labels to get there (here: 104); how far luck goes is not known." in found.text
    )


def test_a_control_that_never_got_there_and_one_that_always_was():
    far = [Point(2, 50, None, None, mean_interval([0.70, 0.71]))]  # ± .11: never .94
    text = claim(curve(OWN, line("control", far, "replay", "random", 2))).text
    assert text.endswith("did not get there with 50 labels, the most that was replayed.")
    wide = [Point(2, 50, None, None, mean_interval([0.60, 0.80]))]
    text = claim(curve(OWN, line("control", wide, "replay", "random", 2))).text
    assert "did not get there with 50 labels, the most that was replayed, but its runs" in text
    near = [Point(2, 50, None, None, mean_interval([0.99, 0.9901, 0.9902]))]
    text = claim(curve(OWN, line("control", near, "replay", "random", 3))).text
    assert "needed at most 50 labels [at most 50, at most 50] to get there, fewer than" in text


def test_an_archive_without_rounds_of_its_own_speaks_of_its_replay():
    ours = line(
        "student", [Point(4, 400, None, None, Estimate(0.97, 0.96, 0.98, 3))], "replay", seeds=3
    )
    found = claim(curve(ours, CONTROL, spent=()))
    assert (found.origin, found.evaluation) == ("replay", None)
    assert found.control is None  # replays are held against each other seed by seed, in `proof`
    assert found.text == (
        "Replayed with 3 seeds, 400 training labels chosen by margin gave an AUROC of "
        ".970 [.960, .980] on the vault."
    )


def test_a_run_that_is_no_better_than_random_is_seldom_said_to_be():
    """In 300 replays of 3 seeds, held against a run of the same worth at a budget between two."""
    rng, same = np.random.default_rng(4), 0
    worth = {b: 0.7 + 0.09 * math.log2(b / 50) for b in (50, 100, 150, 200, 400)}
    for _ in range(300):
        points = [
            Point(k, b, None, None, mean_interval((worth[b] + rng.normal(0, 0.01, 3)).tolist()))
            for k, b in enumerate((50, 100, 200, 400))
        ]
        ours = Estimate(worth[150] + float(rng.normal(0, 0.01)), 0.0, 1.0, 9)
        found = needed(line("control", points, "replay", "random", 3), ours)
        same += found.says(150) == "same"
    assert same / 300 >= 0.95


def test_numbers_are_printed_as_papers_do():
    assert interval(Estimate(0.98, 0.9712, 1.0, 5)) == ".980 [.971, 1.000]"
    assert interval(Estimate(0.5, NAN, NAN, 5)) == ".500"
    assert interval(Estimate(NAN, NAN, NAN, 5)) == "–"


def test_needed_is_nothing_without_a_control_or_a_target():
    assert needed(None, Estimate(0.9, 0, 1, 5)) is None
    assert needed(line("control", [point(1, 5, NAN)]), Estimate(0.9, 0, 1, 5)) is None
    assert isinstance(needed(CONTROL, Estimate(0.9, 0, 1, 5)), Needed)
