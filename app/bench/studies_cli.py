"""`readloop bench s0|s1|s2|s3|s4|recipes`: the papers' tables on real data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app import show
from app.arguments import numbers, words
from app.bench import papers
from ssl_core.errors import ConfigError

DataFolder = Annotated[Path, typer.Option("--data", help="Folder with manifest.csv and images.")]
Parts = Annotated[str, typer.Option(help="grouped (by patient), official or both, by commas.")]
Budgets = Annotated[str, typer.Option(help="Training labels, by commas: numbers, 2% or all.")]
Seeds = Annotated[str, typer.Option(help="By commas; each draws its own labels.")]
Recipes = Annotated[str, typer.Option(help="By commas.")]
Preset = Annotated[str, typer.Option(help="fast, paper or tiny.")]
Weights = Annotated[str, typer.Option(help="Of the backbone, instead of the preset's.")]
Size = Annotated[int | None, typer.Option(min=16, help="Side in pixels, not the preset's.")]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Arms at a time  [default: one a core; 1 on a GPU]")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
Strategy = Annotated[str, typer.Option(help="Which labels: random, or a query strategy.")]
SmallValidation = Annotated[
    bool, typer.Option("--small-validation", help="Validation no larger than the budget.")
]
Out = Annotated[Path, typer.Option(help="Folder of the table; what is finished is kept there.")]


def s0(
    data: DataFolder,
    sweep: Annotated[str, typer.Option(help="keep_fraction or augmentation: S0's figures.")] = "",
    weights: Weights = "",
    seeds: Seeds = "0,1,2",
    budgets: Annotated[
        str | None, typer.Option(help="As in s1  [default: 52,104,260,all; of a sweep: 104]")
    ] = None,
    splits: Annotated[
        str | None, typer.Option(help="As in s1  [default: grouped,official; of a sweep: grouped]")
    ] = None,
    preset: Preset = "fast",
    size: Size = None,
    strategy: Strategy = "random",
    small_validation: SmallValidation = False,
    jobs: Jobs = None,
    device: Device = "auto",
    out: Out = Path("bench/s0"),
) -> None:
    """S0 on kermany: teacher, intermediate and student; or one of its parameters swept."""
    if sweep and sweep not in papers.SWEEPS:
        raise ConfigError(f"--sweep {sweep!r} is unknown; use {' or '.join(papers.SWEEPS)}.")
    axis, variants = papers.SWEEPS.get(sweep, ("recipe", None))
    _run(
        name=f"s0-{sweep}" if sweep else "s0",
        title=f"S0 on kermany: {axis}" if sweep else "S0 on kermany",
        sources={"kermany": data},
        variants=variants(preset) if variants else papers.recipes(["teacher_student"], preset),
        axis=axis,
        baseline="",
        note=papers.ANCHOR,
        weights=weights,
        seeds=seeds,
        budgets=("104" if sweep else "52,104,260,all") if budgets is None else budgets,
        splits=("grouped" if sweep else "grouped,official") if splits is None else splits,
        preset=preset,
        size=size,
        strategy=strategy,
        small_validation=small_validation,
        jobs=jobs,
        device=device,
        out=out,
    )


def s1(
    data: DataFolder,
    recipes: Recipes = papers.S1,
    weights: Weights = "",
    seeds: Seeds = "0,1,2,3,4",
    budgets: Budgets = "52,104,260",
    splits: Parts = "grouped,official",
    preset: Preset = "fast",
    size: Size = None,
    strategy: Strategy = "random",
    small_validation: SmallValidation = False,
    jobs: Jobs = None,
    device: Device = "auto",
    out: Out = Path("bench/s1"),
) -> None:
    """S1 on kermany: SimCLRv2 with distillation, FixMatch and the supervised baseline."""
    _run(
        name="s1",
        title="S1 on kermany",
        sources={"kermany": data},
        variants=papers.recipes(words(recipes), preset),
        metrics=("auroc", "accuracy", "precision", "sensitivity"),
        note=papers.S1_CLAIMS,
        weights=weights,
        seeds=seeds,
        budgets=budgets,
        splits=splits,
        preset=preset,
        size=size,
        strategy=strategy,
        small_validation=small_validation,
        jobs=jobs,
        device=device,
        out=out,
    )


def s2(
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the folders nih and ham10000.")
    ] = None,
    nih: Annotated[Path | None, typer.Option(help="Folder of nih alone.")] = None,
    ham10000: Annotated[Path | None, typer.Option(help="Folder of ham10000 alone.")] = None,
    recipes: Recipes = papers.S2,
    weights: Weights = "",
    seeds: Seeds = "0,1,2,3,4",
    budgets: Budgets = "2%,5%,10%,20%",
    splits: Parts = "grouped",
    preset: Preset = "fast",
    size: Size = None,
    strategy: Strategy = "random",
    small_validation: SmallValidation = False,
    jobs: Jobs = None,
    device: Device = "auto",
    out: Out = Path("bench/s2"),
) -> None:
    """S2 on nih (14 findings) and ham10000 (7 classes): S2MTS2, mean teacher and the baseline."""
    given = {"nih": nih, "ham10000": ham10000}
    sources = {k: v or (data and data / k) for k, v in given.items()}
    if data is None and nih is None and ham10000 is None:
        raise ConfigError("There is no data: give --data, or --nih or --ham10000 or both.")
    _run(
        name="s2",
        title="S2 on nih and ham10000",
        sources={name: folder for name, folder in sources.items() if folder is not None},
        variants=papers.recipes(words(recipes), preset),
        weights=weights,
        seeds=seeds,
        budgets=budgets,
        splits=splits,
        preset=preset,
        size=size,
        strategy=strategy,
        small_validation=small_validation,
        jobs=jobs,
        device=device,
        out=out,
    )


MaskData = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds the folders lungseg and ham10000.")
]
LungSeg = Annotated[Path | None, typer.Option(help="Folder of lungseg alone.")]
Lesions = Annotated[Path | None, typer.Option(help="Folder of ham10000 alone.")]


def s3(
    data: MaskData = None,
    lungseg: LungSeg = None,
    ham10000: Lesions = None,
    variants: Annotated[str, typer.Option(help="Of S3's comparisons, by commas; none: all.")] = "",
    weights: Weights = "",
    seeds: Seeds = "0,1,2",
    budgets: Budgets = "5%",
    preset: Preset = "fast",
    size: Size = None,
    jobs: Jobs = None,
    device: Device = "auto",
    out: Out = Path("bench/s3"),
) -> None:
    """S3 on masks: initial teachers to the last iteration, ensembles, copy-paste, auxiliary."""
    known = papers.self_training(preset)
    chosen = words(variants) or list(known)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--variants {name!r} is unknown; use some of {', '.join(known)}.")
    _run(
        name="s3",
        title="S3: self-training of masks",
        sources=_mask_sources(data, lungseg, ham10000),
        variants={name: known[name] for name in chosen},
        axis="variant",
        baseline="",
        control=papers.S3_CONTROL,
        metrics=MASK_METRICS,
        note=papers.S3_CLAIMS,
        weights=weights,
        seeds=seeds,
        budgets=budgets,
        splits="grouped",
        preset=preset,
        size=size,
        jobs=jobs,
        device=device,
        out=out,
    )


def s4(
    data: MaskData = None,
    lungseg: LungSeg = None,
    ham10000: Lesions = None,
    recipes: Recipes = papers.S4,
    weights: Weights = "",
    seeds: Seeds = "0,1,2",
    budgets: Budgets = "5%,10%,25%,all",
    preset: Preset = "fast",
    size: Size = None,
    jobs: Jobs = None,
    device: Device = "auto",
    out: Out = Path("bench/s4"),
) -> None:
    """S4 on masks: the lower bound, mean teacher, weak-to-strong consistency, the upper bound.

    The upper bound is the baseline with all labels; the others are not run there.
    """
    _run(
        name="s4",
        title="S4: masks from few labels",
        sources=_mask_sources(data, lungseg, ham10000),
        variants=papers.recipes(words(recipes), preset),
        baseline="supervised_masks",
        metrics=MASK_METRICS,
        ceiling=True,
        note=papers.S4_CLAIMS,
        weights=weights,
        seeds=seeds,
        budgets=budgets,
        splits="grouped",
        preset=preset,
        size=size,
        jobs=jobs,
        device=device,
        out=out,
    )


MASK_METRICS = ("dice", "iou", "pixel accuracy")


def _mask_sources(
    data: Path | None, lungseg: Path | None, ham10000: Path | None
) -> dict[str, Path]:
    given = {"lungseg": lungseg, "ham10000-masks": ham10000}
    if data is not None:
        given = {
            "lungseg": lungseg or data / "lungseg",
            "ham10000-masks": ham10000 or data / "ham10000",
        }
    found = {name: folder for name, folder in given.items() if folder is not None}
    if not found:
        raise ConfigError("There is no data: give --data, or --lungseg or --ham10000 or both.")
    return found


def recipes_(
    dataset: Annotated[str, typer.Option(help="See README, Measured.")],
    data: DataFolder,
    recipes: Annotated[str, typer.Option(help="By commas; none: all of the preset's.")] = "",
    weights: Weights = "",
    seeds: Seeds = "0,1,2",
    budgets: Budgets = "52,104,260",
    splits: Parts = "grouped",
    preset: Preset = "fast",
    size: Size = None,
    strategy: Strategy = "random",
    small_validation: SmallValidation = False,
    jobs: Jobs = None,
    device: Device = "auto",
    out: Out = Path("bench/recipes"),
) -> None:
    """Any recipes on any of the data sets."""
    _run(
        name=f"recipes-{dataset}",
        title=f"Recipes on {dataset}",
        sources={dataset: data},
        variants=papers.recipes(words(recipes), preset),
        weights=weights,
        seeds=seeds,
        budgets=budgets,
        splits=splits,
        preset=preset,
        size=size,
        strategy=strategy,
        small_validation=small_validation,
        jobs=jobs,
        device=device,
        out=out,
    )


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    named = {"s0": s0, "s1": s1, "s2": s2, "s3": s3, "s4": s4, "recipes": recipes_}
    for name, command in named.items():
        cli.command(name)(command)


def _run(
    *,
    variants: Mapping[str, Mapping[str, Any]],
    baseline: str = "supervised",
    seeds: str,
    budgets: str,
    splits: str,
    out: Path,
    jobs: int | None,
    device: str,
    **options: Any,
) -> None:
    from app.bench import running, tables  # with them comes matplotlib's and torch's weight
    from app.bench.study import Study

    study = Study(
        variants=variants,
        baseline=baseline if baseline in variants else "",
        seeds=tuple(numbers(seeds, "--seeds")),
        budgets=tuple(words(budgets)),
        splits=tuple(words(splits)),
        jobs=jobs or running.arms_at_a_time(device),
        device=device,
        **options,
    )
    with show.progress_bars() as report:
        rows = running.run_study(study, out, report=report, say=show.console.print)
    show.console.print(tables.terminal(study, rows))
    print(f"Saved {out / study.name}.json, .md and .png.")
