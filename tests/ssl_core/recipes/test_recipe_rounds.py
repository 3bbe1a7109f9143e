"""Every recipe in the loop: it trains, is killed and resumed, replays, and learns the toy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssl_core.errors import Cancelled, ConfigError
from ssl_core.recipes import RECIPES, plan
from ssl_core.rounds import run_round
from ssl_core.training.schedule import Schedule
from tests import toy

EVERY = pytest.mark.parametrize("name", sorted(RECIPES))


def short(name, **changes):
    """A recipe's table with every one of its schedules cut short."""
    lengths = {"epochs": 2, "epoch_steps": 3, "batch_size": 8, **changes}
    fields = RECIPES[name][0].model_fields
    table = {
        key: {**field.default.model_dump(), **lengths}
        for key, field in fields.items()
        if field.annotation is Schedule
    }
    return {"name": name, "tta": "flip", "augmentation": toy.RECIPE["augmentation"], **table}


def with_one_round(root: Path, name: str, task: str, **changes) -> Path:
    workspace, room = toy.opened(toy.make(root, toy.TASKS[task], recipe=short(name, **changes)))
    run_round(workspace, room, query_size=20)
    return root


def told(root: Path):
    history = toy.history(root)
    history["rounds"] = [row[:-1] for row in history["rounds"]]  # the configuration names the root
    return history


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((name, "multi_label") for name in sorted(RECIPES)),
        ("teacher_student", "binary"),
        ("teacher_student", "multi_class"),
        ("s2mts2", "multi_class"),
    ],
)
def test_killed_in_every_stage_and_resumed_it_ends_the_same(name, task, tmp_path):
    root = with_one_round(tmp_path / "w", name, task)
    subprocess.run(["cp", "-r", root, tmp_path / "again"], check=True)
    subprocess.run(["cp", "-r", root, tmp_path / "killed"], check=True)
    events = []
    run_round(*toy.opened(root), report=lambda event: events.append(event.stage))
    run_round(*toy.opened(tmp_path / "again"))
    assert told(tmp_path / "again") == told(root)  # it replays
    for position, stage in enumerate(dict.fromkeys(events)):
        left = [(events.count(stage) + 1) // 2]  # in its middle

        def stop(event, stage=stage, left=left):
            left[0] -= event.stage == stage
            if left[0] == 0:
                raise Cancelled("stopped by the test")

        with pytest.raises(Cancelled):
            run_round(*toy.opened(tmp_path / "killed"), resume=position > 0, report=stop)
    run_round(*toy.opened(tmp_path / "killed"), resume=True)
    assert told(tmp_path / "killed") == told(root)


@EVERY
def test_another_seed_gives_another_student(name, tmp_path):
    roots = [with_one_round(tmp_path / "w", name, "binary")]
    workspace, room = toy.opened(toy.make(tmp_path / "o", recipe=short(name), seed=1))
    run_round(workspace, room, query_size=20)
    roots.append(tmp_path / "o")
    students = []
    for root in roots:
        workspace, room = toy.opened(root)
        number = run_round(workspace, room)
        students.append(workspace.ledger.models(number)[-1][1].id)
    assert students[0] != students[1]


def auroc(root: Path, name: str) -> float:
    lengths = {"epochs": 5, "epoch_steps": 10, "optimizer": "adamw", "learning_rate": 3e-3}
    root = with_one_round(root, name, "binary", **lengths)
    workspace, room = toy.opened(root)
    number = run_round(workspace, room, query_size=0)
    return next(
        m.value
        for _, m in workspace.ledger.measurements(number)
        if (m.stage, m.split, m.name, m.finding) == ("student", "vault", "auroc", "macro")
    )


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> float:
    return auroc(tmp_path_factory.mktemp("baseline") / "w", "supervised")


@EVERY
def test_a_student_does_not_fall_far_below_the_supervised_one(name, baseline, tmp_path):
    got = auroc(tmp_path / "w", name)
    assert np.isfinite(got)
    assert got > baseline - 0.15, f"{name} {got:.3f}, supervised {baseline:.3f}"


def test_mean_teacher_runs_on_cached_stems(tmp_path):
    table = short("mean_teacher", frozen_blocks=3, frozen_norm=True) | {"cache_stem": True}
    workspace, room = toy.opened(toy.make(tmp_path / "w", recipe=table))
    run_round(workspace, room, query_size=20)
    number = run_round(workspace, room)
    assert [m.stage for _, m in workspace.ledger.models(number)] == ["student"]
    assert list(workspace.images.folder.glob("stems-*"))


def cached(name: str, views: int) -> dict:
    table = short(name, frozen_blocks=3, frozen_norm=True)
    return table | {"cache_stem": True, "stem_views": views, "tta": "flip"}


@EVERY
def test_every_recipe_runs_on_views_that_were_drawn_beforehand(name, tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w", recipe=cached(name, 6)))
    run_round(workspace, room, query_size=20)
    number = run_round(workspace, room)
    trained = plan(workspace.config.recipe)
    assert [m.stage for _, m in workspace.ledger.models(number)] == [f.name for f in trained.fits]
    kept = [path.stat().st_size for path in workspace.images.folder.glob("views-*/stems.f16")]
    pool = len(workspace.ledger.items("train"))
    assert len(kept) == len(trained.banked) > 0
    assert {size // pool for size in kept} == {6 * 64 * 2 * 2 * 2}


@pytest.mark.parametrize("name", ["fixmatch", "simclr_v2", "s2mts2"])
def test_other_views_than_the_mirror_are_refused_unless_they_are_drawn(name):
    with pytest.raises(ConfigError, match=f"recipe {name}: cache_stem shows an image and its mirr"):
        plan(cached(name, 0))


def test_stems_are_of_one_network():
    table = cached("simclr_v2", 4) | {"student_backbone": "resnet18"}
    with pytest.raises(ConfigError, match="cache_stem is of one network and a stage has another"):
        plan(table)


def test_a_step_cannot_compare_more_views_than_were_drawn():
    assert plan(cached("s2mts2", 6)).stem_views == 6
    with pytest.raises(ConfigError, match="stem_views = 5 and a step compares 6 views of an im"):
        plan(cached("s2mts2", 5))


def test_a_student_that_does_not_exist_is_refused_before_the_round_opens(tmp_path):
    table = short("simclr_v2") | {"student_backbone": "resnet19"}
    workspace, room = toy.opened(toy.make(tmp_path / "w", recipe=table))
    with pytest.raises(ConfigError, match="backbone 'resnet19' is unknown"):
        run_round(workspace, room)
    assert workspace.ledger.rounds() == []
