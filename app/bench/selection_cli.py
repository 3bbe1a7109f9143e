"""`readloop bench selection|peers`: query strategies on real data, and beside other libraries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import show
from app.arguments import numbers, words
from app.bench.datasets import check_splits
from app.bench.papers import recipes
from ssl_core.errors import ConfigError

if TYPE_CHECKING:  # with them comes torch's weight
    from app.bench.selection import Trial
    from app.bench.study import Study

ALL = (
    "random,class_balanced_random,entropy,margin,least_confidence,bald,cold_start,kmeans_start,"
    "k_center,badge,prob_cover,margin_diverse,auto"
)
FEW = "random,margin,auto"


def selection(
    data: Annotated[Path, typer.Option(help="Folder with manifest.csv and images.")],
    dataset: Annotated[str, typer.Option(help="kermany, kermany-subtype, nih or ham10000.")],
    split: Annotated[str, typer.Option(help="grouped (by patient) or official.")] = "grouped",
    weights: Annotated[str, typer.Option(help="Of mobilenet_v2: a file, imagenet or none.")] = "",
    strategies: Annotated[
        str | None,
        typer.Option(help=f"By commas  [default: all; with --full-recipe: {FEW}]"),
    ] = None,
    budgets: Annotated[str, typer.Option(help="Training labels, by commas.")] = "52,104,260",
    query_sizes: Annotated[str, typer.Option(help="Labels a round, by commas.")] = "26,52",
    seeds: Annotated[int | None, typer.Option(help="[default: 20; --full-recipe: 3]")] = None,
    first_seed: Annotated[int, typer.Option(help="Number of the first seed.")] = 0,
    random_share: Annotated[float, typer.Option(min=0, max=1, help="Of every round.")] = 0.15,
    start: Annotated[
        str, typer.Option(help="Begins where a strategy needs a model and there is none.")
    ] = "kmeans_start",
    full_recipe: Annotated[
        bool, typer.Option("--full-recipe", help="Train networks: `simulate` at the budgets.")
    ] = False,
    recipe: Annotated[str, typer.Option(help="Of --full-recipe.")] = "supervised",
    preset: Annotated[str, typer.Option(help="Of --full-recipe: fast, paper or tiny.")] = "fast",
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time; they share the cores.")] = 1,
    out: Annotated[Path, typer.Option(help="What is finished is kept there.")] = Path(
        "bench/selection"
    ),
) -> None:
    """Strategies against random on frozen features, over many seeds; or with a full recipe."""
    check_splits(dataset, [split])
    first, last = first_seed, first_seed + (seeds or (3 if full_recipe else 20))
    names = tuple(words(strategies or (FEW if full_recipe else ALL)))
    if full_recipe:
        study = _study(dataset, split, names, recipe, preset, budgets, range(first, last))
        _with_networks(replace(study, sources={dataset: data}, weights=weights, jobs=jobs), out)
        return
    from app.bench import selection as bench
    from app.bench.selection_loop import Rule

    trial = bench.Trial(
        strategies=names,
        budgets=tuple(sorted(set(numbers(budgets, "--budgets")))),
        query_sizes=tuple(numbers(query_sizes, "--query-sizes")),
        seeds=tuple(range(first, last)),
        rule=Rule(start=start, random_share=random_share),
        jobs=jobs,
    )
    bench.check(trial)
    if not weights:
        raise ConfigError("--weights is missing: give a file of mobilenet_v2, imagenet or none.")
    _on_features(trial, dataset, split, data, weights, out)


def _on_features(
    trial: Trial, dataset: str, split: str, data: Path, weights: str, out: Path
) -> None:
    from app.bench import selection as bench
    from app.bench.frozen import frozen
    from app.bench.selection_tables import save, terminal

    with show.progress_bars() as report:
        found = frozen(dataset, split, data, weights, out, report)
    curves = bench.run(found, trial, out, show.console.print)
    rows = bench.rows_of(found, trial, curves)
    path = out / f"{dataset}-{split}"
    save(found, trial, curves, rows, path)
    show.console.print(terminal(found, trial, rows))
    print(f"Saved {path}.json, .md and .png.")


def _study(
    dataset: str,
    split: str,
    names: tuple[str, ...],
    recipe: str,
    preset: str,
    budgets: str,
    seeds: range,
) -> Study:
    from app.bench.study import Study

    table = recipes([recipe], preset)[recipe]
    return Study(
        name=f"selection-{dataset}-{split}-{recipe}",
        title=f"Query strategies on {dataset} with {recipe}",
        sources={},
        splits=(split,),
        variants=dict.fromkeys(names, table),
        strategies={name: name for name in names},
        axis="strategy",
        baseline="random" if "random" in names else "",
        budgets=tuple(words(budgets)),
        seeds=tuple(seeds),
        preset=preset,
        note="A round asks up to the next budget.",
    )


def _with_networks(study: Study, out: Path) -> None:
    from app.bench import running, tables

    with show.progress_bars() as report:
        rows = running.run_study(study, out, report=report, say=show.console.print)
    show.console.print(tables.terminal(study, rows))
    print(f"Saved {out / study.name}.json, .md and .png.")


def peers(
    sizes: Annotated[str, typer.Option(help="Items of the pool, by commas.")] = "2000,20000,100000",
    width: Annotated[int, typer.Option(min=2, help="Features an item.")] = 512,
    asked: Annotated[int, typer.Option(min=1, help="Items asked.")] = 100,
    seconds: Annotated[
        float, typer.Option(help="A peer that took longer meets no larger pool.")
    ] = 60.0,
    out: Annotated[Path, typer.Option(help="JSON file of the rows.")] = Path("bench/peers.json"),
) -> None:
    """Speed and picks beside scikit-activeml, small-text and modAL, on the same arrays."""
    from app.bench import peers as bench

    bench.check()
    rows = bench.run(numbers(sizes, "--sizes"), width, asked, seconds, show.console.print)
    bench.save(rows, out)
    show.console.print(bench.table(rows))
    print(f"Saved {out}.")


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("selection")(selection)
    cli.command("peers")(peers)
