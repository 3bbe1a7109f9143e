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
        one.set_ylim(max(0.0, low), min(1.0, high))  # two seeds have bars beyond what can be
    axes[0].set_ylabel(f"{METRICS.get(study.metrics[0], study.metrics[0])} on the vault")
    axes[0].legend(frameon=False)
    several = any(len(row.seeds) > 1 for row in rows)
    bars = "bars: 95 % over seeds" if several else "bars: 95 % over patients"
    figure.suptitle(f"{study.title} ({bars})", fontsize=10)
    figure.savefig(path)


def _against_labels(study: Study, rows: Sequence[Row], axes: Any) -> None:
    """A line for what each variant ends with."""
    for beside, (variant, colour) in _beside(_colours(list(study.variants), study.baseline)):
        mine = [row for row in rows if row.variant == variant and row.last]
        x = [row.labels["train"] * 1.02**beside for row in mine]
        _draw(axes, x, mine, variant, colour, study.metrics[0])
    axes.set_xscale("log")
    ticks = sorted({row.labels["train"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training labels")


def _against_variants(study: Study, rows: Sequence[Row], axes: Any) -> None:
    """Each stage over the variants: a line where they are numbers, else points side by side."""
    stages = list(dict.fromkeys(row.stage for row in rows))
    try:
        place, apart = {name: float(name) for name in study.variants}, 0.0
    except ValueError:
        place, apart = {name: float(k) for k, name in enumerate(study.variants)}, 0.12
    for beside, (stage, colour) in _beside(_colours(stages, stages[0])):
        mine = [row for row in rows if row.stage == stage]
        x = [place[row.variant] + apart * beside for row in mine]
        _draw(axes, x, mine, stage, colour, study.metrics[0], line=not apart)
    axes.set_xticks(list(place.values()), list(place), rotation=20 if apart else 0)
    axes.set_xlabel(study.axis)


def _colours(names: Sequence[str], grey: str) -> dict[str, str]:
    colours = iter(COLOURS)
    return {name: GREY if name == grey else next(colours, "#000000") for name in names}


def _beside(colours: dict[str, str]) -> list[tuple[float, tuple[str, str]]]:
    """Names and colours with how many places each stands from the middle: bars hide no others."""
    middle = (len(colours) - 1) / 2
    return [(k - middle, one) for k, one in enumerate(colours.items())]


def _draw(
    axes: Any,
    x: Sequence[float],
    rows: Sequence[Row],
    label: str,
    colour: str,
    metric: str,
    *,
    line: bool = True,
) -> None:
    if not rows:
        return
    estimates = [row.numbers[metric] for row in rows]
    down = [max(0.0, e.value - e.low) for e in estimates]  # of no interval, nothing
    up = [max(0.0, e.high - e.value) for e in estimates]
    style = ("o--" if colour == GREY else "o-") if line else "o"
    values = [e.value for e in estimates]
    axes.errorbar(x, values, (down, up), fmt=style, color=colour, label=label, capsize=2)
