"""Pauses of pseudo-labels: from hand-written rounds to a real one that keeps nothing."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

from app.status import status_of
from ssl_core.auditing import pauses
from ssl_core.auditing.alarm import RoundAudit, Watch, sentence, watch
from ssl_core.auditing.fair_reads import detail_of
from ssl_core.auditing.pauses import audits, is_paused, mean_confidence, pack, unpack, watches
from ssl_core.config import Alarm as Rules
from ssl_core.config import save_config
from ssl_core.progress import silent
from ssl_core.records import PseudoLabel, Round
from ssl_core.rounds import run_round
from ssl_core.turn import replay
from ssl_core.workspace import CONFIG_FILE, open_workspace
from tests import toy
from tests.rounds_by_hand import add, asked, ids, model, open_round

SLICE, CHOSEN = 10, 6


def planted(ws, number: int) -> None:
    """A round that kept ten spotless items as spotted, drew them, and asked for six with spots."""
    findings = ws.ledger.task.findings
    truth = {a.item_id: a.value for a in ws.ledger.answers(ids(ws, "train")) if a.finding == "Spot"}
    done = {s.item_id for _, s in ws.ledger.selected()}
    left = [i for i in truth if i not in done]
    wrong = [i for i in left if truth[i] == 0][:SLICE]
    spots = [i for i in left if truth[i] == 1][:CHOSEN]
    open_round(ws.ledger, number, ws.config.to_json())
    add(ws.ledger, number, "teacher", models=[model(f"t{number}", "teacher")])
    rows = [PseudoLabel(i, "Spot", 1.0, 0.9 + 0.03 * number) for i in wrong]
    if "Bar" in findings:  # unsure, and says so
        rows += [PseudoLabel(i, "Bar", 0.0, 0.4) for i in wrong]
    detail = {
        "pool": len(left),
        "prior": [0.4, 0.3, 0.1][: len(findings)],
        "positives": [SLICE, 4, 0][: len(findings)],
        "kept": [SLICE, SLICE, 0][: len(findings)],
    }
    add(ws.ledger, number, "pseudo-labels", "pseudo-label", detail, pseudo_labels=rows)
    chosen = [asked(i, r, "random") for r, i in enumerate(wrong)]
    chosen += [asked(i, SLICE + r) for r, i in enumerate(spots)]
    add(ws.ledger, number, "select", "select", selections=chosen)
    ws.ledger.finish_round(number, "{}")


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Two planted rounds whose questions a simulated reader will answer."""
    root = toy.make(
        tmp_path_factory.mktemp("alarm") / "w",
        toy.TASKS["multi_label"],
        items=144,
        map={"methods": []},
    )
    ws, _ = toy.opened(root)
    planted(ws, 1)
    planted(ws, 2)
    ws.ledger.close()
    return root


@pytest.fixture
def root(before, tmp_path):
    return shutil.copytree(before, tmp_path / "w")


def test_a_round_after_the_alarm_keeps_nothing_of_the_finding_and_says_why(root):
    ws, room = toy.opened(root)
    assert all(one.alarm is None for one in watches(ws, ws.config.alarm))  # nobody read yet
    number = run_round(ws, room)
    told = audits(ws)["Spot"]
    assert [(a.round, a.judged, a.wrong, a.positives, a.reads) for a in told[:2]] == [
        (1, (10, 0), (10, 0), 0, 10),
        (2, (10, 0), (10, 0), 0, 10),
    ]
    assert [a.confidence[0] for a in told[:2]] == pytest.approx([0.93, 0.96])
    kept = {p.finding for p in ws.ledger.pseudo_labels(number)}
    assert "Spot" not in kept
    assert "Bar" in kept
    detail = detail_of(ws, number, "pseudo-labels")
    assert list(detail["paused"]) == ["Spot"]
    assert "kept as present were wrong" in detail["paused"]["Spot"]
    assert (detail["kept"][0], detail["positives"][0]) == (0, 0)
    withheld = detail["withheld"]["Spot"]
    assert withheld["kept"] > withheld["positives"] > 0
    assert len(detail["confidence"]) == 3

    # The next round takes the answers in; what would have been kept is judged as if it had been.
    run_round(ws, room)
    third = audits(ws)["Spot"][2]
    drawn = [s.item_id for s in ws.ledger.selections(number) if s.kind == "random"]
    signs = unpack(withheld, drawn, ids(ws, "train"))
    assert third.reads == len(drawn)
    assert third.judged == ((signs == 1).sum(), (signs == 0).sum())
    assert third.share == withheld["positives"] / withheld["kept"]
    # What was known when the round opened has not changed since.
    then = watches(ws, ws.config.alarm, number)
    assert [w.finding for w in then if is_paused(w, ws.config.alarm)] == ["Spot"]
    assert then[0].alarm is not None
    told = status_of(ws)["next"]
    assert f"pseudo-labels of Spot (paused): {sentence(then[0].alarm)}" in told
    assert then[0].alarm.round <= 2


