"""Every recipe for masks in the loop: it trains, is killed and resumed, replays, and learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from app.status import status_of
from connectors.archive import ArchiveRoom
from ssl_core import drawings
from ssl_core.arms import vault_scores
from ssl_core.errors import Cancelled, ConfigError
from ssl_core.masks.overlap import as_truth, average, dice
from ssl_core.masks.predict import predict_masks
from ssl_core.masks.scores import IN_PIXELS, mask_metrics
from ssl_core.masks.truth import mask_truth
from ssl_core.preflight import check_settings, check_task
from ssl_core.recipes import MASK_RECIPES, RECIPES, plan
from ssl_core.records import Task
from ssl_core.rounds import run_round
from ssl_core.simulate import simulate
from ssl_core.strategies import ALL_NEEDS, MASK_STRATEGIES, suited
from ssl_core.training.schedule import Schedule
from ssl_core.workspace import part
from tests import toy

EVERY = pytest.mark.parametrize("name", sorted(MASK_RECIPES))
TASK = toy.TASKS["segmentation"]
TABLES = {
    "model": {"backbone": "small_unet"},
    "selection": {"query_size": 8, "strategy": "foreground_random", "cold_start": "random"},
}


def short(name, **changes):
    """A recipe's table with every one of its schedules cut short."""
    lengths = {"epochs": 2, "epoch_steps": 3, "batch_size": 8, "learning_rate": 3e-3, **changes}
    fields = MASK_RECIPES[name][0].model_fields
    table = {
        key: {**field.default.model_dump(), **lengths}
        for key, field in fields.items()
        if field.annotation is Schedule
    }
    ramp = {"start": 0.5, "end": 1.0} if "start" in fields else {}
    few = {"backbones": [["", ""], [""]], "positive": 0.5, "negative": 0.2}
    return {"name": name, **table, **ramp, **(few if "backbones" in fields else {})}


def made(root: Path, name: str, **tables) -> Path:
    return toy.make(root, TASK, recipe=short(name), **{**TABLES, **tables})


def told(root: Path):
    history = toy.history(root)
    history["rounds"] = [row[:-1] for row in history["rounds"]]  # the configuration names the root
    return history


