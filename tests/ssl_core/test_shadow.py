"""The shadow control: what it learns from, its stages, and what its rounds are told by."""

from __future__ import annotations

import io
import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from app.rooms import archive_room
from app.status import status_of, status_table
from connectors.archive import ArchiveRoom
from ssl_core import metrics, rounds, shadow
from ssl_core.arms import arm_config, vault_scores
from ssl_core.claims.cost import spent
from ssl_core.claims.curve import CONTROL_OFF, label_cost
from ssl_core.claims.equal_budget import stand_ins
from ssl_core.claims.promotion import candidates
from ssl_core.errors import Cancelled, TrainingError
from ssl_core.evidence import compare
from ssl_core.probabilities import stage_model
from ssl_core.progress import silent
from ssl_core.recipes import RECIPES, Fit, Pretrain, PseudoLabel, plan
from ssl_core.records import CONTROL, Label, Pulled
from ssl_core.rounds import run_round
from ssl_core.simulate import simulate
from ssl_core.turn import Turn, replay
from ssl_core.workspace import part
from tests import toy
from tests.ssl_core.test_rounds import _kill_at, _StopInside
from tests.toy import copied

TABLES = {
    "items": 144,
    "selection": {"query_size": 12, "random_share": 0.5},
    "map": {"methods": ()},
}
OWN = ["teacher", "pseudo-labels", "intermediate", "student"]
SHADOWS = [f"control {stage}" for stage in OWN]


@pytest.fixture(scope="module")
def one_round(tmp_path_factory) -> Path:
    root = toy.make(tmp_path_factory.mktemp("toy") / "w", **TABLES)
    run_round(*toy.opened(root))
    return root


@pytest.fixture(scope="module")
def finished(one_round, tmp_path_factory) -> Path:
    """Four rounds: 12, 24 and 36 training labels, of which 6, 12 and 18 by chance."""
    root = copied(one_round, tmp_path_factory.mktemp("toy") / "w")
    for _ in range(3):
        run_round(*toy.opened(root))
    return root


def turn_of(root: Path, number: int):
    ws, _ = toy.opened(root)
    return replay(ws, ws.ledger.rounds()[number - 1], silent)


def evaluated(ledger, number: int) -> dict:
    return next(json.loads(s.detail) for s in ledger.stages(number) if s.name == "evaluate")


# What it learns from


def test_its_labels_are_of_the_random_slices_alone(finished):
    for number, expected in ((2, 6), (3, 12), (4, 18)):
        turn = turn_of(finished, number)
        found = shadow.shadow_of(turn)
        ledger = turn.workspace.ledger
        drawn = {s.item_id for n, s in ledger.selected(number) if s.kind == "random"}
        assert set(found.labeled.ids) == drawn
        assert len(drawn) == expected
        assert set(found.pool.ids) == set(turn.train.ids) - drawn
        kept = turn.train.where(turn.by_chance)
        np.testing.assert_array_equal(found.labeled.labels, kept.labels)
        assert found.validation is turn.validation


