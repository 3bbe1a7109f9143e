"""What may be set for one round without changing the workspace: checked, merged, compared.

Options are plain data by table, as {"selection": {"strategy": "entropy"}, "seed": 3}. The keys
that are given take the place of the configuration's; the recipe's table is taken whole, since
another recipe has other keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.config import Config, faults
from ssl_core.errors import ConfigError
from ssl_core.preflight import check_settings
from ssl_core.presets import MASK_PRESETS, PRESETS, preset
from ssl_core.recipes import ALL_RECIPES, MASK_RECIPES, plan

TABLES = ("selection", "model", "compute", "recipe", "seed")

Options = Mapping[str, Any]


def with_options(config: Config, options: Options) -> Config:
    """The configuration of a round with these options.

    Raises:
        ConfigError: one sentence for the first fault.
    """
    found = field_faults(config, options)
    if found:
        raise ConfigError(f"The round's settings: {next(iter(found.values()))}")
    return config.changed(**options)


def field_faults(config: Config, options: Options) -> dict[str, str]:
    """What is wrong with options, by dotted field ("selection.query_size"): one sentence each."""
    fixed = [name for name in options if name not in TABLES]
    if fixed:
        allowed = f"a round can set {', '.join(TABLES)}"
        return {name: f"{name} belongs to the workspace; {allowed}." for name in fixed}
    data = config.model_dump()
    for name, value in options.items():
        merges = isinstance(value, Mapping) and name != "recipe"
        data[name] = {**data[name], **value} if merges else value
    found = faults(Config, data)
    return found or _recipe_faults(data["recipe"])


def round_faults(config: Config, options: Options, findings: int) -> dict[str, str]:
    """`field_faults`, and then whatever is bound to fail on this machine for C = `findings`.

    That second look builds the network (seconds). What it finds stands under the field that it
    names, or under "" if it names none.
    """
    found = field_faults(config, options)
    if found:
        return found
    try:
        check_settings(config.changed(**options), findings)
    except ConfigError as error:
        key = str(error).split(" ", 1)[0].rstrip(":")
        return {key if key.split(".")[0] in TABLES else "": str(error)}
    return {}


def differing(config: Config, wanted: Config) -> dict[str, Any]:
    """The options that lead from one configuration to another: only what differs."""
    ours, theirs = config.model_dump(), wanted.model_dump()
    options: dict[str, Any] = {}
    for name in TABLES:
        if ours[name] == theirs[name]:
            continue
        if isinstance(theirs[name], dict) and name != "recipe":
            options[name] = {k: v for k, v in theirs[name].items() if v != ours[name].get(k)}
        else:
            options[name] = theirs[name]
    return options


def recipe_tables(config: Config) -> dict[str, dict[str, Any]]:
    """Recipe tables to choose from, by what to call them; the workspace's own is the first.

    Then those of the presets for the workspace's network, or where none is for it the recipes as
    published.
    """
    found = {"as in readloop.toml": dict(config.recipe)}
    network = config.model.backbone
    presets = MASK_PRESETS if config.recipe["name"] in MASK_RECIPES else PRESETS
    fitting = [name for name, one in presets.items() if one["model"]["backbone"] == network]
    for name in fitting or ["paper"]:
        for recipe in presets[name]["recipes"]:
            found[f"{recipe}, preset {name}"] = preset(name, recipe)["recipe"]
    return found


def _recipe_faults(table: dict[str, Any]) -> dict[str, str]:
    parameters = {key: value for key, value in table.items() if key != "name"}
    name = table.get("name")
    if isinstance(name, str) and name in ALL_RECIPES:
        found = faults(ALL_RECIPES[name][0], parameters)
        if found:
            return {f"recipe.{key}": f"recipe {name}: {says}" for key, says in found.items()}
    try:
        plan(table)
    except ConfigError as error:
        return {"recipe" if name in ALL_RECIPES else "recipe.name": str(error)}
    return {}