@pytest.mark.parametrize("rules", [{"ignore": ["Spot"]}, {"pause": False}])
def test_an_engineer_overrides_a_pause(root, rules):
    ws = open_workspace(root)
    save_config(ws.config.changed(alarm=rules), root / CONFIG_FILE)
    ws.ledger.close()
    ws, room = toy.opened(root)
    number = run_round(ws, room)
    assert "Spot" in {p.finding for p in ws.ledger.pseudo_labels(number)}
    assert detail_of(ws, number, "pseudo-labels")["paused"] == {}
    (spot, *_) = watches(ws, ws.config.alarm)
    assert spot.alarm is not None  # it is still told
    assert not is_paused(spot, ws.config.alarm)


def test_all_paused_leaves_the_teacher_to_stand_in(tmp_path):
    """A binary task has one finding: there is nothing to learn from, and the round goes on."""
    ws, room = toy.opened(toy.make(tmp_path / "w", items=144, map={"methods": []}))
    task = ws.ledger.task
    for number in (1, 2):
        planted(ws, number)
    number = run_round(ws, room)
    assert ws.ledger.pseudo_labels(number) == []
    assert list(detail_of(ws, number, "pseudo-labels")["paused"]) == list(task.findings)
    detail = next(s.detail for s in ws.ledger.stages(number) if s.name == "intermediate")
    assert json.loads(detail)["stands_in"] == "teacher"
    assert ws.ledger.finished(number)


def test_exclusive_classes_lose_the_items_of_a_paused_class(monkeypatch, tmp_path):
    """An item needs its class: rows of the paused class go, other rows keep all their columns."""
    audit = RoundAudit(1, (0.95, math.nan), (9, 0), (9, 0), 0.4, 4, 9, 100)
    calm = (Watch(name, None, (), (), 0.0) for name in ("plain", "bar"))
    standing = [next(calm), watch("spot", [audit], Rules()), next(calm)]
    monkeypatch.setattr(pauses, "watches", lambda *_: standing)
    ws, _ = toy.opened(toy.make(tmp_path / "w", toy.TASKS["multi_class"]))
    round_ = Round(1, 0, 8, "margin", "teacher_student", ws.config.to_json())
    turn = replay(ws, round_, silent)
    kept = np.array([[1.0, 0, 0], [0, 1.0, 0], [np.nan] * 3, [0, 0, 1.0]])
    rest = np.full((len(turn.pool.ids) - 4, 3), np.nan)
    kept = np.concatenate([kept, rest])
    left, told = pauses.withhold(turn, kept, np.full(kept.shape, 1 / 3))
    np.testing.assert_array_equal(left[:4], [[1, 0, 0], [np.nan] * 3, [np.nan] * 3, [0, 0, 1]])
    assert told["withheld"]["spot"]["positives"] == 1


def test_signs_are_packed_and_unpacked():
    order = [f"i{k}" for k in range(1000)]
    signs = np.random.default_rng(0).choice([np.nan, 0.0, 1.0], 900)
    packed = pack(order[50:950], signs, order)
    np.testing.assert_array_equal(unpack(packed, order[50:950], order), signs)
    assert np.isnan(unpack(packed, order[:50], order)).all()
    assert packed["kept"] == (~np.isnan(signs)).sum()
    assert packed["positives"] == (signs == 1).sum()
    assert len(packed["signs"]) < 600


def test_mean_confidence_by_hand():
    signs, scores = np.array([1, 1, 0, np.nan]), np.array([0.9, 0.7, 0.2, 0.5])
    assert mean_confidence(signs, scores) == pytest.approx((0.8, 0.8))
    assert math.isnan(mean_confidence(np.array([1.0]), np.array([0.9]))[1])


def test_rules_have_ranges():
    with pytest.raises(ValueError, match="drift"):
        Rules(drift=1.0)
