"""The model in use: which one it is, where it decides, and what it says of items."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ssl_core.claims.promotion import gate, in_use
from ssl_core.errors import WorkspaceError
from ssl_core.metrics import choose_thresholds
from ssl_core.readers.hints import hints_for
from ssl_core.records import Measurement, Model
from ssl_core.rounds import abandon_round, run_round
from ssl_core.student import find_student, operating_point, present
from ssl_core.training.predict import Device, predict
from ssl_core.workspace import part
from tests import toy
from tests.ledger_records import round_, stage


@pytest.fixture(scope="module", params=["multi_label", "multi_class"])
def trained(request, tmp_path_factory):
    """An archive after two rounds: the second has trained."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "w", toy.TASKS[request.param])
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    run_round(workspace, room)
    return workspace


def test_there_is_no_student_before_a_round_has_trained(tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(workspace, room)
    assert find_student(workspace) is None
    assert hints_for(workspace, ["0" * 32]) == {}
    with pytest.raises(WorkspaceError, match=r"no trained model yet: run `readloop round "):
        in_use(workspace)


def test_the_model_in_use_is_the_last_of_its_round(trained):
    """The student where it passed the gate against its teacher, and else the teacher."""
    number, model = in_use(trained)
    models = {m.stage: m for _, m in trained.ledger.models(2)}
    assert find_student(trained) == (2, models["student"])
    stage = next(s for s in trained.ledger.stages(2) if s.name == "evaluate")
    held = json.loads(stage.detail)["gate"]
    verdict = gate(trained, (2, models["student"]), (2, models["teacher"]))
    assert held["against"] == "teacher"
    for key in ("difference", "low", "high"):
        assert held[key] == pytest.approx(getattr(verdict, key), abs=1e-6, nan_ok=True)
    assert (number, model) == (2, models["student" if verdict.passes else "teacher"])


def test_the_student_takes_over_where_the_margin_allows(trained):
    config = trained.config.changed(promotion={"margin": 1.0})
    assert in_use(replace(trained, config=config))[1].stage == "student"


def test_its_thresholds_are_those_that_validation_chose(trained):
    _, model = in_use(trained)
    task, items = trained.ledger.task, trained.ledger.items("validation")
    validation = part(items, trained.ledger.labels(2), task.findings, trained.images)
    scores = predict(
        trained.load(model),
        trained.images.array,
        validation.rows,
        exclusive=task.exclusive,
        device=Device("cpu", 32, False),
        tta="flip",
    ).probabilities
    chosen = choose_thresholds(scores.astype(float), validation.labels, rule="accuracy")
    assert operating_point(trained, 2, model.stage) == pytest.approx(chosen.tolist())
    assert len(chosen) == len(task.findings)


def test_hints_are_the_students_opinion_in_the_order_asked(trained):
    number, model = in_use(trained)
    task = trained.ledger.task
    ids = [item.id for item in trained.ledger.items()][11:4:-1]
    hints = hints_for(trained, ids)
    assert list(hints) == ids
    thresholds = operating_point(trained, number, model.stage)
    scores = predict(
        trained.load(model),
        trained.images.array,
        trained.images.positions(ids),
        exclusive=task.exclusive,
        device=Device("cpu", 32, False),
        tta="flip",
    ).probabilities
    for item_id, row in zip(ids, scores, strict=True):
        shown = hints[item_id]
        assert [h.finding for h in shown] == list(task.findings)
        assert {(h.item_id, h.model_id) for h in shown} == {(item_id, model.id)}
        np.testing.assert_allclose([h.score for h in shown], row, rtol=1e-5)
        expected = (
            (row == row.max()).astype(float)
            if task.exclusive
            else (row >= thresholds).astype(float)
        )
        assert [h.value for h in shown] == expected.tolist()
    assert hints_for(trained, []) == {}


def test_what_is_present_by_hand():
    assert present([0.2, 0.5, 0.5], [0.2, 0.6, 0.5], False) == [True, False, True]
    assert present([0.1, 0.3, 0.3], [0.0, 0.0, 0.0], True) == [False, True, False]  # one alone


def test_a_round_that_was_given_up_or_is_unfinished_has_no_student(tmp_path):
    workspace, _ = toy.opened(toy.make(tmp_path / "w"))
    ledger = workspace.ledger

    def made(number: int, *, measured: bool) -> None:
        ledger.open_round(round_(number))
        model = Model(f"m-{number}", "student", "small_cnn", "models/m.safetensors")
        ledger.add_stage(stage(number, "student"), models=[model])
        if measured:
            value = Measurement(model.id, "student", "vault", "macro", "auroc", 0.5, 0.4, 0.6, 9)
            ledger.add_stage(stage(number, "evaluate", 1), measurements=[value])

    made(1, measured=True)
    assert find_student(workspace) is None
    ledger.finish_round(1, json.dumps({}))
    assert in_use(workspace)[1].id == "m-1"
    made(2, measured=False)
    assert in_use(workspace)[0] == 1
    assert abandon_round(workspace) == 2
    assert in_use(workspace)[0] == 1
