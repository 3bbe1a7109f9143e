"""A study's table: for the terminal, and as JSON, Markdown and a picture beside the workspaces."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from app import show
from app.bench import plots
from app.bench.rows import SHOWN, Row, rows_of
from app.bench.study import Found, Study, config_of
from app.bench.throughput import device_name
from ssl_core.simulate import plain


def save(study: Study, out: Path, found: Sequence[Found]) -> None:
    """Write `<name>.json`, `.md` and, with a row to show, `.png`: each whole, or as it was."""
    rows = rows_of(study, found)
    path = out / study.name
    _write(path.with_suffix(".json"), json.dumps(plain(_everything(study, found, rows)), indent=1))
    _write(path.with_suffix(".md"), markdown(study, rows))
    if rows:
        scratch = path.with_suffix(".tmp.png")
        plots.plot(study, rows, scratch)
        scratch.replace(path.with_suffix(".png"))


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(f"{path.suffix}.tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _everything(study: Study, found: Sequence[Found], rows: Sequence[Row]) -> dict[str, Any]:
    told = asdict(study) | {"sources": {k: str(v) for k, v in study.sources.items()}}
    images = {"folder": "", "size": study.size or 16}
    return {
        **told,
        "configs": {
            name: config_of(study, table, images).model_dump(include={"model", "recipe"})
            for name, table in study.variants.items()
        },
        "machine": {
            "device": device_name(study.device),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "rows": [asdict(row) for row in rows],
        "cells": [_cell(one) for one in found],
    }


def _cell(one: Found) -> dict[str, Any]:
    run, cell = one.run, asdict(one.cell)
    return {"data": run.data, "split": run.split, "variant": run.variant, **cell}


def caption(study: Study, rows: Sequence[Row]) -> str:
    """What the numbers are, and where they come from."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    over = (
        f"mean over seeds {', '.join(map(str, seeds))} with its 95 % interval"
        if len(seeds) > 1
        else "one seed, 95 % over patients"
    )
    short = [row for row in rows if len(row.seeds) < len(set(study.seeds))]
    first_stage = f"the first stage of the same {study.axis}"
    against = " and ".join([study.baseline or first_stage, *_control(study)])
    first, second, *_ = (SHOWN.get(name, name) for name in study.metrics)
    drawn = "each strategy" if study.strategies else f"strategy {study.strategy}"
    return " ".join(
        [
            f"Vault: {over}; differences are against {against}, {first} paired by seed and "
            f"patient, {second} by seed.",
            f"Labels drawn by {drawn}; preset {study.preset}"
            + (f", {study.size} px" if study.size else "")
            + (", validation no larger than the budget" if study.small_validation else "")
            + f"; {device_name(study.device)}, torch {torch.__version__}.",
            *([f"{len(short)} rows are not of all seeds yet."] if short else []),
            *([study.note] if study.note else []),
        ]
    )


def markdown(study: Study, rows: Sequence[Row]) -> str:
    """The table as a README shows it: a line a model, bold for what a variant ends with."""
    shown = [SHOWN.get(name, name) for name in study.metrics]
    others = [study.baseline or "first stage", *_control(study)]
    heads = ["data", "labels", study.axis, "stage", *shown]
    heads += [f"{name} − {other}" for other in others for name in shown[:2]]
    heads += ["verdict", "seeds", "s"]
    lines = [f"**{study.title}**", "", _line(heads), _line(["---"] * len(heads))]
    for row in rows:
        stage = f"**{row.stage}**" if row.last else row.stage
        cells = [f"{row.data}, {row.split}", _budget(row), row.variant, stage]
        cells += [show.interval(row.numbers[name]) for name in study.metrics]
        for found in (row.difference, row.beside)[: len(others)]:
            cells += [show.difference(found.get(name)) for name in study.metrics[:2]]
        lines.append(_line([*cells, row.verdict, str(len(row.seeds)), f"{row.seconds:.0f}"]))
    return "\n".join([*lines, "", caption(study, rows), ""])


def _control(study: Study) -> list[str]:
    """The control's name, if it is run."""
    return [study.control] if study.control in study.variants else []


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _budget(row: Row) -> str:
    count = f"{row.labels['train']:,}"
    return count if row.budget in (count, str(row.labels["train"])) else f"{row.budget} = {count}"


def terminal(study: Study, rows: Sequence[Row]) -> Table:
    """The same for the terminal: a line a number, the models of a budget together.

    Where there is a control, differences are against it alone: the files have both.
    """
    against = [study.baseline or "first stage", *_control(study)][-1]
    columns = ("data", study.axis, "", "vault", f"− {against}")
    made = show.table(study.title, columns, left=3)
    for column in made.columns[:2]:  # rather broken names than figures that are cut off
        column.no_wrap, column.overflow = False, "fold"
    made.caption, made.caption_justify = caption(study, rows), "left"
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        place = (row.data, row.split, row.budget)
        ends = following is None or (following.data, following.split, following.budget) != place
        made.add_row(*map("\n".join, _terminal_cells(study, row)), end_section=ends)
    return made


def _terminal_cells(study: Study, row: Row) -> list[list[str]]:
    names = [SHOWN.get(name, name) for name in study.metrics]
    control = _control(study)
    found = row.beside if control else row.difference
    against = [show.difference(found[name]) if name in found else "" for name in study.metrics]
    told = [words.partition(" than ")[::2] for words in row.verdict.split(", ")]
    budget = row.budget if row.budget.endswith("%") else _budget(row)
    return [
        [row.data, row.split, f"{budget} labels"],
        [row.variant, row.stage, f"{row.seconds:.0f} s"],
        names,
        [show.interval(row.numbers[name]) for name in study.metrics],
        [*against, *(what for what, whom in told if (whom in control) == bool(control))],
    ]
