"""`readloop replay` and `claims`: what a strategy saved, its forecast and the verdict on it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app import show
from app.arguments import WorkspacePath, numbers, words
from app.rooms import archive_room
from ssl_core import tell
from ssl_core.arms import Arm
from ssl_core.claims.curve import CONTROL
from ssl_core.claims.kept_evidence import pair
from ssl_core.claims.proof import Proof, Replayed, proof, sentences
from ssl_core.errors import ConfigError
from ssl_core.evidence import Difference
from ssl_core.records import METRICS
from ssl_core.simulate import Cell, resolve_budgets, simulate
from ssl_core.workspace import open_workspace

Target = Annotated[
    float | None,
    typer.Option(help="An AUROC (Dice of masks), as .95: labels to it, saved and forecast."),
]


def replay(
    workspace: WorkspacePath,
    budgets: Annotated[str, typer.Option(help="Rising numbers of labels, as 52,104,260,all.")],
    strategies: Annotated[str, typer.Option(help="By commas; random is the control.")] = (
        "auto,margin,random"
    ),
    seeds: Annotated[str, typer.Option(help="By commas; one arm each.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="Folder for claims.json and claims.md.")] = None,
    target: Target = None,
) -> None:
    """Replay strategies beside random on an archive, and test what they would have saved."""
    ws = open_workspace(workspace)
    names = [name for name in words(strategies) if name != CONTROL]
    if not names:
        raise ConfigError(
            "--strategies names nothing but the control: give one to hold against it."
        )
    _check_target(target)
    place = _folder(out)
    chosen = list(dict.fromkeys(numbers(seeds, "--seeds")))
    with show.progress_bars() as report:
        found = simulate(
            ws,
            archive_room,
            budgets=words(budgets),
            strategies=names,
            seeds=chosen,
            control=CONTROL,
            report=report,
            on_cell=_print_cell,
        )
    steps = tuple(resolve_budgets(words(budgets), len(ws.ledger.items("train"))))
    held = [pair(ws, name, CONTROL, chosen, Arm(name, 0, steps)) for name in dict.fromkeys(names)]
    told = proof(ws, target, found=held, ask_models=True)
    show.console.print(show.label_cost_table(found))
    _print(told)
    if place is not None:
        (place / "claims.json").write_text(_json(told), encoding="utf-8")
        (place / "claims.md").write_text(markdown(told), encoding="utf-8")
        print(f"Saved {place / 'claims.json'} and {place / 'claims.md'}.")


def claims(
    workspace: WorkspacePath,
    target: Target = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What may be claimed of the workspace's own rounds and of what was replayed beside them."""
    _check_target(target)
    found = proof(open_workspace(workspace), target, ask_models=True)
    if as_json:
        print(_json(found))
    else:
        _print(found)


def _check_target(target: float | None) -> None:
    if target is not None and not 0 < target < 1:
        raise ConfigError(f"--target {target}: give an AUROC between 0 and 1, as .95.")


def _folder(out: Path | None) -> Path | None:
    """Make the folder now rather than after hours of training."""
    if out is None:
        return None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written ({error.strerror}).") from None
    return out


def _print_cell(cell: Cell) -> None:
    student = list(cell.stages.values())[-1]
    metric = next(name for name in METRICS if name in student)
    where, score = f"seed {cell.seed}, {cell.budget} labels", show.interval(student[metric])
    print(f"{cell.strategy}, {where}: {METRICS[metric]} {score}", flush=True)


def _print(found: Proof) -> None:
    for one in found.replayed:
        show.console.print(_table(one, found.metric))
    for sentence in sentences(found):
        print(sentence)
    for one in found.replayed:
        if one.outlook.forecast.back_test:
            show.console.print(_back_test(one))


def _rows(one: Replayed) -> list[tuple[str, str, str, str]]:
    """Labels, the strategy's AUROC (Dice), the control's, paired difference; last the area."""
    columns = zip(one.budgets, one.auroc, one.control_auroc, one.difference, strict=True)
    rows = [
        (f"{n:,.0f}", tell.interval(a), tell.interval(b), _starred(d)) for n, a, b, d in columns
    ]
    area = (tell.interval(one.area), tell.interval(one.control_area))
    return [*rows, ("area", *area, _starred(one.area_difference))]


def _starred(found: Difference) -> str:
    star = " *" if found.low > 0 or found.high < 0 else ""
    return tell.difference(found) + star


def _table(one: Replayed, metric: str) -> Table:
    title = f"{one.strategy} beside {one.control}: {metric}, paired"
    made = show.table(title, ("labels", one.strategy, one.control, "difference"), left=0)
    for row in _rows(one):
        made.add_row(*row)
    made.caption = "95 % over seeds and cases; *: excludes 0"
    return made


def _back_test(one: Replayed) -> Table:
    columns = ("labels", "forecast", "measured", "held")
    made = show.table(f"Back-test of the forecast, {one.strategy}", columns, left=0)
    for row in _tried(one):
        made.add_row(*row)
    return made


def _tried(one: Replayed) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{t.labels:,.0f}",
            tell.interval(t.forecast),
            tell.share(t.measured),
            "yes" if t.covered else "no",
        )
        for t in one.outlook.forecast.back_test
    ]


def _json(found: Proof) -> str:
    """Unknown numbers are null; an open end of an interval is "inf" or "-inf"."""
    return json.dumps({**_plain(asdict(found)), "sentences": sentences(found)}, indent=1)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def markdown(found: Proof) -> str:
    """The tables and the sentences, for a report."""
    parts = ["# Claims, tested", "\n".join(f"- {text}" for text in sentences(found))]
    for one in found.replayed:
        parts.append(
            f"## {one.strategy} beside {one.control}: {found.metric}, {len(one.seeds)} seeds"
        )
        parts.append(_grid(("labels", one.strategy, one.control, "difference"), _rows(one)))
        if one.outlook.forecast.back_test:
            parts.append("Back-test of the forecast: each point from those before it.")
            parts.append(_grid(("labels", "forecast", "measured", "held"), _tried(one)))
    return "\n\n".join(parts) + "\n"


def _grid(head: tuple[str, ...], rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines)


def add_to(cli: typer.Typer) -> None:
    """Give the commands to the `readloop` command."""
    cli.command()(replay)
    cli.command()(claims)
