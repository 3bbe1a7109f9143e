"""`readloop readers`: pace and agreement of the readers, as plain data and as tables."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from app import show
from app.mask_agreement import mask_agreement_of
from ssl_core.evidence import Estimate
from ssl_core.readers.agreement import Agreement, Pace, agreement, pace
from ssl_core.readers.reader_evidence import fair_reads, reader_evidence
from ssl_core.workspace import Workspace

TRUTH = (
    "What counts as true: the adjudicator's answer; else what more readers said than its opposite; "
    "an even vote is unknown until it is adjudicated. Kappa is of blind reads outside "
    "the vault, without re-reads."
)

EFFECTS = {
    "practice": "each doubling of the cases read before",
    "sitting": "each doubling of the cases read in one sitting",
    "hint": "hinted instead of blind",
    "score": "highest instead of lowest score of a batch",
}
"""Effects of the pace model in words; "chosen by …" says it itself."""


def readers_of(ws: Workspace) -> dict[str, Any]:
    """Pace of each reader, agreement of each pair, and what still waits for the adjudicator."""
    log = ws.ledger.reading
    reads = log.reads()
    blind = fair_reads(reads, log.rereads())
    groups = {item.id: item.group for item in ws.ledger.items()}
    return {
        "pace": [_plain(asdict(p)) for p in pace(reads, ws.config.reading.idle_cut_seconds)],
        "agreement": [_plain(asdict(a)) for a in agreement(ws.ledger.labels(), blind, groups)],
        "mask_agreement": [_plain(asdict(one)) for one in mask_agreement_of(ws)],
        "in_dispute": len(log.disagreements()),
        "unusable": len(log.unusable()),
        "idle_cut_seconds": ws.config.reading.idle_cut_seconds,
        "truth": TRUTH,
    }


def evidence_of(ws: Workspace) -> dict[str, Any]:
    """Pace model, anchoring, second reads, re-reads and AUROC an hour, as plain data."""
    found: dict[str, Any] = _plain(asdict(reader_evidence(ws)))
    return found


def evidence_sentences(evidence: dict[str, Any]) -> list[str]:
    """What it says, a sentence each."""
    return [
        evidence["pace"]["sentence"],
        evidence["steps_sentence"],
        evidence["per_minute_sentence"],
        *([one["sentence"] for one in evidence["anchoring"]] or [evidence["anchoring_sentence"]]),
        evidence["second_read"]["sentence"],
        evidence["rereads"]["sentence"],
    ]


def effects_table(evidence: dict[str, Any]) -> Table:
    """What a read's time depends on, one line an effect."""
    columns = ("effect", "times as long [95 %]", "reads")
    made = show.table("What a read's time depends on", columns, 1)
    for name, times in evidence["pace"]["effects"]:
        one = Estimate(**_numbers(times))
        made.add_row(escape(EFFECTS.get(name, name)), show.interval(one), f"{one.n:,}")
    return made


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
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _numbers(data: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in data.items()}
