"""What may be set for one round: one sentence a field, merged, compared, kept as it was used."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_core.config import Config, validated
from ssl_core.errors import ConfigError
from ssl_core.presets import preset
from ssl_core.recipes import MASK_RECIPES, RECIPES
from ssl_core.round_options import (
    differing,
    field_faults,
    recipe_tables,
    round_faults,
    with_options,
)
from ssl_core.rounds import run_round
from tests import toy

CONFIG = validated(
    Config,
    {
        "images": {"folder": "pictures", "size": 64},
        "model": {"backbone": "small_cnn"},
        "recipe": toy.RECIPE,
    },
    "here",
)


def test_options_take_the_place_of_settings_and_leave_the_others():
    found = with_options(CONFIG, {"selection": {"strategy": "entropy"}, "seed": 3})
    assert (found.selection.strategy, found.selection.query_size, found.seed) == ("entropy", 50, 3)
    assert found.images == CONFIG.images


def test_each_field_that_is_wrong_gets_one_sentence():
    found = field_faults(
        CONFIG,
        {
            "selection": {"query_size": 0, "random_share": 1.5, "strategie": "x"},
            "seed": -1,
        },
    )
    assert set(found) == {
        "selection.query_size",
        "selection.random_share",
        "selection.strategie",
        "seed",
    }
    assert found["selection.query_size"].startswith("selection.query_size = 0 cannot be used")
    assert "did you mean 'strategy'" in found["selection.strategie"]
    assert all(one.endswith(".") and "\n" not in one for one in found.values())
    with pytest.raises(ConfigError, match="The round's settings: "):
        with_options(CONFIG, {"seed": -1})


def test_the_recipe_s_own_parameters_are_fields_too():
    wrong = {**toy.RECIPE, "teacher": {"epochs": 0, "learning_rate": -1}}
    found = field_faults(CONFIG, {"recipe": wrong})
    assert set(found) == {"recipe.teacher.epochs", "recipe.teacher.learning_rate"}
    assert "teacher.epochs = 0" in found["recipe.teacher.epochs"]
    assert set(field_faults(CONFIG, {"recipe": {"name": "alchemy"}})) == {"recipe.name"}
    assert field_faults(CONFIG, {"recipe": {"name": "supervised"}}) == {}


@pytest.mark.parametrize("table", ["images", "reading", "ledger"])
def test_what_belongs_to_the_workspace_is_not_a_round_s_to_set(table):
    found = field_faults(CONFIG, {table: {}})
    assert "belongs to the workspace" in found[table]


def test_what_is_bound_to_fail_here_is_named_by_its_field():
    found = round_faults(CONFIG, {"selection": {"strategy": "marjin"}}, findings=1)
    assert set(found) == {"selection.strategy"}
    found = round_faults(CONFIG, {"compute": {"device": "cuda:99"}}, findings=1)
    assert set(found) == {"compute.device"}
    assert round_faults(CONFIG, {"selection": {"strategy": "random"}}, findings=1) == {}


changes = st.fixed_dictionaries(
    {},
    optional={
        "selection": st.fixed_dictionaries(
            {},
            optional={
                "query_size": st.integers(1, 99),
                "random_share": st.sampled_from([0.0, 0.15, 1.0]),
                "strategy": st.sampled_from(["margin", "entropy"]),
            },
        ),
        "compute": st.fixed_dictionaries({}, optional={"batch_size": st.integers(1, 99)}),
        "recipe": st.sampled_from([toy.RECIPE, {"name": "supervised"}]),
        "seed": st.integers(0, 5),
    },
)


@given(changes)
def test_what_differs_leads_there_and_holds_nothing_more(options):
    wanted = with_options(CONFIG, options)
    least = differing(CONFIG, wanted)
    assert with_options(CONFIG, least) == wanted
    assert differing(CONFIG, CONFIG) == {}
    for name, value in least.items():
        assert value  # no empty table
        if name in ("selection", "compute"):
            assert all(getattr(getattr(CONFIG, name), k) != v for k, v in value.items())


def test_recipes_to_choose_from_are_those_for_the_network():
    own = CONFIG.changed(model={"backbone": "mobilenet_v2"})
    tables = recipe_tables(own)
    assert next(iter(tables)) == "as in readloop.toml"
    assert tables["as in readloop.toml"] == own.recipe
    assert tables["fixmatch, preset fast"] == preset("fast", "fixmatch")["recipe"]
    assert {name.partition(", ")[0] for name in list(tables)[1:]} == set(RECIPES)
    for table in tables.values():
        assert field_faults(own, {"recipe": table}) == {}
    other = CONFIG.changed(model={"backbone": "resnet34"})
    assert recipe_tables(other)["s2mts2, preset paper"] == {"name": "s2mts2"}


def test_where_masks_are_drawn_the_recipes_for_masks_are_offered():
    own = CONFIG.changed(
        model={"backbone": "small_unet"}, recipe={"name": "self_training"},
        selection={"strategy": "boundary_entropy"},
    )  # fmt: skip
    tables = recipe_tables(own)
    assert {name.partition(", ")[0] for name in list(tables)[1:]} == set(MASK_RECIPES)
    for table in tables.values():
        assert field_faults(own, {"recipe": table}) == {}


def test_a_round_holds_the_settings_that_were_used(tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    options = {"selection": {"random_share": 0.5, "group_cap": 1}, "seed": 11}
    changed = type(workspace)(
        workspace.root, with_options(workspace.config, options), workspace.ledger, workspace.images
    )
    run_round(changed, room, query_size=6)
    held = workspace.ledger.rounds()[-1]
    kept = validated(Config, json.loads(held.config), "round 1")
    assert (held.seed, held.query_size, held.strategy) == (11, 6, "cold_start")
    assert differing(workspace.config, kept) == {
        "selection": {"random_share": 0.5, "group_cap": 1, "query_size": 6},
        "seed": 11,
    }
    assert sum(s.kind == "random" for s in workspace.ledger.selections(1)) == 3
