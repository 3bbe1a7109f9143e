"""Cohen's kappa with its interval, and the readers' pace."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from ssl_core.readers import agreement as agree
from ssl_core.readers.agreement import agreement, interval, kappa, pace
from ssl_core.records import HeldRead, Label
from tests.ledger_records import NAN


def said(reader, values, finding="mass", role="reader", source="label_studio") -> list[Label]:
    """One label an item, items named 0, 1, …; None is no label."""
    return [
        Label(str(i), finding, value, reader, source, f"{reader}:{i}:{finding}", role=role)
        for i, value in enumerate(values)
        if value is not None
    ]


def table(both: int, first: int, second: int, neither: int) -> list[Label]:
    ours = [1.0] * (both + first) + [0.0] * (second + neither)
    theirs = [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither
    return said("ann", ours) + said("bob", theirs)


def did(item, reader="ann", outcome="read", seconds=None, **more) -> HeldRead:
    held = {"role": "reader", "hinted": False, "round": 1, **more}
    return HeldRead(f"{reader}:{item}", str(item), reader, outcome, "", seconds, None, **held)


# Kappa


def test_kappa_by_hand():
    """Fleiss, Levin and Paik's way: p_o = .70, p_e = .5 · .6 + .5 · .4 = .50, κ = .20 / .50."""
    (one,) = agreement(table(20, 5, 10, 15))
    assert one.finding == "mass"
    assert one.readers == ("ann", "bob")
    assert one.agreed == pytest.approx(0.70)
    assert one.kappa == pytest.approx(0.40)
    assert (one.n, one.unsure) == (50, 0)
    assert 0.1 < one.low < 0.2
    assert 0.6 < one.high < 0.7


BINARY = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(pairs=BINARY)
def test_kappa_is_that_of_scikit_learn(pairs):
    ours, theirs = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    (one,) = agreement(said("ann", ours) + said("bob", theirs))
    if len({*ours, *theirs}) == 1:
        assert math.isnan(one.kappa)
        return
    assert one.kappa == pytest.approx(cohen_kappa_score(ours, theirs), abs=1e-12)
    assert -1 <= one.low <= one.kappa <= one.high <= 1
    assert one.low < one.high


def test_one_constant_value_from_both_has_no_kappa():
    for value in (0.0, 1.0):
        (one,) = agreement(said("ann", [value] * 9) + said("bob", [value] * 9))
        assert (one.agreed, one.n) == (1.0, 9)
        assert all(map(math.isnan, (one.kappa, one.low, one.high)))


def test_one_constant_reader_has_the_kappa_of_chance():
    (one,) = agreement(said("ann", [0.0] * 9) + said("bob", [0.0] * 8 + [1.0]))
    assert one.kappa == 0
    assert one.low < -0.1
    assert one.high > 0.5  # nine items and one positive tell next to nothing


def test_perfect_agreement_keeps_a_doubt_that_shrinks_with_items():
    lows = []
    for n in (5, 20, 80):
        (one,) = agreement(table(n, 0, 0, n))
        assert one.kappa == one.high == 1
        lows.append(one.low)
    assert lows == sorted(lows)
    assert lows[0] < 0.6
    assert 0.9 < lows[2] < 1


def test_who_could_not_tell_is_counted_and_left_out():
    labels = said("ann", [1.0, 0.0, NAN, NAN, 1.0]) + said("bob", [1.0, 0.0, 1.0, NAN, None])
    (one,) = agreement(labels)
    assert (one.n, one.unsure, one.kappa) == (2, 2, 1.0)
    (nobody,) = agreement(said("ann", [NAN]) + said("bob", [1.0]))
    assert (nobody.n, nobody.unsure) == (0, 1)
    assert all(map(math.isnan, (nobody.kappa, nobody.low, nobody.high, nobody.agreed)))


def test_pairs_and_findings_each_have_their_own():
    labels = [
        *said("cyd", [1.0, 0.0, 1.0]),
        *said("ann", [1.0, 0.0, 0.0]),
        *said("bob", [1.0, 0.0, 1.0]),
        *said("ann", [0.0, 1.0], "edema"),
        *said("bob", [1.0, 0.0], "edema"),
        *said("dee", [None, None, None, 1.0]),  # an item that no one else has read
        *said("zoe", [1.0, 1.0, 1.0], role="adjudicator"),
        *said("file", [1.0, 1.0, 1.0], source="import"),
    ]
    found = agreement(labels)
    assert [(a.finding, a.readers) for a in found] == [
        ("edema", ("ann", "bob")),
        ("mass", ("ann", "bob")),
        ("mass", ("ann", "cyd")),
        ("mass", ("bob", "cyd")),
    ]
    assert found[0].kappa == -1
    assert found[1].kappa == found[2].kappa == pytest.approx(0.4)  # p_o 2/3, p_e 4/9
    assert found[3].kappa == 1
    assert agreement([]) == []