@EVERY
def test_killed_in_every_stage_and_resumed_it_ends_the_same(name, tmp_path):
    root = made(tmp_path / "w", name)
    run_round(*toy.opened(root), query_size=16)
    again, killed = (toy.copied(root, tmp_path / n) for n in ("again", "killed"))
    events = []
    number = run_round(*toy.opened(root), report=lambda event: events.append(event.stage))
    run_round(*toy.opened(again))
    assert told(again) == told(root)  # it replays
    for position, stage in enumerate(dict.fromkeys(events)):
        left = [(events.count(stage) + 1) // 2]  # in its middle

        def stop(event, stage=stage, left=left):
            left[0] -= event.stage == stage
            if left[0] == 0:
                raise Cancelled("stopped by the test")

        with pytest.raises(Cancelled):
            run_round(*toy.opened(killed), resume=position > 0, report=stop)
    run_round(*toy.opened(killed), resume=True)
    assert told(killed) == told(root)
    workspace, _ = toy.opened(root)
    names = [fit.name for fit in plan(workspace.config.recipe).fits]
    assert [m.stage for _, m in workspace.ledger.models(number)] == names


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A supervised round on half the pool, long enough to learn the toy."""
    root = tmp_path_factory.mktemp("learned") / "w"
    lengths = {"epochs": 12, "epoch_steps": 12, "batch_size": 16, "learning_rate": 1e-2}
    recipe = {**short("supervised_masks", **lengths), "loss": "both"}
    toy.make(root, TASK, **{**TABLES, "recipe": recipe})
    run_round(*toy.opened(root), query_size=20)
    run_round(*toy.opened(root))
    return root


def test_it_learns_to_draw_and_says_so_in_every_number(learned):
    workspace, _ = toy.opened(learned)
    found = {
        (m.split, m.finding, m.name): m for _, m in workspace.ledger.measurements(2)
        if m.stage == "student"
    }  # fmt: skip
    assert found["vault", "macro", "dice"].value > 0.7
    for name in ("iou", "pixel accuracy", "sensitivity", "specificity", "d-auc"):
        one = found["vault", "macro", name]
        assert 0 <= one.low <= one.value <= one.high <= 1
    assert found["vault", "macro", "surface distance"].value < 8
    assert found["vault", "Spot", "dice"].n == len(workspace.ledger.items("vault"))


def test_the_dice_of_each_vault_item_is_kept_for_paired_tests(learned):
    workspace, _ = toy.opened(learned)
    kept = vault_scores(workspace, 2)["student"]
    items = workspace.ledger.items("vault")
    assert kept.shape == (len(items), 2)
    measured = next(
        m for _, m in workspace.ledger.measurements(2)
        if (m.stage, m.split, m.finding, m.name) == ("student", "vault", "macro", "dice")
    )  # fmt: skip
    again = average(kept, np.array([i.group for i in items])).macro.estimate
    assert (again.value, again.low) == pytest.approx((measured.value, measured.low))


def test_what_is_measured_is_what_its_maps_say(learned):
    workspace, _ = toy.opened(learned)
    ids = [item.id for item in workspace.ledger.items("validation")]
    groups = np.array([item.group for item in workspace.ledger.items("validation")])
    findings = workspace.ledger.task.findings
    truth = mask_truth(ids, workspace.ledger.labels(2), findings, workspace.masks)
    maps = predict_masks(
        workspace.load_segmenter(dict(workspace.ledger.models(2))[2]),
        workspace.images.array,
        workspace.rows(ids),
        lambda _, made: {"maps": made.maps},
        device=workspace.device,
        tta=plan(workspace.config.recipe).tta,
    )["maps"]
    inside, _, known = as_truth(truth.at(range(len(ids))), truth.present)
    kept = {
        m.name: m.value for _, m in workspace.ledger.measurements(2)
        if (m.stage, m.split, m.finding) == ("student", "validation", "macro")
    }  # fmt: skip
    for name, found in mask_metrics(maps, inside, known, groups).items():
        if name not in IN_PIXELS:
            assert kept[name] == pytest.approx(found.macro.estimate.value, abs=1e-9)


def test_the_vault_was_looked_at_once_and_never_trained_on(learned):
    workspace, _ = toy.opened(learned)
    looks = workspace.ledger.vault_looks()
    assert [(look.round, look.purpose) for look in looks] == [(2, "measure student")]
    trained = {label.item_id for label in workspace.ledger.labels(before_round=2)}
    assert not trained & {item.id for item in workspace.ledger.items("vault")}


def test_self_training_says_what_its_pseudo_masks_are_worth(tmp_path):
    root = made(tmp_path / "w", "self_training")
    run_round(*toy.opened(root), query_size=16)
    number = run_round(*toy.opened(root), query_size=0)
    workspace, _ = toy.opened(root)
    stages = {s.name: json.loads(s.detail) for s in workspace.ledger.stages(number)}
    detail = stages["pseudo-masks 1"]
    pool = len(workspace.ledger.items("train")) - 16
    for c in range(2):
        assert detail["positives"][c] <= detail["kept"][c] <= pool == detail["pool"]
    kept = workspace.ledger.pseudo_labels(number, "pseudo-masks 1")
    assert len(kept) == sum(detail["kept"])
    for row in kept:
        assert (row.mask is None) == (row.value == 0.0)
    quality = detail["validation"]
    assert quality["drawn"][0] >= quality["drawn_rightly"][0] >= 0
    assert len(quality["dice"]) == 2


def test_a_later_iteration_is_held_against_the_one_before_on_what_both_drew(tmp_path):
    recipe = {**short("self_training"), "backbones": [[""], [""], [""]]}
    root = toy.make(tmp_path / "w", TASK, **{**TABLES, "recipe": recipe})
    run_round(*toy.opened(root), query_size=16)
    number = run_round(*toy.opened(root), query_size=0)
    workspace, _ = toy.opened(root)
    stages = {s.name: json.loads(s.detail) for s in workspace.ledger.stages(number)}
    assert stages["pseudo-masks 1"]["validation"]["change"] is None
    kept = workspace.round_folder(number) / "pseudo-masks"
    first, second = (np.load(kept / f"pseudo-masks {k}.npz")["dice"] for k in (1, 2))
    both = ~np.isnan(first) & ~np.isnan(second)
    assert both.any()
    for c, (value, low, high, _, n) in enumerate(stages["pseudo-masks 2"]["validation"]["change"]):
        assert n == both[:, c].sum()
        if n:
            change = (second - first)[both[:, c], c].mean()
            assert value == pytest.approx(change)
            assert low is None or low <= value <= high


def test_a_single_teacher_decides_alone(tmp_path):
    recipe = {**short("self_training"), "ensemble": "single"}
    alone = {**recipe, "backbones": [[""], [""]]}
    kept = []
    for name, table in (("two", recipe), ("one", alone)):
        root = toy.make(tmp_path / name, TASK, **{**TABLES, "recipe": table})
        run_round(*toy.opened(root), query_size=16)
        number = run_round(*toy.opened(root), query_size=0)
        workspace, _ = toy.opened(root)
        kept.append(workspace.ledger.pseudo_labels(number, "pseudo-masks 1"))
    assert kept[0] == kept[1] != []


def test_the_control_learns_from_labels_alone(tmp_path):
    recipe = {**short("self_training"), "pseudo_masks": False}
    root = toy.make(tmp_path / "w", TASK, **{**TABLES, "recipe": recipe})
    run_round(*toy.opened(root), query_size=16)
    number = run_round(*toy.opened(root), query_size=0)
    workspace, _ = toy.opened(root)
    stages = {s.name: json.loads(s.detail) for s in workspace.ledger.stages(number)}
    assert not any(name.startswith("pseudo") for name in stages)
    assert stages["student"]["items"] == stages["teacher 0a"]["items"] == 16
    assert workspace.ledger.pseudo_labels(number, "pseudo-masks 1") == []


def test_a_finding_that_nobody_drew_is_told_and_not_measured(tmp_path):
    task = Task("segmentation", ("Spot", "Bar", "Rare"))
    root = toy.make(tmp_path / "w", task, recipe=short("supervised_masks"), **TABLES)
    run_round(*toy.opened(root), query_size=16)
    number = run_round(*toy.opened(root), query_size=0)
    workspace, _ = toy.opened(root)
    values = {
        (m.name, m.finding): m.value
        for _, m in workspace.ledger.measurements(number)
        if m.split == "vault"
    }
    assert np.isnan(values["dice", "Rare"])
    both = [values["dice", f] for f in ("Spot", "Bar")]
    assert values["dice", "macro"] == pytest.approx(np.mean(both))
    assert 0 <= values["specificity", "Rare"] <= 1
    model = workspace.ledger.models(number)[-1][1]
    ledger = workspace.ledger
    items = part(ledger.items("validation"), ledger.labels(), task.findings, workspace.images)
    again = drawings.measured(workspace, number, model, items)
    assert [np.isnan(s.estimate.value) for s in again.findings] == [False, False, True]
    told = status_of(workspace)
    assert told["rounds"][-1]["not_learned"] == ["Rare"]
    assert f"round {number} did not learn Rare" in told["next"]


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_student_begins_where_its_teacher_ended(warm, tmp_path):
    recipe = short("self_training")
    still = {**recipe["student"], "learning_rate": 1e-12, "epochs": 1}
    recipe |= {"student": still, "warm_start": warm}
    root = toy.make(tmp_path / "w", TASK, **{**TABLES, "recipe": recipe})
    run_round(*toy.opened(root), query_size=16)
    number = run_round(*toy.opened(root), query_size=0)
    workspace, _ = toy.opened(root)
    models = {m.stage: workspace.load_segmenter(m) for _, m in workspace.ledger.models(number)}
    pairs = zip(models["student"].parameters(), models["teacher 0a"].parameters(), strict=True)
    assert all(torch.allclose(ours, its, atol=1e-6) for ours, its in pairs) == warm


@pytest.mark.parametrize("strategy", suited(True))
def test_every_strategy_that_suits_asks_of_a_model_that_draws(strategy, learned, tmp_path):
    root = toy.copied(learned, tmp_path / "w")
    workspace, room = toy.opened(root)
    if "members" in ALL_NEEDS[strategy]:
        recipe = short("self_training")
    else:
        recipe = short("supervised_masks")
    config = workspace.config.changed(recipe=recipe, selection={"strategy": strategy})
    object.__setattr__(workspace, "config", config)
    number = run_round(workspace, room, query_size=6)
    asked = workspace.ledger.selections(number)
    assert len({one.item_id for one in asked}) == 6
    chosen = [one for one in asked if one.kind == "strategy"]
    assert all(one.reason for one in chosen)
    if strategy in MASK_STRATEGIES:
        assert "foreground" in strategy or any(np.isfinite(one.score) for one in chosen)


def test_a_pool_that_is_read_through_asks_for_nothing(tmp_path):
    workspace, room = toy.opened(made(tmp_path / "w", "supervised_masks"))
    run_round(workspace, room, query_size=len(workspace.ledger.items("train")))
    last = run_round(workspace, room, query_size=5)
    assert workspace.ledger.selections(last) == []
    assert workspace.ledger.finished(last)


def test_an_archive_is_replayed_with_dice(tmp_path):
    root = made(tmp_path / "w", "mean_teacher_masks")
    workspace, _ = toy.opened(root)
    found = simulate(
        workspace,
        lambda ledger: ArchiveRoom(ledger.answers),
        budgets=[8, 16],
        strategies=["foreground_random"],
        seeds=[0, 1],
    )
    assert {cell.budget for cell in found.cells} == {8, 16}
    for row in found.rows:
        assert 0 <= row.score["student"].value <= 1
        assert (row.difference is None) == (row.strategy == "random")
    assert found.metric == "dice"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_for_whole_images_is_refused(name, tmp_path):
    root = toy.make(tmp_path / "w", TASK, **{**TABLES, "recipe": {"name": name}})
    with pytest.raises(ConfigError, match=f"{name}' does not fit a task that draws masks: use one"):
        run_round(*toy.opened(root))


@EVERY
def test_a_recipe_for_masks_is_refused_elsewhere(name, tmp_path):
    workspace, _ = toy.opened(toy.make(tmp_path / "w", recipe=short(name)))
    with pytest.raises(ConfigError, match="does not fit a task that asks for labels of whole ima"):
        check_task(workspace.ledger.task, workspace.config)


def test_a_student_smaller_than_its_teacher_is_refused(tmp_path):
    recipe = {**short("self_training"), "backbones": [["shallow_unet"], ["small_unet"]]}
    workspace, _ = toy.opened(toy.make(tmp_path / "w", TASK, **{**TABLES, "recipe": recipe}))
    with pytest.raises(ConfigError, match="small_unet has fewer weights than shallow_unet, its"):
        check_settings(workspace.config, 2)


def test_thresholds_are_one_for_all_findings_or_for_each(tmp_path):
    recipe = {**short("self_training"), "positive": [0.7, 0.8, 0.9]}
    workspace, _ = toy.opened(toy.make(tmp_path / "w", TASK, **{**TABLES, "recipe": recipe}))
    with pytest.raises(ConfigError, match=r"recipe\.positive has 3 numbers and the task 2 f"):
        check_settings(workspace.config, 2)
    check_settings(workspace.config, 3)


def test_pictures_of_one_pixel_in_the_deepest_layer_are_refused(tmp_path):
    tables = {**TABLES, "recipe": short("supervised_masks")}
    workspace, _ = toy.opened(toy.make(tmp_path / "w", TASK, **tables))
    images = {"size": 32}
    config = workspace.config.changed(images=images, model={"backbone": "unet_mobilenet_v2"})
    with pytest.raises(ConfigError, match=r"images\.size = 32 leaves one pixel .* use 64 or"):
        check_settings(config, 2)
    check_settings(workspace.config.changed(images=images), 2)


def test_a_map_has_the_same_dice_however_it_was_reached():
    rng = np.random.default_rng(0)
    truth = rng.random((4, 2, 8, 8)) < 0.5
    maps = rng.random((4, 2, 8, 8)).astype(np.float32)
    known = np.ones((4, 2), bool)
    assert average(dice(maps >= 0.5, truth, known)).macro.estimate.n == 4
