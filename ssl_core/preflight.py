"""What is bound to fail is refused before anything is made with it.

A round keeps the settings that it was opened with. One that was opened with a network that does
not exist could never end, whatever is mended afterwards.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ssl_core.config import Config, Images, ledger_url
from ssl_core.errors import ConfigError
from ssl_core.masks.networks import build_segmenter
from ssl_core.recipes import MASK_RECIPES, RECIPES, Fit, FitMasks, Plan, Pretrain, PseudoMasks, plan
from ssl_core.records import Task
from ssl_core.strategies import ALL_NEEDS as NEEDS
from ssl_core.strategies import suited
from ssl_core.training.distributed import check_devices
from ssl_core.training.models import build_model
from ssl_core.training.predict import choose_device, tta_views


def check_settings(config: Config, findings: int) -> None:
    """Try out what a round of C = `findings` would use.

    Raises:
        ConfigError: the strategies, the recipe, the network, the device or the ledger's address
            cannot be used as configured; one sentence.
    """
    ledger_url(config, Path())
    recipe = plan(config.recipe)
    _check_strategies(config, recipe)
    _check_network(config, recipe, findings)
    _check_device(config.compute.device)


def check_task(task: Task, config: Config) -> None:
    """Refuse settings that are of another task or of other findings.

    Raises:
        ConfigError: `[alarm]` names what is no finding, or the recipe or a strategy is for another
            kind of task.
    """
    for name in config.alarm.ignore:
        if name not in task.findings:
            raise ConfigError(
                f"alarm.ignore names {name!r}, which is no finding here; use some of "
                f"{', '.join(task.findings)}."
            )
    segmentation = task.kind == "segmentation"
    name = plan(config.recipe).name
    fitting = MASK_RECIPES if segmentation else RECIPES
    if name not in fitting:
        what = "draws masks" if segmentation else "asks for labels of whole images"
        raise ConfigError(
            f"recipe.name = {name!r} does not fit a task that {what}: use one of "
            f"{', '.join(sorted(fitting))}."
        )
    for key in ("strategy", "cold_start"):
        chosen = getattr(config.selection, key)
        if chosen in NEEDS and chosen not in suited(segmentation):  # others: `check_settings`
            raise ConfigError(
                f"selection.{key} = {chosen!r} does not fit this task: use one of "
                f"{', '.join(suited(segmentation))}."
            )


def _check_strategies(config: Config, recipe: Plan) -> None:
    selection = config.selection
    for key, name in (("strategy", selection.strategy), ("cold_start", selection.cold_start)):
        if name not in NEEDS:
            raise ConfigError(
                f"selection.{key} = {name!r} is unknown; use one of {', '.join(sorted(NEEDS))}."
            )
    if NEEDS[selection.cold_start] - {"features"}:
        usable = ", ".join(sorted(n for n in NEEDS if not NEEDS[n] - {"features"}))
        raise ConfigError(
            f"selection.cold_start = {selection.cold_start!r} needs a trained model, and the first "
            f"round has none; use one of {usable}."
        )
    wanted = {"teacher_probabilities", "members"} & NEEDS[selection.strategy]
    if wanted and len(recipe.fits) < 2:
        other = "mask_entropy" if recipe.name in MASK_RECIPES else "margin"
        raise ConfigError(
            f"selection.strategy = {selection.strategy!r} compares two models and the recipe "
            f"{recipe.name!r} makes one: choose a recipe with a teacher and a student, or "
            f"{other!r}."
        )


def _check_network(config: Config, recipe: Plan, findings: int) -> None:
    if recipe.name in MASK_RECIPES:
        _check_segmenters(config, recipe, findings)
        return
    images, own = config.images, (config.model.backbone, config.model.weights)
    wanted = {own: 0}
    for stage in recipe.stages:
        if not isinstance(stage, Fit | Pretrain):
            continue
        other = isinstance(stage, Fit) and stage.backbone
        network = (other, stage.weights) if isinstance(stage, Fit) and other else own
        frozen = stage.schedule.frozen_blocks
        wanted[network] = max(wanted.get(network, 0), frozen)
    for (backbone, weights), frozen in wanted.items():
        _try_network(images, backbone, weights, frozen, recipe, findings)


def _check_segmenters(config: Config, recipe: Plan, findings: int) -> None:
    """Try each network that draws masks; a student must not have fewer weights than a teacher."""
    blank = torch.zeros(1, config.images.channels, config.images.size, config.images.size)
    sizes: dict[str, tuple[str, int]] = {}
    for stage in recipe.stages:
        if isinstance(stage, PseudoMasks):
            _check_thresholds(stage, findings)
        if not isinstance(stage, FitMasks):
            continue
        own = (config.model.backbone, config.model.weights)
        backbone, weights = (stage.backbone, stage.weights) if stage.backbone else own
        model = build_segmenter(backbone, findings, weights=weights, auxiliary=stage.auxiliary)
        model.freeze(stage.schedule.frozen_blocks, norm=False)
        if config.images.size <= model.multiple and not stage.schedule.frozen_norm:
            raise ConfigError(
                f"images.size = {config.images.size} leaves one pixel of {backbone}'s deepest "
                f"layer, of which one image has no statistics: use {2 * model.multiple} or more."
            )
        sizes[stage.name] = backbone, sum(p.numel() for p in model.parameters())
        with torch.inference_mode():
            model.eval()(blank)
        for teacher in stage.not_smaller_than:
            if sizes[stage.name][1] < sizes[teacher][1]:
                raise ConfigError(
                    f"recipe.backbones: {backbone} has fewer weights than {sizes[teacher][0]}, its "
                    "teacher: a student is to be at least as large."
                )


def _check_thresholds(stage: PseudoMasks, findings: int) -> None:
    for name in ("positive", "negative"):
        numbers = getattr(stage, name)
        if isinstance(numbers, tuple) and len(numbers) not in (1, findings):
            raise ConfigError(
                f"recipe.{name} has {len(numbers)} numbers and the task {findings} findings: give "
                "one for each, or one for all."
            )


def _try_network(
    images: Images, backbone: str, weights: str, frozen: int, recipe: Plan, findings: int
) -> None:
    network = build_model(backbone, findings, weights=weights).eval()
    network.freeze(frozen, norm=False)
    blank = torch.zeros(1, images.channels, images.size, images.size)
    try:
        with torch.inference_mode():
            network(next(tta_views(blank, recipe.tta)))
    except RuntimeError:
        raise ConfigError(
            f"images.size = {images.size} is too small for {backbone} with tta = {recipe.tta!r}: "
            "choose a larger size or another network."
        ) from None


def _check_device(wanted: str) -> None:
    check_devices(choose_device(wanted))
    try:
        torch.zeros(1, device=choose_device(wanted)).item()
    # By the build of torch: no such device, CUDA that was not compiled in, a backend without zeros.
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(
            f"compute.device = {wanted!r} cannot be used on this machine: use 'auto' or 'cpu'."
        ) from None
