"""`readloop status`: what a workspace holds and where its loop stands."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from app import show
from app.rooms import is_archive
from ssl_core.auditing import pauses
from ssl_core.auditing.alarm import sentence
from ssl_core.claims import fallback
from ssl_core.claims.shadow_looks import shadow_looks
from ssl_core.evidence import Estimate
from ssl_core.history.ledger import Ledger
from ssl_core.readers.assignment import open_assignments, skipped_by_all
from ssl_core.readers.reading import panel_in
from ssl_core.records import CONTROL, DIFFERENCE, METRICS, Measurement, Selection, Task
from ssl_core.rounds import unfinished
from ssl_core.shadow import controls
from ssl_core.workspace import Workspace


def status_of(ws: Workspace) -> dict[str, Any]:
    """Plain data: items and labels by split, every round with its numbers, what to do next."""
    ledger = ws.ledger
    items = {split: len(ledger.items(split)) for split in ("train", "validation", "vault")}
    return {
        "workspace": str(ws.root),
        "task": ledger.task.kind,
        "metric": ledger.task.metric,
        "findings": list(ledger.task.findings),
        "ledger": ledger.url,
        "config": ws.config.digest(),
        "archive": is_archive(ws),
        "items": items,
        "labels": ledger.label_counts(),
        "rounds": rounds_of(ws),
        "vault_looks": len(ledger.vault_looks()),
        "next": _next(ws),
    }


def rounds_of(ws: Workspace) -> list[dict[str, Any]]:
    """Every round with its state, labels and numbers on the vault, as plain data.

    What was measured stands under the task's metric: "auroc", or "dice" where masks are drawn.
    """
    ledger = ws.ledger
    measured = ledger.measurements()
    trained = {control.round: control.labels for control in controls(ledger)}
    return [
        {
            "number": r.number,
            "state": _state(ws, r.number),
            "strategy": r.strategy,
            "fell_back": _fell_back(ws, r.number),
            "recipe": r.recipe,
            "labels": ledger.label_counts(r.number),
            "control_labels": trained.get(r.number),
            "asked": len(ledger.selections(r.number)),
            ledger.task.metric: _on_vault(ledger, [m for n, m in measured if n == r.number]),
            "not_learned": _not_learned(ws, r.number),
            "seconds": sum(stage.seconds for stage in ledger.stages(r.number)),
        }
        for r in ledger.rounds()
    ]


def _not_learned(ws: Workspace, number: int) -> list[str]:
    """The findings of which a round's last model was shown nothing to learn from."""
    made = ws.ledger.models(number)
    last = made[-1][1].stage if made else None
    details = (json.loads(s.detail) for s in ws.ledger.stages(number) if s.name == last)
    return next((detail.get("not_learned", []) for detail in details), [])


def _fell_back(ws: Workspace, number: int) -> str | None:
    """Why a round did not select by its own strategy; None where it did."""
    details = (json.loads(s.detail) for s in ws.ledger.stages(number) if s.name == "select")
    return next((detail.get("fell_back") for detail in details), None)


def _on_vault(ledger: Ledger, measured: list[Measurement]) -> dict[str, dict[str, float | None]]:
    return {
        m.stage: {
            key: None if math.isnan(v) else v
            for key, v in (("value", m.value), ("low", m.low), ("high", m.high))
        }
        for m in measured
        if m.split == "vault" and m.name == ledger.task.metric and m.finding == "macro"
    }


def queue(ws: Workspace) -> list[Selection]:
    """What the newest round asked and is still to be read, in the order of asking."""
    rounds, log = ws.ledger.rounds(), ws.ledger.reading
    asked = ws.ledger.selections(rounds[-1].number) if rounds else []
    answered = {label.item_id for label in ws.ledger.labels(splits=["train"])}
    if is_archive(ws):
        return [one for one in asked if one.item_id not in answered]
    held = log.assignments()
    dealt = {a.item_id for a in held}
    waiting = {a.item_id for a in open_assignments(held, log.reads(), panel_in(ws.config))}
    closed = (dealt - waiting) | (answered - dealt)
    return [one for one in asked if one.item_id not in closed]


def _state(ws: Workspace, number: int) -> str:
    end = ws.ledger.round_end(number)
    if end is None:
        return "open"
    return "given up" if json.loads(end).get("abandoned") else "finished"


def _next(ws: Workspace) -> str:
    pending = unfinished(ws)
    if pending:
        return f"Round {pending.number} was interrupted: readloop round {ws.root} --resume"
    idle = _pool_is_done(ws) or _nothing_was_read(ws)
    return "\n".join([*_remarks(ws), *([] if idle else [f"Next: readloop round {ws.root}"])])


def _pool_is_done(ws: Workspace) -> bool:
    return ws.ledger.label_counts()["train"] == len(ws.ledger.items("train"))


def _nothing_was_read(ws: Workspace) -> bool:
    """Whether a round was asked of people and none of it is answered: another would ask the same
    model's questions again."""
    rounds = ws.ledger.rounds()
    asked = len(ws.ledger.selections(rounds[-1].number)) if rounds else 0
    return not is_archive(ws) and 0 < asked == len(queue(ws))


