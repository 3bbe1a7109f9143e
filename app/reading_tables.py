"""`readloop readers`: pace and agreement of the readers, as plain data and as tables."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from app import show
from ssl_core.agreement import Agreement, Pace, agreement, pace
from ssl_core.evidence import Estimate
from ssl_core.workspace import Workspace

TRUTH = (
    "What counts as true: the adjudicator's answer; else what more readers said than its opposite; "
    "an even vote is unknown until it is adjudicated. Kappa is of blind reads outside the vault."
)


def readers_of(ws: Workspace) -> dict[str, Any]:
    """Pace of each reader, agreement of each pair, and what still waits for the adjudicator."""
    log = ws.ledger.reading
    reads = log.reads()
    blind = [read for read in reads if not read.hinted]
    groups = {item.id: item.group for item in ws.ledger.items()}
    return {
        "pace": [_plain(asdict(p)) for p in pace(reads, ws.config.reading.idle_cut_seconds)],
        "agreement": [_plain(asdict(a)) for a in agreement(ws.ledger.labels(), blind, groups)],
        "in_dispute": len(log.disagreements()),
        "unusable": len(log.unusable()),
        "idle_cut_seconds": ws.config.reading.idle_cut_seconds,
        "truth": TRUTH,
    }


def pace_table(found: dict[str, Any]) -> Table:
    """One line a reader: how much, and minutes a read."""
    cut = found["idle_cut_seconds"]
    columns = ("reader", "read", "unusable", "skipped", "minutes a read [95 %]", "hours", "cut")
    made = show.table(f"Pace (a read longer than {cut:.0f} s counts as that long: cut)", columns, 1)
    for one in found["pace"]:
        p = Pace(**_numbers({**one, "minutes": Estimate(**_numbers(one["minutes"]))}))
        name = p.reader + (" (adjudicator)" if p.role == "adjudicator" else "")
        counts = (f"{n:,}" for n in (p.read, p.unusable, p.skipped))
        hours = f"{p.seconds / 3600:.1f}"
        made.add_row(escape(name), *counts, show.interval(p.minutes), hours, f"{p.cut:,}")
    return made


def agreement_table(found: dict[str, Any]) -> Table:
    """One line a finding and pair of readers."""
    columns = ("finding", "readers", "kappa [95 %]", "agreed", "items", "unsure")
    made = show.table("Agreement (Cohen's kappa, interval by patient)", columns, left=2)
    for one in found["agreement"]:
        a = Agreement(**_numbers({**one, "readers": tuple(one["readers"])}))
        kappa = show.interval(Estimate(a.kappa, a.low, a.high, a.n))
        pair = escape(" and ".join(a.readers))
        made.add_row(escape(a.finding), pair, kappa, show.number(a.agreed), *_counts(a))
    waiting = f"{found['in_dispute']:,} items in dispute, {found['unusable']:,} unusable"
    made.caption = waiting
    return made


def _counts(a: Agreement) -> tuple[str, str]:
    return f"{a.n:,}", f"{a.unsure:,}"


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is unknown becomes null."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _numbers(data: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in data.items()}
