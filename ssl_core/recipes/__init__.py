"""Recipes: one file a paper, each a list of stages for the one loop; a dict of named functions.

A module of this package with a function `stages(p)` is a recipe by the module's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_type_hints

from ssl_core.config import validated
from ssl_core.errors import ConfigError
from ssl_core.recipes.stages import (
    Common,
    Fit,
    FitMasks,
    MaskSettings,
    Pretrain,
    PseudoLabel,
    PseudoMasks,
    Settings,
    Stage,
    Trained,
)
from ssl_core.training.augment import Augmentation
from ssl_core.training.predict import Tta
from ssl_core.training.rand_augment import View


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe with its parameters filled in: what `rounds` runs.

    `stem_blocks` > 0: all its models share that many frozen blocks, whose output is cached: of
    each image and its mirror, and of `stem_views` views of each augmentation of `banked`.
    """

    name: str
    stages: tuple[Stage, ...]
    augmentation: Augmentation
    tta: Tta
    stem_blocks: int = 0
    stem_views: int = 0
    banked: tuple[View, ...] = ()
    auxiliary: bool = False

    @property
    def fits(self) -> tuple[Trained, ...]:
        """The stages that leave a model, in order; the last one is the student."""
        return tuple(stage for stage in self.stages if isinstance(stage, Trained))


Recipe = tuple[type[Common], Callable[[Any], list[Stage]]]


def _found() -> dict[str, Recipe]:
    """The modules here that have a function `stages`, each with the type of its parameters."""
    modules = {one.name: import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__)}
    return {
        name: (get_type_hints(module.stages)["p"], module.stages)
        for name, module in modules.items()
        if hasattr(module, "stages")
    }


ALL_RECIPES = _found()
"""By name: the type of a recipe's parameters `p`, and what makes its stages of them."""
MASK_RECIPES = {n: r for n, r in ALL_RECIPES.items() if issubclass(r[0], MaskSettings)}
"""Those for segmentation."""
RECIPES = {n: r for n, r in ALL_RECIPES.items() if n not in MASK_RECIPES}
"""Those for classification."""


def plan(recipe: Mapping[str, Any]) -> Plan:
    """Read the `[recipe]` table: its `name`, and that recipe's own parameters.

    Raises:
        ConfigError: the recipe is unknown, or a parameter of it is; one sentence.
    """
    table = dict(recipe)
    name = table.pop("name", None)
    if not isinstance(name, str) or name not in ALL_RECIPES:
        raise ConfigError(f"recipe.name = {name!r} is unknown; use one of {sorted(ALL_RECIPES)}.")
    parameters, stages = ALL_RECIPES[name]
    filled = validated(parameters, table, f"recipe {name}")
    listed = tuple(stages(filled))
    if isinstance(filled, MaskSettings):
        augmentation, auxiliary = filled.augmentation, filled.auxiliary
        return Plan(name, listed, augmentation, filled.tta, auxiliary=auxiliary)
    assert isinstance(filled, Settings)
    blocks = _stem_blocks(name, listed, filled)
    banked = _banked(name, listed, filled) if blocks and filled.stem_views else ()
    return Plan(name, listed, filled.augmentation, filled.tta, blocks, filled.stem_views, banked)


def _stem_blocks(name: str, stages: tuple[Stage, ...], settings: Settings) -> int:
    if not settings.cache_stem:
        return 0
    trained = [stage for stage in stages if isinstance(stage, Fit | Pretrain)]
    frozen = {stage.schedule.frozen_blocks for stage in trained}
    if len(frozen) != 1 or 0 in frozen or settings.tta == "ten_crop":
        raise ConfigError(
            f"recipe {name}: cache_stem needs one frozen_blocks above 0 in every stage, and tta "
            '"none" or "flip": set those, or leave it out.'
        )
    if any(isinstance(stage, Fit) and stage.backbone for stage in stages):
        raise ConfigError(
            f"recipe {name}: cache_stem is of one network and a stage has another: leave "
            "cache_stem or that network out."
        )
    others = [view for stage in trained for view in stage.views if view != settings.augmentation]
    if others and not settings.stem_views:
        raise ConfigError(
            f"recipe {name}: cache_stem shows an image and its mirror alone, and this recipe "
            "compares other views: set stem_views, or leave cache_stem out."
        )
    return frozen.pop()


def _banked(name: str, stages: tuple[Stage, ...], settings: Settings) -> tuple[View, ...]:
    """The augmentations that views are drawn of beforehand."""
    shown = [stage.views for stage in stages if isinstance(stage, Fit | Pretrain)]
    most = max(views.count(view) for views in shown for view in views) if any(shown) else 1
    if settings.stem_views < most:
        raise ConfigError(
            f"recipe {name}: stem_views = {settings.stem_views} and a step compares {most} views "
            f"of an image: set {most} or more."
        )
    learns = any(isinstance(stage, Fit) and stage.on is not None for stage in stages)
    own = [settings.augmentation] if learns else []
    return tuple(dict.fromkeys([*own, *(view for views in shown for view in views)]))


__all__ = [
    "ALL_RECIPES",
    "MASK_RECIPES",
    "RECIPES",
    "Fit",
    "FitMasks",
    "Plan",
    "Pretrain",
    "PseudoLabel",
    "PseudoMasks",
    "Stage",
    "Trained",
    "plan",
]