def _remarks(ws: Workspace) -> Iterator[str]:
    ledger, number = ws.ledger, len(ws.ledger.rounds())
    labels = ledger.label_counts(number)["train"]
    if number and labels and not ledger.measurements(number) and _state(ws, number) == "finished":
        yield (
            f"Round {number} trained nothing, it only asked: the training labels ({labels:,}) "
            f"{_teach_nothing(ws)}."
        )
    if number and (unlearned := _not_learned(ws, number)):
        yield unlearned_line(number, unlearned, ws.ledger.task)
    if number and (told := _beside_chance(ws, number)):
        yield told
    for one in pauses.watches(ws, ws.config.alarm):
        if one.alarm:
            state = "paused" if pauses.is_paused(one, ws.config.alarm) else "not paused"
            yield f"Alarm on the pseudo-labels of {one.finding} ({state}): {sentence(one.alarm)}"
    if _pool_is_done(ws):
        yield "Every item of the pool is labeled: there is nothing left to ask."
    if is_archive(ws):
        return
    if not ledger.label_counts()["validation"]:
        yield (
            "No validation item is labeled, so nothing can be measured: readloop queue "
            f"{ws.root} puts validation and vault in front of the readers."
        )
    log = ws.ledger.reading
    skipped = skipped_by_all(log.assignments(), log.reads(), panel_in(ws.config))
    if skipped:
        yield (
            f"{len(skipped):,} items were skipped by everybody who was asked: who opens one in "
            "Label Studio may still answer it, or add a reader under [reading]."
        )
    if waiting := queue(ws):
        yield (
            f"{len(waiting):,} items of the newest selection are not read yet: readloop queue "
            f"{ws.root} shows them to the readers, readloop sync {ws.root} takes in what they did."
        )


def unlearned_line(number: int, findings: list[str], task: Task) -> str:
    """One sentence: what a round's model says nothing of."""
    masks = task.kind == "segmentation"
    wanted = "a mask with a pixel" if masks else "both sides"
    return (
        f"Mind: round {number} did not learn {', '.join(findings)}, as its training labels do not "
        f"hold {wanted} of it: what its model says of that means nothing."
    )


def _teach_nothing(ws: Workspace) -> str:
    if ws.ledger.task.kind == "segmentation":
        return "hold no mask with a pixel"
    return "do not hold two sides of any finding"


def _beside_chance(ws: Workspace, number: int) -> str:
    """One sentence: how the strategy stands to its shadow control; "" where there is none."""
    if why := _fell_back(ws, number):
        return f"Fell back to random plus diversity ({fallback.TO}): {why}."
    chosen = ws.config.selection
    found = shadow_looks(ws.ledger, chosen.strategy, "validation", number)
    metric = ws.ledger.task.metric_name
    why = fallback.should_fall_back(found, chosen.fall_back_after, metric)
    return f"Mind: {chosen.strategy} {why}." if why else _newest_control(ws)


def _newest_control(ws: Workspace) -> str:
    trained = controls(ws.ledger)
    if not trained:
        return ""
    newest = trained[-1]
    named = f"shadow control of round {newest.round} ({newest.labels:,} random labels)"
    found = [
        Estimate(m.value, m.low, m.high, m.n)
        for _, m in ws.ledger.measurements(newest.round)
        if (m.stage, m.name, m.split, m.finding) == (CONTROL, DIFFERENCE, "validation", "macro")
    ]
    if not found or math.isnan(found[0].low):
        return (
            f"The {named} cannot be held against the strategy yet: no two of its rounds have fewer "
            "and more labels than that, or validation says nothing."
        )
    value, low, high = found[0].value, found[0].low, found[0].high
    return (
        f"With as many labels as the {named}, the strategy's models had {value:+.3f} "
        f"[{low:+.3f}, {high:+.3f}] {ws.ledger.task.metric_name} on validation more than it."
    )


def status_table(status: dict[str, Any]) -> Table:
    """One line a round, under a title that sums the workspace up."""
    items, labels = status["items"], status["labels"]
    held = ", ".join(f"{s} {labels[s]:,}/{items[s]:,}" for s in items)
    title = (
        f"{status['workspace']}: {status['task'].replace('_', '-')}, "
        f"{len(status['findings'])} finding(s); labeled {held}; "
        f"vault looks {status['vault_looks']}"
    )
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    measured = f"vault {METRICS[status['metric']]} [95 %]"
    for column in ("round", "strategy", "labels", measured, "asked", "time"):
        justify: Any = "right" if column != "strategy" else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for one in status["rounds"]:
        table.add_row(
            f"{one['number']}" + ("" if one["state"] == "finished" else f" ({one['state']})"),
            escape(one["strategy"]) + (f" → {fallback.TO}" if one["fell_back"] else ""),
            f"{one['labels']['train']:,}",
            "\n".join(_lines(one, status["metric"])) or "–",
            f"{one['asked']:,}",
            show.duration(one["seconds"]),
        )
    return table


def _lines(one: dict[str, Any], metric: str) -> Iterator[str]:
    for stage, found in one[metric].items():
        name = f"{CONTROL}, {one['control_labels']:,} labels" if stage == CONTROL else stage
        yield f"{name} {_estimate(found)}"


def _estimate(found: dict[str, float | None]) -> str:
    value, low, high = (
        math.nan if found[k] is None else found[k] for k in ("value", "low", "high")
    )
    return show.interval(Estimate(value, low, high, 0))  # type: ignore[arg-type]
