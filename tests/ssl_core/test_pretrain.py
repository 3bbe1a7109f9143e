"""Features without labels: computed once for a workspace, and again when anything changes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ssl_core import pretrain
from ssl_core.errors import Cancelled
from ssl_core.pretrain import pretrained
from ssl_core.progress import silent
from ssl_core.recipes import Pretrain
from ssl_core.rounds import run_round
from ssl_core.turn import replay
from tests import toy
from tests.ssl_core.recipes.test_recipe_rounds import short
from tests.training import differing, weights


def workspace(root, **tables):
    return toy.opened(toy.make(root, recipe=short("simclr_v2"), **tables))


def turn_of(ws, **changes):
    """A round of the workspace, opened and not run, and its pretraining stage."""
    round_ = ws.ledger.rounds()[-1]
    turn = replay(ws, round_, silent)
    (stage,) = [s for s in turn.plan.stages if isinstance(s, Pretrain)]
    return replace(turn, **changes), stage


@pytest.fixture
def ready(tmp_path):
    ws, room = workspace(tmp_path / "w")
    run_round(ws, room, query_size=20)
    return ws, room


def artefacts(ws):
    return sorted(ws.images.folder.glob("pretrained-*"))


def told(ws, number):
    stage = next(s for s in ws.ledger.stages(number) if s.kind == "pretrain")
    return json.loads(stage.detail)


def test_rounds_and_seeds_share_it_and_say_so(ready, monkeypatch):
    ws, room = ready
    first = run_round(ws, room)
    monkeypatch.setattr(pretrain, "fit", None)  # nothing is trained again
    second = run_round(replace(ws, config=ws.config.changed(seed=5)), room)
    assert told(ws, first) == told(ws, second)
    assert [p.name for p in artefacts(ws)] == [f"pretrained-{told(ws, first)['artefact']}"]
    assert told(ws, first)["items"] == 36  # the whole train pool, labeled or not
    assert len(told(ws, first)["losses"]) == 2
    assert not list(ws.images.folder.rglob("*.pt"))
    stages = {m.stage for _, m in ws.ledger.models(first)}
    assert stages == {"finetuned", "student"}  # it gives no scores: it is no model of the round


def test_another_pool_configuration_or_network_is_another_artefact(ready):
    ws, _ = ready
    turn, stage = turn_of(ws)
    fewer = turn.train.where(turn.train.rows != turn.train.rows[3])
    longer = replace(stage, schedule=stage.schedule.model_copy(update={"epochs": 3}))
    names = [
        pretrained(*one).name
        for one in (
            (turn, stage),
            (replace(turn, train=fewer), stage),
            (turn, longer),
            (turn, replace(stage, views=stage.views[:1] * 2, layers=1)),
        )
    ]
    assert len(set(names)) == 4
    assert pretrained(turn, stage).name == names[0]


def test_labels_and_seeds_are_not_looked_at(ready):
    ws, _ = ready
    turn, stage = turn_of(ws)
    other = replace(turn, round=replace(turn.round, seed=77),
                    train=replace(turn.train, labels=1 - turn.train.labels))  # fmt: skip
    assert pretrained(other, stage).name == pretrained(turn, stage).name


def test_killed_and_resumed_it_ends_with_the_same_bits(ready, tmp_path):
    ws, _ = ready
    turn, stage = turn_of(ws)

    def stop(event):
        if event.done == 4:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        pretrained(replace(turn, report=stop), stage)
    steps = []
    resumed = pretrained(replace(turn, report=lambda e: steps.append(e.done)), stage)
    assert steps[0] == 5
    (folder,) = artefacts(ws)
    folder.rename(tmp_path / "aside")
    whole = pretrained(turn, stage)
    assert differing(weights(resumed.network), weights(whole.network)) == []
    assert whole.losses == resumed.losses


@pytest.mark.parametrize("harm", ["mark", "weights", "half"])
def test_a_damaged_artefact_is_made_again(ready, harm):
    ws, _ = ready
    turn, stage = turn_of(ws)
    before = weights(pretrained(turn, stage).network)
    (folder,) = artefacts(ws)
    (file,) = folder.glob("*.safetensors")
    if harm == "mark":
        (folder / "done.json").write_text("{")
    elif harm == "weights":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    assert differing(before, weights(pretrained(turn, stage).network)) == []


def test_it_learns_to_tell_images_apart(ready):
    ws, _ = ready
    turn, stage = turn_of(ws)
    lengths = {
        "epochs": 8,
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "warmup": 0,
        "batch_size": 36,
    }
    found = pretrained(turn, replace(stage, schedule=stage.schedule.model_copy(update=lengths)))
    assert found.losses[-1] < 0.9 * found.losses[0]


def test_the_student_may_be_another_network(tmp_path):
    ws, room = toy.opened(
        toy.make(
            tmp_path / "w", recipe={**short("simclr_v2"), "student_backbone": "mobilenet_v3_small"}
        )
    )
    run_round(ws, room, query_size=20)
    number = run_round(ws, room)
    made = {m.stage: m.backbone for _, m in ws.ledger.models(number)}
    assert made == {"finetuned": "small_cnn", "student": "mobilenet_v3_small"}
    student = ws.load(ws.ledger.models(number)[-1][1])
    assert student(torch.rand(2, 1, 16, 16)).logits.isfinite().all()
