"""Presets: every recipe of theirs can be planned, and what a task begins with is among them."""

from __future__ import annotations

import pytest

from ssl_core.config import Config, validated
from ssl_core.errors import ConfigError
from ssl_core.masks.networks import NETWORKS
from ssl_core.presets import MASK_PRESETS, PRESETS, default_recipe, preset
from ssl_core.recipes import MASK_RECIPES, RECIPES, plan

EVERY = [
    (name, recipe)
    for presets in (PRESETS, MASK_PRESETS)
    for name, one in presets.items()
    for recipe in one["recipes"]
]


@pytest.mark.parametrize(("name", "recipe"), EVERY)
def test_a_preset_is_a_whole_configuration(name, recipe):
    tables = preset(name, recipe)
    config = validated(Config, {**tables, "images": {**tables["images"], "folder": "x"}}, "here")
    assert plan(config.recipe).name == recipe
    assert (config.model.backbone in NETWORKS) == (recipe in MASK_RECIPES)


def test_every_preset_knows_every_recipe():
    for presets, recipes in ((PRESETS, RECIPES), (MASK_PRESETS, MASK_RECIPES)):
        for one in presets.values():
            assert set(one["recipes"]) == set(recipes)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_task_begins_with_a_recipe_of_its_own_kind(name):
    for kind in ("binary", "multi_class", "multi_label"):
        assert default_recipe(kind, name) in PRESETS[name]["recipes"]
    assert default_recipe("segmentation", name) in MASK_PRESETS[name]["recipes"]


def test_in_the_fast_preset_no_recipe_shows_other_batches_of_labels_than_the_baseline():
    """Else it would win or lose by its length: FixMatch did, with half a batch."""
    whole = plan(preset("fast", "supervised")["recipe"]).fits[0].schedule
    for recipe in ("fixmatch", "mean_teacher", "s2mts2"):
        own = plan(preset("fast", recipe)["recipe"]).fits[-1].schedule
        assert (own.batch_size, own.epochs, own.epoch_steps) == (
            whole.batch_size, whole.epochs, whole.epoch_steps,
        )  # fmt: skip


def test_an_unknown_preset_or_recipe_is_one_sentence():
    with pytest.raises(ConfigError, match="--preset 'quick' is unknown; use one of"):
        preset("quick")
    with pytest.raises(ConfigError, match="has no settings for recipe 'x'"):
        preset("fast", "x")
