"""What a benchmark compares: recipes on data sets, as arms that share pixels, labels and caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.bench.datasets import check_splits, workspace_of
from ssl_core.arms import Arm, arm_config
from ssl_core.config import Config, validated
from ssl_core.errors import ConfigError
from ssl_core.evidence import PerFinding
from ssl_core.preflight import check_settings
from ssl_core.presets import preset
from ssl_core.progress import Report
from ssl_core.recipes import Pretrain, plan
from ssl_core.simulate import Cell, resolve_budgets
from ssl_core.training.predict import choose_device
from ssl_core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Study:
    """One table.

    name: of its files; title, note: what stands above and below it.
    sources: the folder of each data set.
    variants: what is compared, each a `[recipe]` table; `axis` says what their names are.
    baseline: the variant that the others are held against, each stage against that of the same
        name or the last; "" holds each stage against the first one of its own variant, which
        learned from the labels alone.
    control: a variant that each stage of the others is held against besides, by its name; or "".
    budgets: numbers of labels, shares of the pool such as "2%", or "all"; rising.
    ceiling: of budget "all" the baseline alone is run, as the upper bound: nothing is left then
        that the others could learn from besides.
    small_validation: as many validation labels as training labels at the most, each budget apart.
    metrics: the ledger's names of what is shown. The first is paired by seed and patient (AUROC,
        or Dice where masks are drawn), the second by seed.
    strategies: of the variants that do not ask by `strategy`.
    """

    name: str
    title: str
    sources: Mapping[str, Path]
    splits: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]]
    budgets: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    weights: str = ""
    size: int | None = None
    device: str = "auto"
    strategy: str = "random"
    small_validation: bool = False
    jobs: int = 1
    axis: str = "recipe"
    baseline: str = "supervised"
    control: str = ""
    metrics: tuple[str, ...] = ("auroc", "accuracy")
    note: str = ""
    strategies: Mapping[str, str] = field(default_factory=dict)
    ceiling: bool = False

    def asks(self, variant: str) -> str:
        """The strategy that a variant asks by."""
        return self.strategies.get(variant, self.strategy)


@dataclass(frozen=True, slots=True)
class Run:
    """One arm of a study; `asked` names the budgets that it is run for, by number of labels.

    `caches`: what it computes at its first run and other arms share.
    """

    data: str
    split: str
    variant: str
    workspace: Workspace
    arm: Arm
    asked: Mapping[int, str]
    caches: frozenset[tuple[Path, str]]


@dataclass(frozen=True, slots=True)
class Found:
    """A cell, and each of its stages' first metric with what a paired test needs."""

    run: Run
    cell: Cell
    evidence: Mapping[str, PerFinding]


def check(study: Study) -> None:
    """Try out everything that can be tried before an image is opened.

    Raises:
        ConfigError: an option cannot be used.
    """
    for name in study.sources:
        check_splits(name, list(study.splits))
    if not study.seeds or not study.variants or not study.budgets or not study.sources:
        raise ConfigError("There is nothing to run: give at least a seed, a budget and a recipe.")
    for budget in study.budgets:
        resolve_budgets([budget], 10**9)
    for name, table in study.variants.items():
        side = study.size or preset(study.preset, table["name"])["images"]["size"]
        config = config_of(study, table, {"folder": "", "size": side})
        for seed in study.seeds:
            config = arm_config(config, study.asks(name), seed)
        check_settings(config, findings=2)


def config_of(study: Study, recipe: Mapping[str, Any], images: Mapping[str, Any]) -> Config:
    """The configuration that a variant is run with, but for strategy and seed."""
    model = dict(preset(study.preset, recipe["name"])["model"])
    if study.weights:
        known = study.weights in ("imagenet", "none")
        model["weights"] = study.weights if known else str(Path(study.weights).resolve())
    tables = {
        "images": dict(images),
        "model": model,
        "recipe": dict(recipe),
        # Named, so that what one device computed is not taken for another's.
        "compute": {"device": choose_device(study.device)},
    }
    return validated(Config, tables, "the options given")


def runs(study: Study, out: Path, report: Report) -> list[Run]:
    """All arms of a study, seed by seed, so that what is done first can be compared already.

    Makes the workspaces that are missing.
    """
    places = {
        (data, split): workspace_of(data, split, folder, out, study.preset, study.size, report)
        for data, folder in study.sources.items()
        for split in study.splits
    }
    return [
        run
        for seed in dict.fromkeys(study.seeds)
        for (data, split), base in places.items()
        for name, table in study.variants.items()
        for run in _of_variant(study, data, split, base, name, table, seed)
    ]


def _of_variant(
    study: Study,
    data: str,
    split: str,
    base: Workspace,
    name: str,
    table: Mapping[str, Any],
    seed: int,
) -> Iterator[Run]:
    config = config_of(study, table, base.config.images.model_dump())
    workspace = Workspace(base.root, config, base.ledger, base.images)
    shared = str(table["name"]) if study.strategies else name  # one recipe, asked for otherwise
    caches = frozenset((base.root, cache) for cache in _caches(shared, table))
    study = replace(study, strategy=study.asks(name))
    if study.ceiling and study.baseline not in ("", name):
        study = replace(study, budgets=tuple(b for b in study.budgets if b != "all"))
    if not study.budgets:
        return
    for arm, asked in _arms(study, base, seed):
        yield Run(data, split, name, workspace, arm, asked, caches)


def _arms(study: Study, base: Workspace, seed: int) -> Iterator[tuple[Arm, dict[int, str]]]:
    """One arm through all budgets; with small validation one for each, with its own cap.

    A strategy that learns from models is then led through the budgets before it.
    """
    steps = resolve_budgets(study.budgets, len(base.ledger.items("train")))
    if not study.small_validation:
        yield Arm(study.strategy, seed, tuple(steps)), dict(zip(steps, study.budgets, strict=True))
        return
    for k, (labels, asked) in enumerate(zip(steps, study.budgets, strict=True)):
        path = [labels] if study.strategy == "random" else steps[: k + 1]
        yield Arm(study.strategy, seed, tuple(path), validation=labels), {labels: asked}


def _caches(name: str, table: Mapping[str, Any]) -> Sequence[str]:
    made = plan(table)
    pretrains = any(isinstance(stage, Pretrain) for stage in made.stages)
    own = [f"of {name}"] if pretrains or made.stem_blocks else []
    return [*own, "frozen blocks"] if made.stem_blocks else own
