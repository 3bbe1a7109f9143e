"""Configuration: what is refused and in which words, the digest, TOML there and back, presets."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.config import Config, ledger_url, load_config, save_config, validated
from ssl_core.errors import ConfigError
from ssl_core.presets import PRESETS, preset
from ssl_core.recipes import plan
from ssl_core.strategies import STRATEGIES
from ssl_core.training.augment import Augmentation
from ssl_core.training.models import backbone_names, build_model
from ssl_core.training.schedule import Schedule

LEAST = {"images": {"folder": "pictures"}}


def made(**tables):
    return validated(Config, {**LEAST, **tables}, "here")


def refused(data, model=Config):
    with pytest.raises(ConfigError) as caught:
        validated(model, data, "here")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("here: ")
    assert message.endswith(".")
    return message.removeprefix("here: ")


def refused_recipe(**parameters):
    with pytest.raises(ConfigError) as caught:
        plan({"name": "teacher_student", **parameters})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is refused -----------------------------------------------------------------------


def test_an_unknown_table_is_refused_with_the_valid_ones_and_a_close_match():
    assert refused({**LEAST, "imges": {}}) == (
        "unknown key 'imges'; did you mean 'images'? valid keys here: "
        "access, alarm, compute, cost, images, ledger, map, model, promotion, reading, recipe, "
        "seed, selection."
    )


def test_an_unknown_key_of_a_table_names_that_tables_keys():
    assert refused({"images": {"folder": "x", "sise": 64}}) == (
        "unknown key 'images.sise'; did you mean 'size'? valid keys here: "
        "channels, fit, folder, size."
    )


def test_without_a_close_match_none_is_offered():
    message = refused({**LEAST, "selection": {"zzz": 1}})
    assert "did you mean" not in message
    assert (
        "valid keys here: cold_start, control, duplicates, fall_back_after, group_cap," in message
    )


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"positive": 0.2, "negative": 0.4}, ": negative must lie below positive."),
        ({"positive": "high"}, ": positive = 'high' cannot be used: "),
        ({"paste": False}, ": paste = False cannot be used: give a table of keys."),
        (
            {"paste": {"x": 1}},
            ": unknown key 'paste.x'; valid keys here: onto, probability, times.",
        ),
        ({"teacher": 5}, ": teacher = 5 cannot be used: give a table of keys."),
        ({"positive": [0.5, "x"]}, ": positive = [0.5, 'x'] cannot be used: "),
        ({"my-key.x": 1}, ": unknown key 'my-key.x'; "),
        ({"backbones": "unet"}, ": backbones = 'unet' cannot be used: give a list."),
        ({"backbones": ["", ""]}, ": backbones.0 = '' cannot be used: give a list."),
        ({"teacher": {"learning_rate": math.inf}}, ": teacher.learning_rate = inf cannot be used"),
    ],
)
def test_sentences_name_keys_and_no_types(table, says):
    with pytest.raises(ConfigError) as caught:
        plan({"name": "self_training", **table})
    assert str(caught.value).startswith(f"recipe self_training{says}")


def test_an_unknown_key_of_a_schedule():
    message = refused_recipe(teacher={"epoch": 3})
    assert "unknown key 'teacher.epoch'; did you mean 'epochs'?" in message
    assert all(name in message for name in Schedule.model_fields)


def test_an_unknown_key_of_the_augmentation_dataclass():
    message = refused_recipe(augmentation={"rotatoin": 3})
    assert "unknown key 'augmentation.rotatoin'; did you mean 'rotation'?" in message
    assert all(field.name in message for field in dataclasses.fields(Augmentation))


def test_a_value_that_the_augmentation_itself_refuses():
    assert refused_recipe(augmentation={"flip": 3}) == (
        "recipe teacher_student: augmentation: augmentation flip is 3.0: give a number from 0 to 1."
    )


@pytest.mark.parametrize(
    ("tables", "start"),
    [
        ({"images": {"folder": "x", "size": 15}}, "images.size = 15 cannot be used: "),
        ({"images": {"folder": "x", "size": 2049}}, "images.size = 2049 cannot"),
        ({"images": {"folder": "x", "fit": "crop"}}, "images.fit = 'crop' cannot be used: "),
        ({"images": {"folder": "x", "channels": 2}}, "images.channels = 2 cannot"),
        ({"images": "x"}, "images = 'x' cannot"),
        ({"seed": -1}, "seed = -1 cannot be used: input should be greater than or equal to 0."),
        ({"seed": 2**31}, "seed = 2147483648 cannot"),
        ({"seed": "one"}, "seed = 'one' cannot"),
        ({"selection": {"query_size": 0}}, "selection.query_size = 0 cannot"),
        ({"selection": {"random_share": 1.01}}, "selection.random_share = 1.01 cannot"),
        ({"selection": {"random_share": float("nan")}}, "selection.random_share = nan cannot"),
        ({"selection": {"group_cap": -1}}, "selection.group_cap = -1 cannot"),
        ({"compute": {"batch_size": 0}}, "compute.batch_size = 0 cannot"),
        ({"compute": {"checkpoint_seconds": -1}}, "compute.checkpoint_seconds = -1 cannot"),
        ({"recipe": "supervised"}, "recipe = 'supervised' cannot"),
    ],
)
def test_values_out_of_range_are_named(tables, start):
    assert refused({**LEAST, **tables}).startswith(start)


def test_a_missing_key_is_named():
    assert refused({"images": {}}) == "key 'images.folder' is missing: add it."
    assert refused({}) == "key 'images' is missing: add it."


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("epoch_steps", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("decay", 1.1),
        ("optimizer", "lion"),
        ("weight_decay", -0.1),
        ("label_smoothing", 2),
        ("frozen_blocks", -1),
        ("ema", -0.5),
        ("clip", -1),  # would turn every gradient round
        ("patience", -1),
    ],
)
def test_a_schedule_refuses_what_cannot_train(key, value):
    assert refused({key: value}, Schedule).startswith(f"{key} = {value!r} cannot be used: ")


def test_only_one_fault_is_told_at_a_time():
    assert refused({"images": {}, "seed": -1, "zzz": 1}).count(".") == 2  # images.folder, the end


# --- digest and changed --------------------------------------------------------------------


def test_the_digest_is_stable():
    assert made().digest() == made().digest()
    assert re.fullmatch(r"[0-9a-f]{16}", made().digest())
    spelled_out = made(**{k: v for k, v in made().model_dump().items() if k != "images"})
    assert spelled_out.digest() == made().digest()


def test_what_no_round_depends_on_is_not_in_the_digest():
    """Or a new price would lose the simulations that were run under the name."""
    told = made(cost={"per_hour": 80.0}, promotion={"margin": 0.02})
    assert told.digest() == made().digest()
    assert told.to_json() != made().to_json()


def test_a_workspace_without_a_price_is_saved_without_one(tmp_path):
    for tables in ({}, {"cost": {"per_hour": 80.0, "currency": "CHF"}}):
        config = made(**tables)
        save_config(config, tmp_path / "readloop.toml")
        assert load_config(tmp_path / "readloop.toml") == config
    assert made().cost is None
    assert made(cost={"per_hour": 80}).cost.currency == "EUR"
    assert made().promotion.margin == 0.01


@pytest.mark.parametrize(
    ("tables", "start"),
    [
        ({"cost": {}}, "key 'cost.per_hour' is missing: add it."),
        ({"cost": {"per_hour": 0}}, "cost.per_hour = 0 cannot be used: "),
        ({"cost": {"per_hour": 1, "currency": ""}}, "cost.currency = '' cannot be used: "),
        ({"promotion": {"margin": -0.1}}, "promotion.margin = -0.1 cannot be used: "),
        ({"promotion": {"margins": 0.1}}, "unknown key 'promotion.margins'; did you mean 'margin'"),
    ],
)
def test_prices_and_margins_out_of_range_are_named(tables, start):
    assert refused({**LEAST, **tables}).startswith(start)


def test_the_digest_does_not_see_the_order_of_keys():
    one = made(recipe={"name": "supervised", "tta": "flip"}, seed=3)
    other = made(seed=3, recipe={"tta": "flip", "name": "supervised"})
    assert one.digest() == other.digest()


@pytest.mark.parametrize(
    "tables",
    [
        {"seed": 1},
        {"ledger": "postgresql://u@h/d"},
        {"images": {"folder": "other"}},
        {"images": {"folder": "pictures", "size": 225}},
        {"model": {"backbone": "resnet18"}},
        {"selection": {"random_share": 0.2}},
        {"compute": {"autocast": False}},
        {"recipe": {"name": "teacher_student", "teacher": {"epochs": 24}}},
    ],
)
def test_the_digest_sees_every_change(tables):
    assert made(**tables).digest() != made().digest()


def test_changed_replaces_keys_of_tables_and_the_recipe_whole():
    config = made(
        selection={"query_size": 7, "strategy": "entropy"},
        recipe={"name": "teacher_student", "soft": True},
    )
    other = config.changed(
        selection={"strategy": "random"}, seed=5, ledger="sqlite", recipe={"name": "supervised"}
    )
    assert (other.selection.query_size, other.selection.strategy) == (7, "random")
    assert other.seed == 5
    assert other.recipe == {"name": "supervised"}
    assert config.selection.strategy == "entropy"
    assert config.recipe == {"name": "teacher_student", "soft": True}
    assert config.changed() == config


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"nonsense": {"a": 1}}, {"ledger": {"a": 1}}, {"model": {"a": 1}}]
)
def test_changed_is_validated(change):
    with pytest.raises(ConfigError, match=r"^configuration: "):
        made().changed(**change)


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        made().seed = 3


# --- TOML ----------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None, max_examples=50)
@given(
    folder=texts,
    seed=st.integers(0, 2**31 - 1),
    share=st.floats(0, 1),
    recipe=st.dictionaries(
        texts, st.one_of(st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), texts)
    ),
)
def test_toml_there_and_back(tmp_path_factory, folder, seed, share, recipe):
    config = validated(
        Config,
        {
            "images": {"folder": folder},
            "selection": {"random_share": share},
            "recipe": recipe,
            "seed": seed,
        },
        "here",
    )
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    save_config(config, path)
    assert load_config(path) == config
    assert load_config(path).digest() == config.digest()


def test_what_is_left_out_of_the_file_has_its_default(tmp_path):
    path = tmp_path / "readloop.toml"
    path.write_text('seed = 4\n[images]\nfolder = "x"\n', encoding="utf-8")
    config = load_config(path)
    assert config == validated(Config, {"images": {"folder": "x"}, "seed": 4}, "")
    assert config.model.backbone == "densenet121"
    assert config.selection.random_share == 0.15


def loading(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_missing_or_no_toml_is_told(tmp_path):
    assert "does not exist: make a workspace with `readloop init`." in loading(tmp_path / "none")
    assert "cannot be read" in loading(tmp_path)  # a folder
    path = tmp_path / "readloop.toml"
    path.write_text("[images\n", encoding="utf-8")
    assert "is not valid TOML" in loading(path)
    assert "line 1" in loading(path)
    path.write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in loading(path)
    path.write_text("", encoding="utf-8")
    assert "key 'images' is missing" in loading(path)


# --- the ledger's address ------------------------------------------------------------------


def test_the_ledger_is_a_file_of_the_workspace_or_the_address_given(tmp_path):
    assert ledger_url(made(), tmp_path) == f"sqlite:///{tmp_path}/ledger.db"
    for address in ("postgresql://reader@host:5432/reads", "postgresql://host:5432/reads"):
        assert ledger_url(made(ledger=address), tmp_path) == address


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://reader:secret@host/reads",
        "postgresql://reader:sec/ret@host/reads",
        "postgresql+psycopg://reader:secret@host:5432/reads",
        "postgresql://:secret@host/reads",
        "postgresql://reader@host/reads?password=secret",
        "postgresql://reader@host/reads?connect_timeout=3&password=secret",
    ],
)
def test_a_password_in_the_address_is_refused_and_not_repeated(address, tmp_path):
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        ledger_url(made(ledger=address), tmp_path)
    assert "secret" not in str(caught.value)
    assert "sec/ret" not in str(caught.value)


# --- presets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "recipe"),
    [(name, recipe) for name in sorted(PRESETS) for recipe in PRESETS[name]["recipes"]],
)
def test_a_preset_makes_a_configuration_whose_recipe_plans(name, recipe):
    tables = preset(name, recipe)
    tables["images"]["folder"] = "pictures"
    config = validated(Config, tables, "preset")
    assert plan(config.recipe).name == recipe
    assert config.model.backbone in backbone_names()
    assert config.selection.strategy in STRATEGIES
    model = build_model(config.model.backbone, 1)
    for stage in plan(config.recipe).fits:
        model.freeze(stage.schedule.frozen_blocks, norm=stage.schedule.frozen_norm)


def test_the_paper_preset_is_the_recipe_as_published():
    tables = preset("paper")
    assert tables["images"]["size"] == 256
    assert tables["model"]["backbone"] == "densenet121"
    assert plan(tables["recipe"]) == plan({"name": "teacher_student"})


def test_without_a_recipe_a_preset_is_of_the_default_one():
    assert preset("tiny")["recipe"]["name"] == "teacher_student"


def test_a_preset_is_a_copy_all_the_way_down():
    preset("fast")["recipe"]["teacher"]["epochs"] = 999
    preset("tiny")["recipe"]["augmentation"]["rotation"] = 999
    assert preset("fast")["recipe"]["teacher"]["epochs"] != 999
    assert preset("fast")["recipe"]["student"]["epochs"] != 999
    assert preset("tiny")["recipe"]["augmentation"]["rotation"] != 999


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match=r"'papr' is unknown; use one of \['fast', 'paper'"):
        preset("papr")
    with pytest.raises(ConfigError, match=r"tiny has no settings for recipe 'papr': use one of"):
        preset("tiny", "papr")
