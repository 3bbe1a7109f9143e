"""Recipes as lists of stages: S0's Section 3 stage by stage, and the laws of any recipe."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

import ssl_core
from ssl_core.errors import ConfigError
from ssl_core.recipes import ALL_RECIPES, MASK_RECIPES, RECIPES, Fit, Pretrain, PseudoLabel, plan
from ssl_core.recipes.stages import LABELS
from ssl_core.training.augment import MILD, S0, Augmentation
from ssl_core.training.objectives import supervised
from ssl_core.training.rand_augment import RandAugment
from ssl_core.training.schedule import Schedule

EVERY = pytest.mark.parametrize("name", sorted(RECIPES))


def teacher_student(**parameters):
    return plan({"name": "teacher_student", **parameters})


def refused(recipe):
    with pytest.raises(ConfigError) as caught:
        plan(recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- S0 ------------------------------------------------------------------------------------


def test_one_generation_is_the_papers_section_3():
    schedules = (Schedule(epochs=25), Schedule(epochs=10), Schedule(epochs=15))
    assert teacher_student().stages == (
        Fit("teacher", LABELS, schedules[0], start=None, otherwise=None),
        PseudoLabel("pseudo-labels", "teacher", 0.75, soft=False, tta="ten_crop"),
        Fit("intermediate", "pseudo-labels", schedules[1], start=None, otherwise="teacher"),
        Fit("student", LABELS, schedules[2], start="intermediate", otherwise=None),
    )


def test_two_generations_make_the_student_the_next_teacher():
    told = [
        (s.name, s.on, s.start, s.otherwise) if isinstance(s, Fit) else (s.name, s.teacher)
        for s in teacher_student(generations=2).stages
    ]
    assert told == [
        ("teacher", LABELS, None, None),
        ("pseudo-labels 1", "teacher"),
        ("intermediate 1", "pseudo-labels 1", None, "teacher"),
        ("student 1", LABELS, "intermediate 1", None),
        ("pseudo-labels", "student 1"),
        ("intermediate", "pseudo-labels", None, "student 1"),
        ("student", LABELS, "intermediate", None),
    ]


def test_the_defaults_are_the_papers():
    made = teacher_student()
    for stage in made.fits:
        schedule = stage.schedule
        assert schedule.optimizer == "adam"
        assert (schedule.learning_rate, schedule.decay, schedule.batch_size) == (1e-4, 0.9, 16)
        assert stage.objective is supervised
        # everything that the paper does not have is off
        plain = Schedule(epochs=schedule.epochs)
        assert schedule == plain
        off = (plain.head_rate, plain.epoch_steps, plain.weight_decay, plain.label_smoothing)
        assert off == (1, 1, 0, 0)
        assert (plain.frozen_blocks, plain.ema, plain.clip, plain.patience) == (0, 0, 0, 0)
    assert [stage.schedule.epochs for stage in made.fits] == [25, 10, 15]
    assert made.tta == "ten_crop"
    assert made.augmentation == S0 == Augmentation(
        flip=0.5, rotation=25.0, translation=0.15, scale=(0.9, 1.1), perspective=0.2
    )  # fmt: skip
    assert (made.augmentation.brightness, made.augmentation.contrast) == (0, 0)


def test_parameters_reach_their_stages():
    made = teacher_student(
        teacher={"epochs": 1, "ema": 0.5},
        intermediate={"epochs": 2},
        student={"epochs": 3, "optimizer": "sgd"},
        keep_fraction=0.5,
        soft=True,
        tta="none",
        generations=3,
        augmentation={"rotation": 1.0, "scale": [1.0, 1.0]},
    )
    assert [s.schedule.epochs for s in made.fits] == [1, 2, 3, 2, 3, 2, 3]
    assert made.fits[0].schedule.ema == 0.5
    assert {s.schedule.optimizer for s in made.fits[2::2]} == {"sgd"}
    labels = [s for s in made.stages if isinstance(s, PseudoLabel)]
    assert {(s.keep_fraction, s.soft, s.tta) for s in labels} == {(0.5, True, "none")}
    assert made.tta == "none"
    assert made.augmentation == Augmentation(rotation=1.0, scale=(1.0, 1.0))


def test_supervised_is_the_teacher_alone():
    assert plan({"name": "supervised"}).stages == (Fit("student", LABELS, Schedule(epochs=25)),)
    assert plan({"name": "supervised"}).augmentation == S0


# --- any recipe ----------------------------------------------------------------------------


def variants(name):
    yield {"name": name}
    if "generations" in RECIPES[name][0].model_fields:
        for generations in range(1, 10):
            yield {"name": name, "generations": generations}


@EVERY
def test_a_stage_uses_only_what_an_earlier_one_made(name):
    for table in variants(name):
        models, features, labels = set(), set(), {LABELS}
        for stage in plan(table).stages:
            assert stage.name not in models | features | labels, "a name is taken twice"
            if isinstance(stage, Pretrain):
                features.add(stage.name)
            elif isinstance(stage, Fit):
                assert stage.on in labels | {None}
                assert stage.on or stage.views
                assert stage.start in models | features | {None}
                assert {stage.otherwise, stage.teacher} <= models | {None}
                models.add(stage.name)
            else:
                assert stage.teacher in models
                labels.add(stage.name)


@EVERY
def test_a_recipe_ends_with_the_student(name):
    for table in variants(name):
        made = plan(table)
        assert made.name == name
        assert made.stages[-1] is made.fits[-1]
        assert made.fits[-1].name == "student"


@EVERY
def test_a_table_is_left_as_it_was(name):
    table = {"name": name}
    assert plan(table) == plan(table)
    assert table == {"name": name}


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["teacher-student", "", None, 3, ["supervised"], {}])
def test_an_unknown_recipe_lists_the_known(name):
    assert refused({"name": name}) == (
        f"recipe.name = {name!r} is unknown; use one of {sorted(ALL_RECIPES)}."
    )


def test_a_recipe_without_a_name_is_refused():
    assert "recipe.name = None is unknown" in refused({})


def test_an_unknown_parameter_lists_the_known():
    message = refused({"name": "teacher_student", "keep_fractoin": 0.5})
    known = ", ".join(sorted(RECIPES["teacher_student"][0].model_fields))
    assert message == (
        "recipe teacher_student: unknown key 'keep_fractoin'; did you mean 'keep_fraction'? "
        f"valid keys here: {known}."
    )
    message = refused({"name": "supervised", "keep_fraction": 0.5})
    assert message.startswith("recipe supervised: unknown key 'keep_fraction'; ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("keep_fraction", 1.5), ("generations", 0), ("generations", 10), ("tta", "twenty")],
)
def test_a_parameter_out_of_range_is_named(key, value):
    message = refused({"name": "teacher_student", key: value})
    assert message.startswith(f"recipe teacher_student: {key} = {value!r} cannot be used: ")


# --- a recipe is data ----------------------------------------------------------------------


def compared_strings(source):
    """Every string that a piece of code compares something with, or matches."""
    for node in ast.walk(ast.parse(source)):
        parts = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        for part in parts:
            for leaf in ast.walk(part):
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    yield leaf.value


def test_the_search_for_branches_finds_one():
    assert list(compared_strings("if name in ('supervised', 'x'): pass")) == ["supervised", "x"]
    assert list(compared_strings("match name:\n case 'supervised': pass")) == ["supervised"]


def test_nothing_outside_the_recipes_branches_on_a_recipes_name():
    root = Path(ssl_core.__file__).parent
    files = list(root.glob("*.py"))
    assert len(files) > 20
    for path in files:
        found = set(compared_strings(path.read_text(encoding="utf-8"))) & set(ALL_RECIPES)
        assert not found, f"{path.name} branches on {found}"


# --- tables that name a few keys only -------------------------------------------------------


def test_a_key_of_a_schedule_leaves_the_recipes_others_as_they_are():
    whole = plan({"name": "fixmatch"}).fits[0].schedule
    short = plan({"name": "fixmatch", "student": {"epochs": 5}}).fits[0].schedule
    assert short == whole.model_copy(update={"epochs": 5})
    assert short.optimizer == "sgd"  # not the plain default, which is Adam


def test_a_key_of_a_view_leaves_the_recipes_others_as_they_are():
    found = plan({"name": "fixmatch", "augmentation": {"rotation": 3.0}, "strong": {"cutout": 0.2}})
    weak, strong = found.fits[0].views
    assert weak == replace(MILD, rotation=3.0)
    assert strong == RandAugment(cutout=0.2)


def test_a_table_where_a_number_belongs_is_refused():
    assert "threshold" in refused({"name": "fixmatch", "threshold": {"high": 0.9}})


@pytest.mark.parametrize("name", ["mean_teacher", "s2mts2"])
def test_a_mean_teacher_needs_its_average(name):
    says = refused({"name": name, "student": {"ema": 0.0}})
    assert says == f"recipe {name}: student.ema = 0 leaves no teacher: set it above 0."


def test_a_warm_student_begins_with_a_teacher_of_the_same_network():
    backbones = [["", "small_unet"], ["small_unet", "", "", "unet_resnet18"], [""]]
    begins = {"name": "self_training", "backbones": backbones, "warm_start": True}
    assert [(fit.name, fit.start) for fit in plan(begins).fits] == [
        ("teacher 0a", None),
        ("teacher 0b", None),
        ("student 1a", "teacher 0b"),
        ("student 1b", "teacher 0a"),
        ("student 1c", "teacher 0a"),
        ("student 1d", None),  # a network that no teacher is
        ("student", "student 1b"),
    ]
    fresh = plan({**begins, "warm_start": False}).fits
    assert {fit.start for fit in fresh} == {None}


def test_the_control_of_self_training_differs_in_what_its_students_learn_from():
    whole = plan({"name": "self_training", "warm_start": True})
    control = plan({"name": "self_training", "warm_start": True, "pseudo_masks": False})
    assert control.stages == control.fits  # nobody draws
    alone = tuple(replace(fit, on=(LABELS,)) for fit in whole.fits)
    assert tuple(control.fits) == alone != tuple(whole.fits)


def test_thresholds_may_be_one_for_each_finding():
    recipe = {"name": "self_training", "positive": [0.7, 0.9], "negative": 0.2}
    drawn = next(stage for stage in plan(recipe).stages if stage.name == "pseudo-masks 1")
    assert (drawn.positive, drawn.negative) == ((0.7, 0.9), 0.2)
    assert "negative must lie below positive" in refused({**recipe, "negative": [0.1, 0.95]})
    assert "different numbers of values" in refused({**recipe, "negative": [0.1, 0.2, 0.3]})
    assert "positive" in refused({**recipe, "positive": []})


def test_a_named_backbone_may_begin_with_a_file():
    table = {"name": "self_training", "backbones": [[""], ["unet_resnet34"]]}
    fits = plan({**table, "backbone_weights": {"unet_resnet34": "r.safetensors"}}).fits
    assert [fit.weights for fit in fits] == ["none", "r.safetensors"]
    says = refused({**table, "backbone_weights": {"": "r.safetensors"}})
    assert "backbone_weights names '', whose file is [model] weights" in says
    says = refused({**table, "backbone_weights": {"unet_resnet50": "r.safetensors"}})
    assert "backbone_weights names 'unet_resnet50', which is not in backbones" in says


@pytest.mark.parametrize("name", sorted(MASK_RECIPES))
def test_an_auxiliary_classifier_is_trained(name):
    for fit in plan({"name": name, "auxiliary": True}).fits:
        loss = getattr(fit.objective, "supervised", fit.objective)
        assert (fit.auxiliary, loss.classification) == (True, 0.3)
    for fit in plan({"name": name, "auxiliary": False}).fits:
        loss = getattr(fit.objective, "supervised", fit.objective)
        assert (fit.auxiliary, loss.classification) == (False, 0.0)
    says = refused({"name": name, "auxiliary": True, "classification": 0.0})
    assert "classification = 0 leaves the auxiliary classifier untrained" in says


def test_warm_students_of_one_network_begin_with_different_teachers():
    begins = {"name": "self_training", "backbones": [["", ""], ["", "", ""]], "warm_start": True}
    starts = [fit.start for fit in plan(begins).fits]
    assert starts == [None, None, "teacher 0a", "teacher 0b", "teacher 0a"]


def test_a_recipe_is_a_module_with_stages():
    assert set(RECIPES) == {
        "supervised", "teacher_student", "fixmatch", "simclr_v2", "s2mts2", "mean_teacher",
    }  # fmt: skip
    assert set(MASK_RECIPES) == {
        "supervised_masks", "mean_teacher_masks", "fixmatch_masks", "self_training",
    }  # fmt: skip
    for name, (settings, stages) in ALL_RECIPES.items():
        assert stages.__module__ == f"ssl_core.recipes.{name}"
        assert settings.__module__ == stages.__module__
