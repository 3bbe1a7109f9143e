"""The lines of a study's table: means over seeds, and differences paired by seed and patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.bench.study import Found, Study
from ssl_core.evidence import Difference, Estimate, paired_mean_interval
from ssl_core.records import METRICS
from ssl_core.simulate import over_seeds, paired

SHOWN = {**METRICS, "iou": "IoU", "sensitivity": "recall"}
"""How a table calls some of the ledger's names."""

Key = tuple[str, str, str, str]
"""Data set, split, variant and the budget as it was asked."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model of a variant at one budget, over the seeds that are done.

    `last`: it is what the variant ends with. `labels` counts labeled items by split. `numbers`
    holds the vault's means over seeds with their intervals (of one seed, its own over patients).
    `difference` holds the study's first two metrics less the baseline's, of the seeds that both
    have; empty for the baseline. `beside` is the same against the study's control. `verdict` says
    in words what of that excludes zero. `seconds`: a mean cell, all its stages; what is computed
    once for many cells counts where it was.
    """

    data: str
    split: str
    budget: str
    labels: dict[str, int]
    variant: str
    stage: str
    last: bool
    numbers: dict[str, Estimate]
    difference: dict[str, Difference]
    beside: dict[str, Difference]
    verdict: str
    seconds: float
    seeds: tuple[int, ...]


def rows_of(study: Study, found: Sequence[Found]) -> list[Row]:
    """The lines of what was found so far, in the order of the study."""
    cells: dict[Key, dict[int, Found]] = {}
    for one in found:
        run = one.run
        key = (run.data, run.split, run.variant, run.asked[one.cell.budget])
        cells.setdefault(key, {})[run.arm.seed] = one
    return [
        _row(study, cells, key, stage)
        for data in study.sources
        for split in study.splits
        for budget in study.budgets
        for variant in study.variants
        if (key := (data, split, variant, budget)) in cells
        for stage in _stages(cells[key])
    ]


def _stages(cells: dict[int, Found]) -> list[str]:
    return list(next(iter(cells.values())).cell.stages)


def _row(study: Study, cells: dict[Key, dict[int, Found]], key: Key, stage: str) -> Row:
    data, split, variant, budget = key
    mine = cells[key]
    theirs = cells.get((data, split, study.baseline or variant, budget), {})
    other = _counterpart(study, theirs, stage)
    same = (study.baseline or variant, other) == (variant, stage)
    difference = {} if same else _difference(study, mine, stage, theirs, other)
    control = cells.get((data, split, study.control, budget), {})
    measured = variant != study.control and control and stage in _stages(control)
    beside = _difference(study, mine, stage, control, stage) if measured else {}
    words = (verdict(difference, study.baseline or other), verdict(beside, study.control))
    first = next(iter(mine.values())).cell
    return Row(
        data=data,
        split=split,
        budget=budget,
        labels=first.labels,
        variant=variant,
        stage=stage,
        last=stage == _stages(mine)[-1],
        numbers={
            name: over_seeds([one.cell.stages[stage][name] for one in mine.values()])
            for name in first.stages[stage]
            if name in study.metrics or " " not in name  # else of single findings
        },
        difference=difference,
        beside=beside,
        verdict=", ".join(filter(None, words)),
        seconds=float(np.mean([one.cell.seconds for one in mine.values()])),
        seeds=tuple(mine),
    )


def _counterpart(study: Study, theirs: dict[int, Found], stage: str) -> str:
    """The baseline's stage of the same name, or its last; of the variant's own, its first."""
    stages = _stages(theirs) if theirs else [""]
    if not study.baseline:
        return stages[0]
    return stage if stage in stages else stages[-1]


def _difference(
    study: Study, mine: dict[int, Found], stage: str, theirs: dict[int, Found], other: str
) -> dict[str, Difference]:
    seeds = [seed for seed in mine if seed in theirs]
    if not seeds:
        return {}
    first, second, *_ = study.metrics
    by_patient = paired(
        [mine[seed].evidence[stage] for seed in seeds],
        [theirs[seed].evidence[other] for seed in seeds],
    )
    by_seed = paired_mean_interval(
        [mine[seed].cell.stages[stage][second].value for seed in seeds],
        [theirs[seed].cell.stages[other][second].value for seed in seeds],
    )
    ends = (by_seed.value, by_seed.low, by_seed.high)
    return {first: by_patient, second: Difference(*ends, math.nan, by_seed.n)}


def verdict(difference: dict[str, Difference], baseline: str) -> str:
    """What of the differences excludes zero, as "AUROC worse than supervised"; "" if nothing."""
    words = []
    for name, found in difference.items():
        side = "worse" if found.high < 0 else "better" if found.low > 0 else ""
        if side:
            words.append(f"{SHOWN.get(name, name)} {side} than {baseline}")
    return ", ".join(words)
