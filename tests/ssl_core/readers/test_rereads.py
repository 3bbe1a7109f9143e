"""Contradictions read once more: who is asked, what stands in the queue, and what came of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.memory import MemoryRoom
from ssl_core.errors import WorkspaceError
from ssl_core.evidence import Estimate
from ssl_core.history.truth import label_matrix
from ssl_core.readers.assignment import Panel, others
from ssl_core.readers.reader_evidence import fair_reads
from ssl_core.readers.reading import queue, sync
from ssl_core.readers.reread_result import Answered, answered, difference, reread_result, result
from ssl_core.readers.rereads import Held, ask_rereads, draw, reread_sentences
from ssl_core.records import Assignment, HeldRead, Reread, Stage
from tests.rounds_by_hand import asked, ids, made, open_round, says, trained

PEOPLE = {"room": "label_studio", "readers": ["ann", "bob"], "overlap_share": 0.0}
SPOT = {"Spot": 1.0}


def workspace(tmp_path, url, **reading):
    ws = made(tmp_path / "w", url, reading={**PEOPLE, "evaluation_overlap_share": 0.0, **reading})
    return ws, MemoryRoom(ws.config.reading.readers)


def begun(ws, room, items: int = 12):
    """A round that asked for train items; all are read as present, and a later model denies four.

    Returns the items; the model is sure that the first four are absent.
    """
    chosen = ids(ws, "train")[:items]
    open_round(ws.ledger, 1, ws.config.to_json())
    picked = [asked(item_id, k) for k, item_id in enumerate(chosen)]
    ws.ledger.add_stage(Stage(1, 0, "select", "select", "{}", 1.0), selections=picked)
    ws.ledger.finish_round(1, "{}")
    queue(ws, room)
    for reader in room.readers:
        for one in room.waiting.get(reader, []):
            if one.primary and one.item_id in chosen:
                room.submit(one.item_id, SPOT, reader=reader, seconds=20.0)
    sync(ws, room)
    trained(ws, 2, t1=0.7, s1=0.8)
    opinions = {i: [0.05 + k / 100 if k < 4 else 0.9] for k, i in enumerate(chosen)}
    says(ws, "s1", opinions)
    return chosen


def test_contradictions_and_controls_go_to_whoever_has_not_read_them(tmp_path, ledger_url):
    ws, room = workspace(tmp_path, ledger_url)
    items = begun(ws, room)
    first = {r.item_id: r.reader for r in ws.ledger.reading.reads()}
    found = ask_rereads(ws, limit=3)
    assert (found.pairs, found.limited, found.nobody, found.uncontrolled) == (3, 1, 0, 0)
    held = ws.ledger.reading.rereads()
    assert {r.item_id for r in held if r.kind == "contradiction"} == set(items[:3])
    assert {r.item_id for r in held if r.kind == "control"} <= set(items[4:])
    assert Counter(r.pair for r in held) == Counter({0: 2, 1: 2, 2: 2})
    assert all(r.reader != first[r.item_id] and r.value == 1.0 for r in held)
    assert all(math.isnan(r.confidence) == (r.kind == "control") for r in held)
    queue(ws, room)
    shown = [a for reader in room.readers for a in room.waiting.get(reader, []) if a.primary]
    again = [a for a in shown if a.item_id in {r.item_id for r in held}]
    assert {(a.item_id, a.reader) for a in again} == {(r.item_id, r.reader) for r in held}
    assert not any(a.hinted for a in again)
    assert {a.role for a in again} == {"reader"}
    second = ask_rereads(ws, limit=3)  # an item is asked again once
    assert second.pairs == 1
    assert ask_rereads(ws).pairs == 0
    assert len({r.item_id for r in ws.ledger.reading.rereads()}) == 8
    ws.ledger.close()


def test_a_re_read_is_a_vote_and_the_shares_are_counted(tmp_path, ledger_url):
    ws, room = workspace(tmp_path, ledger_url, adjudicator="cat")
    items = begun(ws, room)
    ask_rereads(ws)
    held = ws.ledger.reading.rereads()
    assert len(held) == 8
    empty = reread_result(ws)
    assert (empty.waiting, empty.contradiction.read) == (8, 0)
    assert "8 re-reads wait" in empty.sentence
    queue(ws, room)
    for one in held:
        changed = one.item_id in items[:3]
        room.submit(one.item_id, {"Spot": float(not changed)}, reader=one.reader, seconds=30.0)
    came = sync(ws, room)
    assert came.adjudications == 3  # one vote against another
    found = reread_result(ws)
    assert (found.contradiction.read, found.contradiction.changed) == (4, 3)
    assert (found.control.read, found.control.changed) == (4, 0)
    assert found.contradiction.share.value == 0.75
    assert found.difference.value == 0.75
    assert found.contradiction.seconds == 120.0
    assert found.waiting == 0
    assert "3 were answered otherwise" in found.sentence
    truth = label_matrix(items, ws.ledger.labels(), ["Spot"])[:, 0]
    np.testing.assert_array_equal(np.isnan(truth), [True] * 3 + [False] * 9)
    room.submit(items[0], {"Spot": 0.0}, reader="cat", seconds=5.0)
    sync(ws, room)
    assert label_matrix(items[:1], ws.ledger.labels(), ["Spot"])[0, 0] == 0.0
    assert reread_result(ws).contradiction.changed == 3  # the adjudicator's is no re-read
    assert ws.ledger.vault_looks() == []
    ws.ledger.close()


def test_a_readers_own_correction_is_no_re_read(tmp_path, ledger_url):
    ws, room = workspace(tmp_path, ledger_url)
    begun(ws, room)
    ask_rereads(ws, limit=1)
    one = next(r for r in ws.ledger.reading.rereads() if r.kind == "contradiction")
    first = next(r.reader for r in ws.ledger.reading.reads() if r.item_id == one.item_id)
    room.submit(one.item_id, {"Spot": 0.0}, reader=first)
    sync(ws, room)
    assert answered(ws, [one]) == []
    room.act(one.item_id, "unusable", reader=one.reader, reason="blurred")
    sync(ws, room)
    (found,) = answered(ws, [one])
    assert math.isnan(found.changed)
    ws.ledger.close()


def test_a_lone_reader_reads_again_at_a_desk_of_their_own(tmp_path, ledger_url):
    ws, room = workspace(tmp_path, ledger_url, readers=["ann"])
    items = begun(ws, room)
    found = ask_rereads(ws, limit=3)
    assert (found.pairs, found.own, found.limited) == (3, 3, 1)
    assert "3 of them go to the reader who has answered them" in " ".join(reread_sentences(found))
    held = ws.ledger.reading.rereads()
    assert {one.reader for one in held} == {"ann (again)"}
    assert queue(ws, room).waiting["ann (again)"] == 6
    again = [a.item_id for a in room.waiting["ann (again)"]]
    assert again == [one.item_id for one in held]
    assert not any(a.hinted or a.item_id in again for a in room.waiting.get("ann", []))
    room.submit(items[0], {"Spot": 1.0}, reader="ann")  # a correction is no re-read
    sync(ws, room)
    assert reread_result(ws).own.waiting == 6
    for item_id in again:
        room.submit(item_id, {"Spot": float(item_id not in items[:2])}, reader="ann (again)")
    sync(ws, room)
    assert queue(ws, room).waiting == {"ann": len(room.waiting["ann"])}
    result_ = reread_result(ws)
    assert (result_.contradiction.asked, result_.control.asked, result_.waiting) == (0, 0, 0)
    assert (result_.own.contradiction.read, result_.own.contradiction.changed) == (3, 2)
    assert (result_.own.control.read, result_.own.control.changed) == (3, 0)
    assert result_.own.waiting == 0
    assert result_.sentence.startswith("By the reader who had answered before: Of 3 contradictions")
    said = {(x.item_id, x.reader): x.value for x in ws.ledger.labels()}
    assert (said[items[0], "ann"], said[items[0], "ann (again)"]) == (1.0, 0.0)  # nothing lost
    truth = label_matrix(items, ws.ledger.labels(), ["Spot"])[:, 0]
    np.testing.assert_array_equal(np.isnan(truth), [True] * 2 + [False] * 10)
    assert set(ws.ledger.reading.disagreements()) == set(items[:2])
    assert fair_reads(ws.ledger.reading.reads(), held) == [
        read for read in ws.ledger.reading.reads() if read.reader == "ann"
    ]
    assert ask_rereads(ws, limit=9).pairs == 1  # an item is asked again once
    ws.ledger.close()


def test_another_readers_answer_is_no_re_read_of_ones_own(tmp_path, ledger_url):
    ws, room = workspace(tmp_path, ledger_url, readers=["ann"])
    begun(ws, room)
    ask_rereads(ws, limit=1)
    one = next(r for r in ws.ledger.reading.rereads() if r.kind == "contradiction")
    more = ws.config.changed(reading={"readers": ["ann", "bob"]})
    ws, room.readers = replace(ws, config=more), more.reading.readers
    queue(ws, room)
    room.submit(one.item_id, {"Spot": 0.0}, reader="bob")
    sync(ws, room)
    assert answered(ws, [one]) == []
    ws.ledger.close()


def test_hinted_items_are_not_read_again_by_a_lone_reader():
    panel = Panel(("ann",))
    asked_ = [Assignment(item, "ann", 1, k, hinted=item == "b") for k, item in enumerate("abc")]
    reads = [
        HeldRead(item, item, "ann", outcome, "", None, None, "reader", item == "b", 1)
        for item, outcome in (("a", "read"), ("b", "read"), ("c", "skipped"))
    ]
    assert others(asked_, reads, panel) == {"a": ["ann (again)"]}
    assert others(asked_, reads, replace(panel, adjudicator="cat"))["b"] == ["cat"]
    assert others(asked_, reads, Panel(("ann", "bob")))["a"] == ["bob"]


def test_a_contradiction_that_another_reads_has_no_control_that_the_same_reader_reads():
    ours, other = Held("a", "A", 1.0, 0.9), Held("b", "A", 1.0)
    free = {"a": ["ann"], "b": ["ann (again)"]}
    assert draw([ours], [other], free, 5, np.random.default_rng(0)) == []


def test_both_kinds_of_re_reads_stand_apart(tmp_path, ledger_url):
    ws, room = workspace(tmp_path, ledger_url)
    begun(ws, room)
    ask_rereads(ws, limit=2)
    by_others = ws.ledger.reading.rereads()
    for one in by_others:
        room.submit(one.item_id, {"Spot": 0.0}, reader=one.reader)
    sync(ws, room)
    alone = ws.config.changed(reading={"readers": [by_others[0].reader]})
    ws, room.readers = replace(ws, config=alone), alone.reading.readers
    asked_ = ask_rereads(ws)
    found = reread_result(ws)
    assert (found.contradiction.changed, found.control.changed) == (2, 2)
    assert found.own.contradiction.asked == asked_.own > 0
    assert " By the reader who had answered before: " in found.sentence
    ws.ledger.close()


def test_without_a_model_it_says_what_to_do(tmp_path, ledger_url):
    ws, _ = workspace(tmp_path, ledger_url)
    with pytest.raises(WorkspaceError, match="readloop round"):
        ask_rereads(ws)
    ws.ledger.close()


def test_a_later_run_on_the_same_ledger_draws_the_same(tmp_path, new_ledger_url):
    told = []
    for name in ("a", "b"):
        ws, room = workspace(tmp_path / name, new_ledger_url())
        begun(ws, room)
        ask_rereads(ws, limit=2)
        told.append([repr(one) for one in ws.ledger.reading.rereads()])
        ws.ledger.close()
    assert told[0] == told[1]


@given(
    doubted=st.lists(st.sampled_from([("A", 0.0), ("A", 1.0), ("B", 1.0)]), max_size=12),
    pool=st.lists(st.sampled_from([("A", 0.0), ("A", 1.0), ("B", 1.0)]), max_size=20),
    limit=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_every_contradiction_has_a_control_like_it(doubted, pool, limit, seed):
    rng = np.random.default_rng(seed)
    ours = [Held(f"d{k}", *one, 0.9) for k, one in enumerate(doubted)]
    others = [Held(f"p{k}", *one) for k, one in enumerate(pool)]
    names = ("ann", "bob", "cat")
    free = {
        one.item_id: [n for n in names if rng.random() < 0.7] or ["ann"] for one in ours + others
    }
    drawn = draw(ours, others, free, limit, rng)
    assert len({one.label.item_id for one in drawn}) == len(drawn) <= 2 * limit
    pairs: dict[int, dict[str, Held]] = {}
    for one in drawn:
        assert one.reader in free[one.label.item_id]
        pairs.setdefault(one.pair, {})[one.kind] = one.label
    for pair in pairs.values():
        a, b = pair["contradiction"], pair["control"]
        assert (a.finding, a.value) == (b.finding, b.value)
    left = Counter(doubted[:limit]) & Counter(pool)
    assert len(pairs) == left.total()


def test_nobody_can_tell_the_two_kinds_by_their_place():
    """Over many draws the mean place of contradictions is that of controls."""
    ours = [Held(f"d{k}", "A", 1.0, 0.9 - k / 100) for k in range(6)]
    others = [Held(f"p{k}", "A", 1.0) for k in range(30)]
    free = {one.item_id: ["ann", "bob"] for one in ours + others}
    places = {"contradiction": [], "control": []}
    for seed in range(400):
        for k, one in enumerate(draw(ours, others, free, 6, np.random.default_rng(seed))):
            places[one.kind].append(k)
    assert np.mean(places["contradiction"]) == pytest.approx(5.5, abs=0.15)
    assert np.mean(places["control"]) == pytest.approx(5.5, abs=0.15)


def test_the_difference_by_hand():
    """Newcombe 1998, table II: 56/70 less 48/80 is .2, from .0524 to .3339."""
    ours, theirs = (
        _share(56, 70),
        _share(48, 80),
    )
    found = difference(ours, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@cache
def _share(hits: int, n: int) -> Estimate:
    rereads = [Reread(f"i{k}", "b", 1, k, "control", k, "A", 1.0, 0.9, "m", 0) for k in range(n)]
    done = [Answered("control", f"P{k}", float(k < hits), 60.0) for k in range(n)]
    return result(done, rereads, 300.0).control.share


def test_equal_rates_are_seldom_told_apart():
    runs, alarms, held = 400, 0, 0
    rng = np.random.default_rng(0)
    for _ in range(runs):
        shares = [_share(int(rng.binomial(20, p)), 20) for p in (0.1, 0.1, 0.4)]
        same, apart = difference(shares[0], shares[1]), difference(shares[2], shares[0])
        alarms += same.low > 0 or same.high < 0
        held += apart.low <= 0.3 <= apart.high
    assert alarms / runs <= 0.05
    assert held / runs >= 0.93