def test_reads_leave_out_what_was_withdrawn_or_filtered():
    labels = said("ann", [1.0, 0.0, NAN]) + said("bob", [1.0, 0.0, 1.0])
    reads = [did(i, reader) for i in range(3) for reader in ("ann", "bob")]
    reads[4] = did(2, "ann", "withdrawn")
    (one,) = agreement(labels, reads)
    assert (one.n, one.unsure) == (2, 0)
    (blind,) = agreement(labels, [r for r in reads if r.item_id != "0"])
    assert blind.n == 1


def test_the_order_of_labels_and_another_run_change_nothing():
    labels = table(4, 3, 2, 6)
    assert agreement(labels) == agreement(labels) == agreement(labels[::-1])


def test_items_of_one_patient_tell_less():
    """Each patient's ten items agree or disagree as one: ten patients, not a hundred items."""
    labels = table(40, 10, 10, 40)
    groups = {str(i): f"P{i // 10}" for i in range(100)}
    (alone,), (grouped,) = agreement(labels), agreement(labels, groups=groups)
    assert grouped.kappa == alone.kappa
    assert 2.5 < (grouped.high - grouped.low) / (alone.high - alone.low) < 4  # √10 = 3.2
    apart = {str(i): f"P{i}" for i in range(100)}
    assert agreement(labels, groups=apart) == agreement(labels)


def test_a_patient_who_is_called_like_an_item_is_another():
    labels = table(2, 1, 1, 2)
    assert agreement(labels, groups={"0": "1"}) == agreement(labels)


def test_the_interval_covers():
    """A few of the cells that the docstring sums up; a tenth of its draws."""
    rng = np.random.default_rng(3)
    for n, prevalence, true in ((30, 0.05, 0.6), (30, 0.5, 0.4), (100, 0.3, 0.8)):
        spread = prevalence * (1 - prevalence)
        cells = prevalence**2, 0.0, 0.0, (1 - prevalence) ** 2
        cells = np.array(cells) + spread * np.array([true, 1 - true, 1 - true, true])
        hits = []
        for drawn in rng.multinomial(n, cells, size=300):
            if not math.isnan(kappa(drawn)):
                low, high = interval(np.repeat(np.eye(4), drawn, axis=0))
                hits.append(low <= true <= high)
        assert np.mean(hits) > 0.90


def test_many_items_of_two_readers_take_no_time_and_little_memory():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (2, 20_000)).astype(float)
    (one,) = agreement(said("ann", values[0]) + said("bob", values[1]))
    assert abs(one.kappa) < 0.03
    # the asymptotic standard error is 1/√n where the two are independent and even
    assert (one.high - one.low) == pytest.approx(2 * 1.96 / math.sqrt(20_000), rel=0.05)
    assert agree.DRAWS == 4000


# Pace


def test_pace_by_hand():
    reads = [
        did(1, seconds=30.0),
        did(2, seconds=90.0, hinted=True),
        did(3, seconds=900.0),  # at lunch
        did(4),
        did(5, outcome="unusable", seconds=60.0),
        did(6, outcome="skipped", seconds=12.0),
        did(7, outcome="withdrawn", seconds=1e6),
        did(1, "cat", role="adjudicator", seconds=60.0),
    ]
    ann, cat = pace(reads, idle_cut=300.0)
    assert (ann.reader, ann.role, cat.reader, cat.role) == ("ann", "reader", "cat", "adjudicator")
    assert (ann.read, ann.unusable, ann.skipped) == (4, 1, 1)
    assert (ann.hinted, ann.blind) == (1, 4)
    assert ann.seconds == 30 + 90 + 300 + 60 + 12
    assert (ann.cut, ann.untimed) == (1, 1)
    assert ann.median_seconds == 75  # of 30, 60, 90, 300
    assert ann.minutes.n == 4
    assert ann.minutes.value == pytest.approx(2.0)
    # .5, 1, 1.5, 5 minutes: s² = (2.25 + 1 + .25 + 9) / 3, t(3, .975) = 3.182446
    half = 3.182446 * math.sqrt(12.5 / 3 / 4)
    assert ann.minutes.low == pytest.approx(2 - half)
    assert ann.minutes.high == pytest.approx(2 + half)
    assert (cat.read, cat.minutes.value, cat.minutes.n) == (1, 1.0, 1)
    assert math.isnan(cat.minutes.low)


def test_a_read_of_the_idle_cut_is_not_cut():
    (ann,) = pace([did(1, seconds=300.0)], idle_cut=300.0)
    assert (ann.cut, ann.seconds) == (0, 300.0)


def test_readers_without_times_or_reads():
    (ann,) = pace([did(1), did(2, outcome="skipped")], idle_cut=300.0)
    assert (ann.read, ann.skipped, ann.untimed, ann.seconds) == (1, 1, 1, 0)
    assert math.isnan(ann.minutes.value)
    assert math.isnan(ann.median_seconds)
    assert pace([did(1, outcome="withdrawn")], idle_cut=300.0) == pace([], 1.0) == []
