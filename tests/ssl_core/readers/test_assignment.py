"""Who reads what: dealing out, hints, newcomers, what is open, and what goes to the adjudicator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.readers.assignment import (
    SPAN,
    Panel,
    adjudications,
    deal,
    deal_hints,
    near,
    newcomers,
    open_assignments,
    skipped_by_all,
)
from ssl_core.records import Assignment, HeldRead

ANN, BOB, CYD = "ann", "bob", "cyd"
CAT = "cat"  # the adjudicator
ONE, TWO, THREE = (ANN,), (ANN, BOB), (ANN, BOB, CYD)


def dealt(n: int, panel: Panel, number: int = 1, seed: int = 0) -> list[Assignment]:
    return deal([f"i{k}" for k in range(n)], number, panel, np.random.default_rng(seed))


def primary(item: str, reader: str, priority: int = 0, **more) -> Assignment:
    return Assignment(item, reader, 1, priority, **more)


def backup(item: str, reader: str, priority: int = 9) -> Assignment:
    return Assignment(item, reader, 1, priority, primary=False)


def final(item: str) -> Assignment:
    return Assignment(item, CAT, 1, 0, role="adjudicator")


def did(item: str, reader: str, outcome: str = "read") -> HeldRead:
    role = "adjudicator" if reader == CAT else "reader"
    return HeldRead(f"{item}:{reader}", item, reader, outcome, "", None, None, role, False, 1)


def pairs(assignments) -> list[tuple[str, str]]:
    return [(a.item_id, a.reader) for a in assignments]


# Dealing out


PANELS = st.builds(
    Panel,
    st.integers(1, 5).map(lambda n: tuple(f"r{k}" for k in range(n))),
    overlap=st.integers(1, 4),
    overlap_share=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 1 / 3, 1.0]),
    backup=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(n=st.integers(0, 60), panel=PANELS, number=st.integers(0, 9), seed=st.integers(0, 99))
def test_every_deal_is_even_and_of_the_exact_overlap(n, panel, number, seed):
    all_ = dealt(n, panel, number, seed)
    first = [a for a in all_ if a.primary]
    load = Counter(a.reader for a in first)
    loads = [load[reader] for reader in panel.readers]
    assert max(loads) - min(loads) <= 1
    readers_of = Counter(a.item_id for a in first)
    assert len(readers_of) == n
    double = min(panel.overlap, len(panel.readers))
    if double > 1:
        shared = int(panel.overlap_share * n + 0.5 + 1e-9)
        assert Counter(readers_of.values()) == Counter({double: shared, 1: n - shared}) - Counter()
    else:
        assert set(readers_of.values()) <= {1}
    assert len(set(pairs(all_))) == len(all_)
    assert len(all_) == (n * len(panel.readers) if panel.backup else len(first))
    assert {(a.round, a.role, a.hinted) for a in all_} <= {(number, "reader", False)}


def test_the_same_seed_deals_the_same_and_another_does_not():
    panel = Panel(THREE, overlap=2, overlap_share=0.5)
    assert dealt(30, panel) == dealt(30, panel)
    assert dealt(30, panel) != dealt(30, panel, seed=1)


def test_items_keep_the_order_of_asking_and_backups_are_mirrored():
    all_ = dealt(20, Panel(TWO))
    for reader in TWO:
        own = [a for a in all_ if a.reader == reader]
        queue = [a.item_id for a in sorted(own, key=lambda a: a.priority)]
        first = [a.item_id for a in own if a.primary]
        rest = [a.item_id for a in own if not a.primary]
        assert first == sorted(first, key=lambda i: int(i[1:]))
        assert queue == first + rest[::-1]


def test_whatever_was_asked_before_newer_rounds_come_first():
    for panel in (Panel(TWO), Panel(TWO, overlap=2, overlap_share=1.0)):
        older, newer = (dealt(50, panel, number) for number in (3, 4))
        assert max(a.priority for a in newer) < min(a.priority for a in older)
        assert max(a.priority for a in older) < min(a.priority for a in dealt(50, panel, 0))


def read_out(panel: Panel, all_: list[Assignment], speed: dict[str, int]) -> list[HeldRead]:
    """Play readers of different speed until nothing is open; each sees what is open then."""
    reads: list[HeldRead] = []
    while still := open_assignments(all_, reads, panel):
        for reader, per_turn in speed.items():
            for _ in range(per_turn):
                mine = [a for a in open_assignments(all_, reads, panel) if a.reader == reader]
                if mine:
                    reads.append(did(mine[0].item_id, reader))
        assert len(open_assignments(all_, reads, panel)) < len(still)
    return reads


def test_two_readers_who_run_dry_meet_in_the_middle():
    panel = Panel(TWO)
    all_ = dealt(40, panel)
    own = {r: [a.item_id for a in all_ if a.reader == r and a.primary] for r in TWO}
    reads = read_out(panel, all_, {ANN: 3, BOB: 1})
    by = {r: [one.item_id for one in reads if one.reader == r] for r in TWO}
    assert sorted(by[ANN] + by[BOB]) == sorted(own[ANN] + own[BOB])  # each item once
    assert (len(by[ANN]), len(by[BOB])) == (30, 10)
    assert by[ANN] == own[ANN] + own[BOB][:9:-1]  # helps from the end of Bob's queue
    assert by[BOB] == own[BOB][:10]


def test_a_slow_room_seldom_has_two_reading_the_same_item():
    """Queues that are brought up to date only now and then: still nobody doubles much."""
    panel = Panel(TWO)
    all_ = dealt(40, panel)
    reads: list[HeldRead] = []
    for _ in range(20):  # each sync, Ann reads six of what she saw and Bob two
        still = open_assignments(all_, reads, panel)
        for reader, n in ((ANN, 6), (BOB, 2)):
            mine = [a for a in still if a.reader == reader][:n]
            reads += [did(a.item_id, reader) for a in mine]
    assert {r.item_id for r in reads} == {a.item_id for a in all_}
    assert len(reads) - 40 <= 2


def test_overlapped_items_are_read_by_as_many_and_no_more():
    panel = Panel(THREE, overlap=2, overlap_share=0.5)
    all_ = dealt(24, panel)
    needed = Counter(a.item_id for a in all_ if a.primary)
    reads = read_out(panel, all_, {ANN: 4, BOB: 2, CYD: 1})
    assert Counter(r.item_id for r in reads) == needed


# Hints


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_half_of_each_stratum_is_hinted_for_all_of_its_readers(sizes, seed):
    all_ = dealt(30, Panel(TWO, overlap=2, overlap_share=0.3))
    ids = iter(f"i{k}" for k in range(30))
    strata = [[next(ids) for _ in range(size)] for size in sizes]
    marked = deal_hints(all_, strata, np.random.default_rng(seed))
    assert [replace(a, hinted=False) for a in marked] == all_
    hinted = {a.item_id for a in marked if a.hinted}
    assert hinted.isdisjoint(a.item_id for a in marked if not a.hinted)
    for stratum in strata:
        assert len(hinted & set(stratum)) in (len(stratum) // 2, (len(stratum) + 1) // 2)
    assert hinted <= {i for stratum in strata for i in stratum}


def test_of_odd_strata_chance_decides_which_half_is_larger():
    found = Counter()
    for seed in range(200):
        marked = deal_hints([primary("a", ANN)], [["a"]], np.random.default_rng(seed))
        found[marked[0].hinted] += 1
    assert 70 < found[True] < 130


# A reader who joins, or leaves


def test_a_newcomer_may_read_all_that_the_panel_was_asked():
    before = dealt(10, Panel(TWO))
    new = newcomers(before, Panel(THREE))
    assert [a.item_id for a in new] == [f"i{k}" for k in range(10)]
    assert {(a.reader, a.primary, a.role) for a in new} == {(CYD, False, "reader")}
    of_ann = {a.item_id: a for a in before if a.reader == ANN and not a.primary}
    assert {a.item_id: a.priority for a in new if a.item_id in of_ann} == {
        item: a.priority for item, a in of_ann.items()
    }
    assert newcomers([*before, *new], Panel(THREE)) == []
    assert newcomers(before, Panel(THREE, backup=False)) == []


def test_a_newcomer_joins_at_the_far_end_also_without_earlier_backups():
    before = dealt(10, Panel(ONE), number=2)
    new = newcomers(before, Panel(TWO))
    assert [a.priority for a in new] == [-2 * SPAN + SPAN - 1 - k for k in range(10)]
    assert [a.reader for a in new] == [BOB] * 10


def test_a_newcomer_sees_the_hint_that_the_others_saw():
    new = newcomers([primary("a", ANN, hinted=True), primary("b", ANN)], Panel(TWO))
    assert {a.item_id: a.hinted for a in new} == {"a": True, "b": False}


def test_items_of_those_who_left_are_not_a_newcomers_and_nobody_inherits_a_role():
    held = [primary("a", "gone"), final("b"), primary("c", ANN), final("c")]
    new = newcomers(held, Panel((ANN, CAT)))  # the adjudicator has become a reader
    assert [(a.item_id, a.reader, a.role) for a in new] == [("c", CAT, "reader")]


# What is open


SINGLE = [primary("a", ANN), backup("a", BOB)]
DOUBLE = [primary("a", ANN), primary("a", BOB), backup("a", CYD)]
WITH_CAT = [*DOUBLE, final("a")]


@pytest.mark.parametrize(
    ("assignments", "reads", "readers"),
    [
        (SINGLE, [], [ANN, BOB]),
        (SINGLE, [did("a", ANN)], []),
        (SINGLE, [did("a", BOB)], []),
        (SINGLE, [did("a", ANN, "unusable")], []),
        (SINGLE, [did("a", ANN, "skipped")], [BOB]),
        (SINGLE, [did("a", ANN, "skipped"), did("a", BOB)], []),
        (SINGLE, [did("a", ANN, "withdrawn")], [ANN, BOB]),
        (SINGLE, [did("a", ANN, "withdrawn"), did("a", BOB)], []),
        (DOUBLE, [], [ANN, BOB, CYD]),
        (DOUBLE, [did("a", ANN)], [BOB, CYD]),
        (DOUBLE, [did("a", CYD)], [ANN, BOB]),
        (DOUBLE, [did("a", ANN), did("a", BOB)], []),
        (DOUBLE, [did("a", ANN), did("a", CYD)], []),
        (DOUBLE, [did("a", ANN), did("a", BOB, "skipped")], [CYD]),
        (DOUBLE, [did("a", ANN), did("a", BOB, "withdrawn")], [BOB, CYD]),
        (DOUBLE, [did("a", ANN, "unusable")], [BOB, CYD]),
        (WITH_CAT, [did("a", ANN), did("a", BOB)], [CAT]),
        (WITH_CAT, [did("a", ANN), did("a", CAT)], [BOB, CYD]),  # no reader's work is done by Cat
        (WITH_CAT, [did("a", ANN), did("a", BOB), did("a", CAT)], []),
        (WITH_CAT, [did("a", ANN), did("a", BOB), did("a", CAT, "withdrawn")], [CAT]),
        (WITH_CAT, [did("a", ANN), did("a", BOB), did("a", CAT, "skipped")], []),
    ],
)
def test_what_is_open_by_hand(assignments, reads, readers):
    panel = Panel(THREE, CAT, overlap=2)
    for order in (reads, reads[::-1]):
        found = open_assignments(assignments, order, panel)
        assert sorted(pairs(found)) == sorted(("a", reader) for reader in readers)


@pytest.mark.parametrize(
    ("assignments", "reads", "readers"),
    [
        (SINGLE, [], [BOB]),  # the one it was meant for has left
        (SINGLE, [did("a", ANN)], []),
        (SINGLE, [did("a", ANN, "withdrawn")], [BOB]),
        (DOUBLE, [], [BOB, CYD]),
        (DOUBLE, [did("a", BOB)], []),  # of two who were to read it, one is left
        (DOUBLE, [did("a", ANN)], [BOB, CYD]),  # the second read is still wanted
        (DOUBLE, [did("a", ANN), did("a", BOB)], []),
    ],
)
def test_what_is_open_after_a_reader_left(assignments, reads, readers):
    found = open_assignments(assignments, reads, Panel((BOB, CYD)))
    assert sorted(pairs(found)) == sorted(("a", reader) for reader in readers)


def test_what_is_open_comes_by_reader_and_priority():
    held = [primary("b", BOB, 2), primary("a", ANN, 5), primary("c", BOB, 1), primary("d", ANN, 3)]
    assert pairs(open_assignments(held, [], Panel(TWO))) == [
        ("d", ANN),
        ("a", ANN),
        ("c", BOB),
        ("b", BOB),
    ]


# To the adjudicator


def test_a_dispute_goes_to_the_adjudicator_once():
    held = [primary("a", ANN), Assignment("b", BOB, 4, 0, hinted=True)]
    panel = Panel(TWO, CAT)
    first = adjudications(["b"], held, panel)
    assert first == [Assignment("b", CAT, 4, 0, role="adjudicator")]  # blind
    held += first
    assert adjudications(["b"], held, panel) == []
    second = adjudications(["a", "b"], held, panel)
    assert second == [Assignment("a", CAT, 1, 1, role="adjudicator")]  # after the older one
    assert adjudications(["a"], held, Panel(TWO)) == []


def test_another_adjudicator_takes_over_what_is_in_dispute():
    held = [primary("a", ANN), final("a")]
    (one,) = adjudications(["a"], held, Panel(TWO, "dee"))
    assert (one.reader, one.role) == ("dee", "adjudicator")
    assert pairs(open_assignments([*held, one], [did("a", ANN)], Panel(TWO, "dee"))) == [
        ("a", "dee")
    ]


# What is shown of the reserve, and what nobody will read


def test_of_the_reserve_the_next_ones_are_shown_and_ones_own_always():
    open_ = [backup("a", ANN, 0), *(primary(i, ANN, 1) for i in "bcd"), backup("e", ANN, 2)]
    open_ += [backup("f", ANN, 3), backup("a", BOB, 0), backup("b", BOB, 1)]
    assert pairs(near(open_, 1)) == [("a", ANN), ("b", ANN), ("c", ANN), ("d", ANN), ("a", BOB)]
    assert near(open_, 0) == [a for a in open_ if a.primary]
    assert near(open_, 3) == open_


@given(PANELS, st.integers(0, 30), st.integers(0, 5))
def test_a_reader_who_reads_all_that_is_shown_is_shown_the_rest(panel, n, backups):
    all_, reads, seen = dealt(n, panel), [], []
    reader = panel.readers[0]
    while mine := [
        a for a in near(open_assignments(all_, reads, panel), backups) if a.reader == reader
    ]:
        reads += [did(a.item_id, reader) for a in mine]
        seen += mine
    left = [a for a in open_assignments(all_, reads, panel) if a.reader == reader]
    assert left == [] or (backups == 0 and not any(a.primary for a in left))


def test_what_everybody_skipped():
    asked = [primary("a", ANN), backup("a", BOB), primary("b", ANN), primary("c", BOB), final("c")]
    skips = [did("a", ANN, "skipped"), did("a", BOB, "skipped"), did("c", BOB, "skipped")]
    panel = Panel(TWO, CAT)
    assert skipped_by_all(asked, skips, panel) == ["a"]  # c waits for the adjudicator, b for Ann
    assert skipped_by_all(asked, [*skips[1:], did("a", ANN)], panel) == []
    assert skipped_by_all(asked, skips[2:], Panel(TWO)) == ["c"]
    assert skipped_by_all([], [], panel) == []
