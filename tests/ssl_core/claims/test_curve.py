"""The label-cost curve: from measurements by hand, and from arms that were really replayed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rooms import archive_room
from connectors.archive import ArchiveRoom
from ssl_core.claims.curve import NO_CONTROL, label_cost, reach, supervised_stage
from ssl_core.evidence import mean_of_shares
from ssl_core.records import Assignment, Read
from ssl_core.rounds import run_round
from ssl_core.simulate import simulate
from tests import toy
from tests.rounds_by_hand import add, auroc, ids, made, model, open_round, take, trained

# Where a line reaches a value


def test_reach_by_hand():
    assert reach([10, 20, 40], [0.6, 0.8, 0.9], 0.7) == pytest.approx(math.sqrt(200))
    assert reach([10, 20, 40], [0.6, 0.8, 0.9], 0.875) == pytest.approx(20 * 2**0.75)
    assert reach([10, 20, 40], [0.6, 0.8, 0.9], 0.8) == pytest.approx(20)
    assert reach([10, 20], [0.6, 0.8], 0.5) == 10  # so few or fewer
    assert reach([10, 20], [0.6, 0.8], 0.81) == math.inf
    assert reach([10, 20, 40], [0.6, 0.5, 0.9], 0.6) == 10  # the first time counts
    assert reach([10, 20, 40], [0.5, math.nan, 0.9], 0.7) == pytest.approx(20)
    assert math.isnan(reach([10, 20], [math.nan, math.nan], 0.7))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_target_never_needs_fewer_labels(values, one, other):
    budgets = [10 * (k + 1) for k in range(len(values))]
    low, high = sorted((one, other))
    assert reach(budgets, values, low) <= reach(budgets, values, high)


# A workspace's own rounds


@pytest.fixture
def ws(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url, cost={"per_hour": 60.0, "currency": "CHF"})
    yield ws
    ws.ledger.close()


def read(ws, *item_ids, seconds=30.0):
    ws.ledger.reading.assign([Assignment(i, "ann", 0, 0) for i in item_ids])
    answers = (("Spot", 1.0),)
    told = [Read(f"k{i}", i, "ann", "label_studio", "read", answers, "", seconds) for i in item_ids]
    take(ws.ledger, *told)


def test_an_empty_workspace_has_no_line_and_says_why_there_is_no_control(ws):
    curve = label_cost(ws)
    assert (curve.lines, curve.spent, curve.findings) == ((), (), ("macro",))
    assert curve.no_control == NO_CONTROL
    assert curve.now.train.labels == 0


def test_measurements_stand_against_what_was_spent_when_their_round_opened(ws):
    train = ids(ws, "train")
    read(ws, *train[:4])
    trained(ws, 1, t1=0.7, s1=0.75)
    read(ws, *train[4:10])
    trained(ws, 2, t2=0.8, s2=0.85)
    read(ws, train[10])
    curve = label_cost(ws)
    student, teacher = curve.line("student"), curve.line("supervised")
    assert [(p.round, p.labels, p.auroc.value) for p in student.points] == [
        (1, 4, 0.75),
        (2, 10, 0.85),
    ]
    assert [(p.auroc.value, p.auroc.low, p.auroc.n) for p in teacher.points] == [
        (0.7, pytest.approx(0.6), 24),
        (0.8, pytest.approx(0.7), 24),
    ]
    assert [p.hours for p in student.points] == pytest.approx([4 / 120, 10 / 120])
    assert [p.money for p in student.points] == pytest.approx([2.0, 5.0])
    assert (curve.currency, curve.now.train.labels, curve.no_control) == ("CHF", 11, NO_CONTROL)
    assert len(ws.ledger.vault_looks()) == 0  # what was measured is read, and not measured again


def test_open_rounds_and_other_numbers_are_not_on_the_curve(ws):
    read(ws, *ids(ws, "train")[:4])
    trained(ws, 1, t1=0.7, s1=0.75)
    open_round(ws.ledger, 2, ws.config.to_json())
    one = model("s2")
    values = [auroc(one, "vault", 0.99), auroc(one, "vault", 0.5, name="brier")]
    add(ws.ledger, 2, "evaluate", models=[one], measurements=values)
    assert [p.round for p in label_cost(ws).line("student").points] == [1]
    ws.ledger.finish_round(2, "{}")
    points = label_cost(ws).line("student").points
    assert [(p.round, p.auroc.value) for p in points] == [(1, 0.75), (2, 0.99)]


def test_each_finding_has_its_line(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url, "multi_label")
    open_round(ws.ledger, 1, ws.config.to_json())
    one = model("s1")
    values = [auroc(one, "vault", v, finding=f) for f, v in (("Spot", 0.9), ("macro", 0.8))]
    add(ws.ledger, 1, "evaluate", models=[one], measurements=values)
    ws.ledger.finish_round(1, "{}")
    curve = label_cost(ws)
    assert curve.findings == ("macro", "Spot", "Bar", "Rare")
    assert curve.line("student", finding="Spot").points[0].auroc.value == 0.9
    assert curve.line("student", finding="Bar") is None
    ws.ledger.close()


def test_which_stage_learned_from_labels_alone():
    assert supervised_stage({"name": "teacher_student", "generations": 2}) == "teacher"
    assert supervised_stage({"name": "supervised"}) == "student"


# What was replayed


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """An archive, replayed with two seeds, and with one seed in other steps."""
    ws, _ = toy.opened(toy.make(tmp_path_factory.mktemp("toy") / "w"))
    found = simulate(ws, archive_room, budgets=[8, 16], strategies=["margin"], seeds=[0, 1])
    simulate(ws, archive_room, budgets=[12], strategies=[], seeds=[0])
    return ws, found


def test_arms_become_lines_with_the_means_that_simulate_reports(replayed):
    ws, found = replayed
    curve = label_cost(ws)
    assert curve.no_control == ""
    assert {line.origin for line in curve.lines} == {"replay"}
    for strategy, role in (("margin", "student"), ("random", "control")):
        line = curve.line(role, "replay")
        rows = [r for r in found.rows if r.strategy == strategy]
        assert (line.strategy, line.stage, line.seeds) == (strategy, "student", 2)
        assert [p.labels for p in line.points] == [r.labels["train"] for r in rows] == [8, 16]
        for point, row in zip(line.points, rows, strict=True):
            assert (point.hours, point.money) == (None, None)
            assert repr(point.auroc) == repr(row.score["student"])
            cells = [c for c in found.cells if (c.strategy, c.budget) == (strategy, row.budget)]
            values = [c.stages["student"]["auroc"].value for c in cells]
            assert repr(point.auroc) == repr(mean_of_shares(values))


def test_arms_of_another_recipe_are_not_the_control_of_this_workspace(replayed):
    ws, _ = replayed
    longer = toy.RECIPE | {"keep_fraction": 0.5}
    assert label_cost(replace(ws, config=ws.config.changed(recipe=longer))).lines == ()
    other = ws.config.changed(selection={"strategy": "entropy"}, seed=9, cost={"per_hour": 1.0})
    assert label_cost(replace(ws, config=other)).line("control", "replay") is not None


def test_a_curve_takes_no_look_into_the_vault(replayed, tmp_path):
    ws, _ = toy.opened(toy.make(tmp_path / "w"))
    room = ArchiveRoom(ws.ledger.answers)
    run_round(ws, room)
    run_round(ws, room)
    looks = ws.ledger.vault_looks()
    point = label_cost(ws).line("student").points[-1]
    stored = {
        (m.value, m.low, m.high, m.n)
        for _, m in ws.ledger.measurements(2)
        if (m.split, m.name, m.finding, m.stage) == ("vault", "auroc", "macro", "student")
    }
    assert stored == {(point.auroc.value, point.auroc.low, point.auroc.high, point.auroc.n)}
    assert ws.ledger.vault_looks() == looks
