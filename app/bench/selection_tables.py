"""The table of strategies: for the terminal, and as JSON, Markdown and a picture."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from app import show
from app.bench.frozen import BACKBONE, COMPONENTS, SIZE, Frozen
from app.bench.plots import COLOURS, GREY
from app.bench.selection import CONTROL, Curves, Row, Trial
from ssl_core.evidence import Difference, Estimate
from ssl_core.simulate import plain

DRAWN = 6  # curves in the picture besides the control's


def save(frozen: Frozen, trial: Trial, curves: Curves, rows: Sequence[Row], path: Path) -> None:
    """Write `path` with the endings .json, .md and .png."""
    told = {
        "data": frozen.data,
        "split": frozen.split,
        "trial": asdict(trial),
        "rows": [asdict(row) | {"verdicts": row.verdicts} for row in rows],
        "cells": [
            {"strategy": name, "query_size": size, "seed": seed, "auroc": curve}
            for (name, size, seed), curve in curves.items()
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(plain(told), indent=1), encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(frozen, trial, rows), encoding="utf-8")
    plot(frozen, trial, rows, path.with_suffix(".png"))


def markdown(frozen: Frozen, trial: Trial, rows: Sequence[Row]) -> str:
    """A line a measure, query size and strategy; wins, ties and losses; what the numbers are."""
    heads = _heads(trial)
    lines = [_line(heads), _line(["---"] * len(heads))]
    lines += [_line(_cells(trial, rows, row, " ")) for row in rows]
    title = f"**Query strategies on {frozen.data}, {frozen.split}**"
    return "\n".join([title, "", *lines, "", tally(rows), "", caption(frozen, trial), ""])


def terminal(frozen: Frozen, trial: Trial, rows: Sequence[Row]) -> Table:
    """The same for the terminal, the differences below their values."""
    made = show.table(f"Query strategies on {frozen.data}, {frozen.split}", _heads(trial), left=3)
    made.caption, made.caption_justify = f"{tally(rows)}\n{caption(frozen, trial)}", "left"
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = following is None or following.strategy == CONTROL
        made.add_row(*_cells(trial, rows, row, "\n"), end_section=ends)
    return made


def tally(rows: Sequence[Row]) -> str:
    """Wins, ties and losses of each strategy against random, over all its cells."""
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        if row.strategy != CONTROL:
            counted.setdefault(row.strategy, Counter()).update(row.verdicts.values())
    told = (f"{name} {c['win']}/{c['tie']}/{c['loss']}" for name, c in counted.items())
    return f"Wins/ties/losses against random: {', '.join(told)}."


def caption(frozen: Frozen, trial: Trial) -> str:
    """What the numbers are, and how they were made."""
    rule, seeds = trial.rule, trial.seeds
    return (
        f"AUROC on the vault ({len(frozen.vault.features):,} items; pool "
        f"{len(frozen.train.features):,}), mean ± standard deviation over {len(seeds)} seeds "
        f"({seeds[0]} to {seeds[-1]}), each with {rule.pool_share:.0%} of the pool's patients; "
        f"below it the difference to random, paired by seed, with "
        f"its 95 % interval; * one without 0. Frozen features ({BACKBONE}, {SIZE} px, "
        f"{COMPONENTS} principal components of the pool), logistic regression with "
        f"C = {rule.inverse_penalty:g}/D. "
        f"Each round asks {rule.random_share:.0%} at random and no more than {rule.group_cap} of "
        f"a patient; what needs a model begins with {rule.start}. 'Reaches' is the share of the "
        f"last budget at which the mean curve is as high as random's at its end, bootstrapped "
        "over seeds; 'spread' is the standard deviation at the first budget against random's."
    )


def _heads(trial: Trial) -> list[str]:
    numbers = [f"{budget:,} labels" for budget in trial.budgets]
    return ["measure", "a round", "strategy", *numbers, "reaches", "spread"]


def _cells(trial: Trial, rows: Sequence[Row], row: Row, gap: str) -> list[str]:
    control = next(
        r
        for r in rows
        if (r.measure, r.query_size, r.strategy) == (row.measure, row.query_size, CONTROL)
    )
    first = trial.budgets[0]
    numbers = [_number(row, budget, gap) for budget in trial.budgets]
    ratio = row.spread[first] / control.spread[first] if control.spread[first] else math.nan
    told = [row.measure, str(row.query_size), row.strategy, *numbers]
    return [*told, _share(row.reaches, gap), "–" if math.isnan(ratio) else f"{ratio:.2f}"]


def _number(row: Row, budget: int, gap: str) -> str:
    value = f"{show.number(row.auroc[budget])} ± {show.number(row.spread[budget])}"
    found = row.difference.get(budget)
    if found is None:
        return value
    whole = Difference(found.value, found.low, found.high, math.nan, found.n)
    return f"{value}{gap}{show.difference(whole)}"


def _share(found: Estimate, gap: str) -> str:
    """A share of the last budget; "> 1" where random's level is not reached by then."""

    def told(value: float) -> str:
        return "> 1" if math.isinf(value) else f"{value:.2f}"

    return f"{told(found.value)}{gap}[{told(found.low)}, {told(found.high)}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(frozen: Frozen, trial: Trial, rows: Sequence[Row], path: Path) -> None:
    """Save the picture: the differences to random by budget, a panel a measure and query size."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    panels: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row.strategy != CONTROL:
            panels.setdefault((row.measure, row.query_size), []).append(row)
    figure = Figure(figsize=(5.2 * max(1, len(panels)) + 1, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for one, ((measure, size), some) in zip(axes, panels.items(), strict=False):
        _panel(one, trial, some)
        one.set_title(f"{measure}, {size} a round", fontsize=10)
    axes[0].set_ylabel("AUROC − random")
    axes[-1].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{frozen.data}, {frozen.split} (bars: 95 % over seeds)", fontsize=10)
    figure.savefig(path)


def _panel(axes: Any, trial: Trial, rows: Sequence[Row]) -> None:
    mean = {row.strategy: np.mean([d.value for d in row.difference.values()]) for row in rows}
    best = sorted(mean, key=lambda name: (name != "auto", -mean[name]))[:DRAWN]
    axes.axhline(0.0, color=GREY, linestyle="--", label=CONTROL)
    place = np.arange(len(trial.budgets))
    for k, (name, colour) in enumerate(zip(best, COLOURS, strict=False)):
        row = next(row for row in rows if row.strategy == name)
        found = [row.difference[budget] for budget in trial.budgets]
        reach = [[d.value - d.low for d in found], [d.high - d.value for d in found]]
        shifted = place + 0.08 * (k - len(best) / 2)
        values = [d.value for d in found]
        axes.errorbar(shifted, values, reach, marker="o", color=colour, label=name, capsize=2)
    axes.set_xticks(place, [f"{budget:,}" for budget in trial.budgets])
    axes.set_xlabel("training labels")
    axes.grid(alpha=0.25)
