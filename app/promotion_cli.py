"""`readloop promote`, `rollback` and `models`: which model is in use."""

from __future__ import annotations

import getpass
import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app import show
from app.arguments import WorkspacePath
from ssl_core.claims.promotion import candidates, find_candidate, find_in_use, promote, roll_back
from ssl_core.evidence import Estimate
from ssl_core.records import METRICS, Measurement, Split
from ssl_core.workspace import Workspace, open_workspace

By = Annotated[str, typer.Option(help="Who decides; without it, the name of this account.")]
Why = Annotated[str, typer.Option(help="The reason; it is kept.")]


def promote_(
    workspace: WorkspacePath,
    model: Annotated[
        str, typer.Option(help="How its id begins; without it, the newest student.")
    ] = "",
    override: Annotated[
        bool, typer.Option("--override", help="Although it fails the gate; needs --why.")
    ] = False,
    why: Why = "",
    by: By = "",
) -> None:
    """Put a model in use, if a loss larger than `[promotion] margin` is excluded."""
    ws = open_workspace(workspace)
    chosen = find_candidate(ws, model)
    with show.progress_bars() as report:
        verdict = promote(ws, chosen, by or _account(), why, override=override, report=report)
    print(verdict.sentence)
    print(f"In use: {chosen[1].stage} of round {chosen[0]}, model {chosen[1].id[:12]}.")


def rollback(workspace: WorkspacePath, why: Why = "", by: By = "") -> None:
    """Put the model in use that the newest promotion replaced."""
    number, model = roll_back(open_workspace(workspace), by or _account(), why)
    print(f"In use: {model.stage} of round {number}, model {model.id[:12]}.")


def models(
    workspace: WorkspacePath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The measured models, the one in use, and every decision on it."""
    found = models_of(open_workspace(workspace))
    if as_json:
        print(json.dumps(found, indent=1))
    elif not found["models"]:
        print(f"No round has measured a model yet: readloop round {workspace}")
    else:
        show.console.print(models_table(found))
        if found["decisions"]:
            show.console.print(decisions_table(found))
        else:
            print(_by_default(found["models"]))


def _by_default(measured: list[dict[str, Any]]) -> str:
    if measured[-1]["in_use"]:
        return "Nothing was promoted: the newest student is in use."
    stage = next((one["stage"] for one in measured if one["in_use"]), "none")
    return (
        "Nothing was promoted, and the newest student did not pass the gate against "
        f"{stage}, which is in use."
    )


def models_of(ws: Workspace) -> dict[str, Any]:
    """Plain data: every measured model with its AUROC (Dice of masks), and every decision."""
    current = find_in_use(ws)
    measured = {
        (number, m.stage, m.split): m
        for number, m in ws.ledger.measurements()
        if m.name == ws.ledger.task.metric and m.finding == "macro"
    }
    return {
        "metric": ws.ledger.task.metric,
        "in_use": current and {"round": current[0], "model": current[1].id},
        "models": [
            {
                "round": number,
                "stage": model.stage,
                "model": model.id,
                "in_use": current is not None
                and (number, model.stage, model.id)
                == (current[0], current[1].stage, current[1].id),
                **{split: _of(measured, number, model.stage, split) for split in _SPLITS},
            }
            for number, model in candidates(ws)
        ],
        "decisions": [
            {
                "kind": one.kind,
                "round": one.round,
                "stage": one.stage,
                "model": one.model_id,
                "replaced": one.replaced_id,
                "by": one.decided_by,
                "why": one.why,
                "verdict": json.loads(one.verdict) if one.verdict else None,
                "at": one.at,
            }
            for one in ws.ledger.promotions()
        ],
    }


_SPLITS: tuple[Split, Split] = ("validation", "vault")


def _of(
    measured: dict[tuple[int, str, Split], Measurement], number: int, stage: str, split: Split
) -> dict[str, float | None] | None:
    m = measured.get((number, stage, split))
    if m is None or m.value != m.value:
        return None
    ends = {"value": m.value, "low": m.low, "high": m.high}
    return {key: None if end != end else end for key, end in ends.items()}


def models_table(found: dict[str, Any]) -> Table:
    """One line a model."""
    columns = ("model", "stage", "round", "validation", "vault", "in use")
    title = f"Measured models: {METRICS[found['metric']]} [95 %]"
    made = show.table(title, columns, left=2)
    for one in found["models"]:
        cells = (_interval(one["validation"]), _interval(one["vault"]))
        mark = "in use" if one["in_use"] else ""
        made.add_row(one["model"][:12], escape(one["stage"]), str(one["round"]), *cells, mark)
    return made


def decisions_table(found: dict[str, Any]) -> Table:
    """One line a promotion, override or rollback, oldest first."""
    made = show.table("Decisions", ("when", "what", "model", "round", "by", "why"), left=3)
    made.columns[-1].no_wrap = False
    for one in found["decisions"]:
        when = one["at"][:16].replace("T", " ")
        who = (escape(one["by"]), escape(one["why"]))
        made.add_row(when, one["kind"], one["model"][:12], str(one["round"]), *who)
    return made


def _interval(found: dict[str, float | None] | None) -> str:
    if found is None:
        return "–"
    value, low, high = (
        float("nan") if found[end] is None else found[end] for end in ("value", "low", "high")
    )
    return show.interval(Estimate(value, low, high, 0))  # type: ignore[arg-type]


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def add_to(cli: typer.Typer) -> None:
    """Give the commands to the `readloop` command."""
    cli.command("promote")(promote_)
    cli.command()(rollback)
    cli.command()(models)