def test_imported_labels_are_taken_for_random_ones(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    ws, room = toy.opened(root)
    asked = {s.item_id for s in ws.ledger.selections(1)}
    known = [i.id for i in ws.ledger.items("train") if i.id not in asked][:3]
    ws.ledger.add_labels([Label(i, "Spot", 1.0, "importer", "import", f"k{i}") for i in known])
    run_round(ws, room)
    drawn = {s.item_id for s in ws.ledger.selections(1) if s.kind == "random"}
    found = shadow.shadow_of(turn_of(root, 2))
    assert set(found.labeled.ids) == drawn | set(known)
    assert evaluated(ws.ledger, 2)["control"]["labels"] == 9


def test_it_is_the_model_of_readers_who_answered_the_random_slice_alone(tmp_path, monkeypatch):
    """The same weights, bit for bit, once both draw from the same seeds."""
    seed = Turn.seed
    monkeypatch.setattr(Turn, "seed", lambda own, stage: seed(own, stage.removeprefix("control ")))
    made = {}
    for name, kinds in (("all", {"random", "strategy"}), ("slice", {"random"})):
        ws, room = toy.opened(toy.make(tmp_path / name, **TABLES))
        run_round(ws, room)
        asked = {s.item_id for s in ws.ledger.selections(1)}
        told = {s.item_id for s in ws.ledger.selections(1) if s.kind in kinds}
        run_round(ws, _Room(ws.ledger.answers, asked - told))
        made[name] = {m.stage: m.id for _, m in ws.ledger.models(2, control=True)}
    assert set(made["slice"]) == {"teacher", "intermediate", "student"}
    for stage, model_id in made["slice"].items():
        assert made["all"][f"control {stage}"] == model_id != made["all"][stage]


class _Room(ArchiveRoom):
    """A reader who leaves these items for later."""

    def __init__(self, answers, left):
        super().__init__(answers)
        self.left = left

    def pull(self, bookmark):
        for page in super().pull(bookmark):
            yield Pulled(tuple(read for read in page.reads if read.item_id not in self.left))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_has_a_shadow_with_stages_of_its_own(name):
    recipe = plan({"name": name})
    found = shadow.renamed(recipe)
    pretrained = {s.name for s in recipe.stages if isinstance(s, Pretrain)}
    made = set()
    for ours, theirs in zip(recipe.stages, found.stages, strict=True):
        if isinstance(ours, Pretrain):
            assert theirs is ours
            continue
        assert theirs.name == f"control {ours.name}"
        given = {"start", "otherwise", "teacher"} & set(type(ours).__slots__)
        for wanted in filter(None, (getattr(theirs, field) for field in given)):
            assert wanted in made | pretrained
        if isinstance(ours, PseudoLabel):
            same = replace(theirs, name=ours.name, teacher=ours.teacher)
        else:
            assert theirs.on in {None, "labels"} | made
            back = {f: getattr(ours, f) for f in ("name", "on", "start", "otherwise", "teacher")}
            same = replace(theirs, **back)
        assert same == ours
        made.add(theirs.name)
    assert not made & {s.name for s in recipe.stages}
    assert found.fits[-1].name == shadow.shadow_name(recipe.fits[-1].name)
    assert all(isinstance(f, Fit) for f in found.fits)


# A stage like any other


def test_the_control_is_trained_before_the_one_look_into_the_vault(finished):
    ledger = toy.opened(finished)[0].ledger
    for number in (2, 3, 4):
        stages = ledger.stages(number)
        assert [s.name for s in stages] == [*OWN, *SHADOWS, "evaluate", "select"]
        assert {s.kind for s in stages if s.name in SHADOWS} == {"control"}
    looks = ledger.vault_looks()
    assert [look.round for look in looks] == [2, 3, 4]
    assert {look.purpose for look in looks} == {"measure teacher, intermediate, student, control"}


def test_nobody_is_offered_its_models_or_pseudo_labels(finished):
    ws, _ = toy.opened(finished)
    assert [m.stage for _, m in ws.ledger.models(2)] == ["teacher", "intermediate", "student"]
    assert [m.stage for _, m in ws.ledger.models(2, control=True)][3:] == [
        "control teacher",
        "control intermediate",
        "control student",
    ]
    assert stage_model(ws, 2).stage == "student"
    assert {model.stage for _, model in candidates(ws)} == {"teacher", "intermediate", "student"}
    own, theirs = ws.ledger.pseudo_labels(2), ws.ledger.pseudo_labels(2, "control pseudo-labels")
    assert own == ws.ledger.pseudo_labels(2, "pseudo-labels")
    assert theirs
    drawn = {s.item_id for s in ws.ledger.selections(1) if s.kind == "random"}
    assert not {row.item_id for row in theirs} & drawn


def test_the_strategy_s_own_models_are_those_of_a_round_without_a_control(one_round, tmp_path):
    root, other = copied(one_round, tmp_path / "w"), copied(one_round, tmp_path / "v")
    ws, room = toy.opened(root)
    run_round(ws, room)
    bare, room = toy.opened(other)
    bare = replace(bare, config=bare.config.changed(selection={"control": "off"}))
    run_round(bare, room)
    assert [s.name for s in bare.ledger.stages(2)] == [*OWN, "evaluate", "select"]
    assert bare.ledger.models(2, control=True) == ws.ledger.models(2)
    assert bare.ledger.selections(2) == ws.ledger.selections(2)
    assert bare.ledger.pseudo_labels(2) == ws.ledger.pseudo_labels(2)
    own = [m for m in ws.ledger.measurements(2) if m[1].stage != CONTROL]
    assert repr(bare.ledger.measurements(2)) == repr(own)


@pytest.fixture(scope="module")
def undisturbed(one_round, tmp_path_factory) -> dict:
    root = copied(one_round, tmp_path_factory.mktemp("toy") / "w")
    run_round(*toy.opened(root))
    return toy.history(root)


def test_cancelled_inside_the_control_and_resumed_it_ends_the_same(
    one_round, undisturbed, tmp_path
):
    root = copied(one_round, tmp_path / "w")
    first = True
    for stage, skip in ((s, k) for s in (*SHADOWS, "evaluate") for k in (0, 2)):
        ws, room = toy.opened(root)
        with pytest.raises(Cancelled):
            run_round(
                ws, room, resume=not first, report=_StopInside(stage, min(skip, _most(stage)))
            )
        ws.ledger.close()
        first = False
    run_round(*toy.opened(root), resume=True)
    assert toy.history(root) == undisturbed


def _most(stage: str) -> int:
    return 0 if stage == "evaluate" else 1 if "pseudo" in stage else 2


def test_killed_with_kill_9_inside_the_control_it_ends_the_same(one_round, undisturbed, tmp_path):
    root = copied(one_round, tmp_path / "w")
    for stage, done in (("control teacher", 4), ("control student", 3)):
        _kill_at(root, stage, done)
    run_round(*toy.opened(root), resume=True)
    assert toy.history(root) == undisturbed


def test_a_past_round_replays_as_it_was(finished):
    """Its shadow is decided by what came before it, not by what was trained since."""
    for number in (2, 3, 4):
        turn = turn_of(finished, number)
        names = [name for name, _, _ in rounds._stages(turn)]
        assert names == [s.name for s in turn.workspace.ledger.stages(number)]


def test_a_control_that_cannot_be_trained_takes_no_round_along(one_round, tmp_path, monkeypatch):
    root, (kind, fit) = copied(one_round, tmp_path / "w"), rounds.WORK[Fit]

    def diverges(turn, stage):
        if stage.name == "control intermediate":
            raise TrainingError("control intermediate: the loss is not finite.")
        return fit(turn, stage)

    monkeypatch.setitem(rounds.WORK, Fit, (kind, diverges))
    ws, room = toy.opened(root)
    run_round(ws, room)
    told = {s.name: json.loads(s.detail) for s in ws.ledger.stages(2)}
    assert "control" not in told["evaluate"]
    failed = {"failed": "control intermediate: the loss is not finite."}
    assert told["control intermediate"] == told["control student"] == failed
    assert CONTROL not in {m.stage for _, m in ws.ledger.measurements(2)}
    assert len(ws.ledger.selections(2)) == 12
    monkeypatch.undo()
    run_round(ws, room)
    assert evaluated(ws.ledger, 3)["control"]["labels"] == 12


# When it is trained


def test_it_is_trained_again_when_the_random_labels_have_grown_by_a_quarter(finished, monkeypatch):
    turn = turn_of(finished, 4)  # 18 now, 12 at the last control
    monkeypatch.setattr(shadow, "GROWTH", 1.5)
    assert shadow.shadow_of(turn) is not None
    monkeypatch.setattr(shadow, "GROWTH", 1.51)
    assert shadow.shadow_of(turn) is None
    longer = replace(
        turn.round, config=turn.config.changed(recipe={"name": "supervised"}).to_json()
    )
    assert shadow.shadow_of(replace(turn, round=longer)) is not None  # another recipe: afresh


def test_random_has_no_shadow_but_itself(tmp_path):
    chosen = {"query_size": 12, "strategy": "random", "cold_start": "random"}
    root = toy.make(tmp_path / "w", **{**TABLES, "selection": chosen})
    run_round(*toy.opened(root))
    run_round(*toy.opened(root))
    assert shadow.shadow_of(turn_of(root, 2)) is None


def test_labels_of_one_side_make_no_control(one_round):
    turn = turn_of(one_round, 1)
    assert shadow.shadow_of(turn) is None
    labels = np.full_like(turn.train.labels, np.nan)
    labels[:4] = [[1], [0], [1], [1]]
    one_sided = replace(turn, train=replace(turn.train, labels=labels))
    assert shadow.shadow_of(one_sided) is None


def test_arms_have_none_and_keep_their_names(tmp_path):
    ws, _ = toy.opened(toy.make(tmp_path / "w", **TABLES))
    found = simulate(ws, archive_room, budgets=[12, 24], strategies=["margin"], seeds=[0])
    assert set(found.cells[0].stages) == {"teacher", "intermediate", "student"}
    for path in (ws.root / "simulations").glob("*/*/ledger.db"):
        with sqlite3.connect(path) as ledger:
            kinds = {kind for (kind,) in ledger.execute("SELECT DISTINCT kind FROM stages")}
        assert "control" not in kinds
    arm = arm_config(ws.config, "margin", 0)
    assert (arm.selection.control, arm.selection.fall_back_after) == ("off", 0)
    assert arm.digest() == arm.changed(selection={"control": "grown"}).digest()


# What it is told by


def test_the_difference_is_that_of_the_models_at_equal_budgets(finished):
    """36 labels of which 18 by chance: against the models at 12 and 24 labels, on both splits."""
    ws, _ = toy.opened(finished)
    assert evaluated(ws.ledger, 2)["control"] == {"labels": 6, "against": []}
    assert evaluated(ws.ledger, 3)["control"] == {"labels": 12, "against": [[2, 1.0]]}
    weights = stand_ins(18, {2: 12, 3: 24, 4: 36})
    assert dict(evaluated(ws.ledger, 4)["control"]["against"]) == weights
    assert set(weights) == {2, 3}
    found = {
        (n, m.split, m.finding): m
        for n, m in ws.ledger.measurements()
        if (m.stage, m.name) == (CONTROL, "difference")
    }
    assert {n for n, _, _ in found} == {3, 4}
    looked = ws.ledger.look_into_vault(3, "a test", "recompute")
    vault = part(ws.ledger.items("vault"), looked, ("Spot",), ws.images)
    groups = np.array(vault.groups)
    ours, theirs = (
        metrics.auroc(vault_scores(ws, n)[name], vault.labels, groups)
        for n, name in ((2, "student"), (3, "control"))
    )
    expected, got = compare(ours, theirs).macro, found[3, "vault", "macro"]
    assert (got.value, got.low, got.high) == (expected.value, expected.low, expected.high)
    assert found[3, "validation", "Spot"].n == 24
    values = {
        (n, m.stage): m.value
        for n, m in ws.ledger.measurements()
        if (m.split, m.name, m.finding) == ("vault", "auroc", "macro")
    }
    mean = sum(w * values[n, "student"] for n, w in weights.items())
    assert found[4, "vault", "macro"].value == pytest.approx(mean - values[4, CONTROL])


def test_status_says_how_the_strategy_stands_and_with_how_many_labels(finished):
    ws, _ = toy.opened(finished)
    found = next(
        m
        for _, m in ws.ledger.measurements(4)
        if (m.stage, m.name, m.split, m.finding) == (CONTROL, "difference", "validation", "macro")
    )
    status = status_of(ws)
    assert (
        "With as many labels as the shadow control of round 4 (18 random labels), the strategy's "
        f"models had {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] AUROC on validation "
        "more than it."
    ) in status["next"]
    assert [one["control_labels"] for one in status["rounds"]] == [None, 6, 12, 18]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(status_table(status))
    assert "control, 12 labels" in console.export_text()


def test_status_says_that_nothing_compares_yet(one_round, tmp_path):
    ws, room = toy.opened(copied(one_round, tmp_path / "w"))
    run_round(ws, room)
    assert "(6 random labels) cannot be held against the strategy yet" in status_of(ws)["next"]


def test_a_student_whose_files_are_gone_costs_the_comparison_alone(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    ws, room = toy.opened(root)
    run_round(ws, room)
    model = stage_model(ws, 2)
    (root / model.path).unlink()
    for path in (root / "probabilities").glob(f"{model.id}*"):
        path.unlink()
    run_round(ws, room)
    told = evaluated(ws.ledger, 3)["control"]
    assert (told["labels"], told["against"]) == (12, [])
    assert "is missing" in told["not_compared"]
    stages = {m.stage for _, m in ws.ledger.measurements(3)}
    assert CONTROL in stages


def test_its_line_stands_at_its_own_number_of_labels(finished):
    ws, _ = toy.opened(finished)
    looks = ws.ledger.vault_looks()
    curve = label_cost(ws)
    line, student = curve.line("control"), curve.line("student")
    assert [(p.round, p.labels) for p in line.points] == [(2, 6), (3, 12), (4, 18)]
    assert [p.labels for p in student.points] == [12, 24, 36]
    assert {(p.hours, p.money) for p in line.points} == {(None, None)}
    assert (line.strategy, line.stage, line.seeds) == ("random", "control", 1)
    assert CONTROL not in {x.stage for x in curve.lines if x.role != "control"}
    assert curve.no_control == ""
    measured = {
        n: m.value
        for n, m in ws.ledger.measurements()
        if (m.stage, m.split, m.name, m.finding) == (CONTROL, "vault", "auroc", "macro")
    }
    assert {p.round: p.auroc.value for p in line.points} == measured
    assert all(0 <= p.auroc.low <= p.auroc.value <= p.auroc.high <= 1 for p in line.points)
    assert ws.ledger.vault_looks() == looks
    assert not any(math.isnan(p.auroc.value) for p in line.points)


def test_a_workspace_whose_control_is_off_says_so(one_round):
    ws, _ = toy.opened(one_round)
    off = replace(ws, config=ws.config.changed(selection={"control": "off"}))
    assert label_cost(off).no_control == CONTROL_OFF


def test_evaluation_is_counted_apart_and_the_control_costs_no_label(finished):
    ws, _ = toy.opened(finished)
    at = spent(ws.ledger, ws.config, [4])[0]
    assert (at.train.labels, at.validation.labels, at.vault.labels) == (36, 24, 48)
