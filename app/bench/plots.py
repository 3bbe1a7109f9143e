"""A study's picture: its first metric on the vault, a panel for each data set and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.bench.rows import Row
from app.bench.study import Study
from ssl_core.records import METRICS

# Okabe and Ito's colours: told apart with any colour vision; the baseline is grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#666666"


def plot(study: Study, rows: Sequence[Row], path: Path) -> None:
    """Save the picture: against the labels, or against the variants where those are a sweep."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    by_budget = study.axis in ("recipe", "strategy")
    panels: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row.data}, {row.split}"
        panels.setdefault(name if by_budget else f"{name}, {row.budget} labels", []).append(row)
    figure = Figure(figsize=(5.2 * len(panels) + 1, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for one, (name, some) in zip(axes, panels.items(), strict=True):
        (_against_labels if by_budget else _against_variants)(study, some, one)
        one.set_title(name, fontsize=10)
        one.grid(alpha=0.25)
        low, high = one.get_ylim()
        one.set_ylim(max(0.0, low), min(1.0, high))  # two seeds have bands beyond what can be
    axes[0].set_ylabel(f"{METRICS.get(study.metrics[0], study.metrics[0])} on the vault")
    axes[0].legend(frameon=False)
    several = any(len(row.seeds) > 1 for row in rows)
    band = "band: 95 % over seeds" if several else "band: 95 % over patients"
    figure.suptitle(f"{study.title} ({band})", fontsize=10)
    figure.savefig(path)


def _against_labels(study: Study, rows: Sequence[Row], axes: Any) -> None:
    """A line for what each variant ends with."""
    for variant, colour in _colours(list(study.variants), study.baseline).items():
        mine = [row for row in rows if row.variant == variant and row.last]
        x = [row.labels["train"] for row in mine]
        _draw(axes, x, mine, variant, colour, study.metrics[0])
    axes.set_xscale("log")
    ticks = sorted({row.labels["train"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training labels")


def _against_variants(study: Study, rows: Sequence[Row], axes: Any) -> None:
    """A line for each stage, over the variants as numbers, or in their order."""
    stages = list(dict.fromkeys(row.stage for row in rows))
    try:
        place = {name: float(name) for name in study.variants}
    except ValueError:
        place = {name: float(k) for k, name in enumerate(study.variants)}
    for stage, colour in _colours(stages, stages[0]).items():
        mine = [row for row in rows if row.stage == stage]
        x = [place[row.variant] for row in mine]
        _draw(axes, x, mine, stage, colour, study.metrics[0])
    axes.set_xticks(list(place.values()), list(place))
    axes.set_xlabel(study.axis)


def _colours(names: Sequence[str], grey: str) -> dict[str, str]:
    colours = iter(COLOURS)
    return {name: GREY if name == grey else next(colours, "#000000") for name in names}


def _draw(
    axes: Any, x: Sequence[float], rows: Sequence[Row], label: str, colour: str, metric: str
) -> None:
    if not rows:
        return
    estimates = [row.numbers[metric] for row in rows]
    style = "--" if colour == GREY else "-"
    axes.plot(x, [e.value for e in estimates], style, marker="o", color=colour, label=label)
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
