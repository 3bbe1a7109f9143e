"""How far masks of readers agree, as data and as a table: for the terminal and the pages."""

from __future__ import annotations

from functools import partial

from rich.markup import escape
from rich.table import Table

from app import show
from ssl_core.auditing.pool_reads import weigher
from ssl_core.masks import files
from ssl_core.readers.mask_agreement import MaskAgreement, mask_agreement
from ssl_core.readers.reader_evidence import fair_reads
from ssl_core.workspace import Workspace

MEANING = (
    "Dice is of two readers' masks of the same image, read blind, of train and validation, at the "
    "image's own size: both absent is 1, one absent is 0. What at least one of them drew is the "
    "stricter number where a finding is rare."
)


def mask_agreement_of(ws: Workspace, *, weighted: bool = False) -> list[MaskAgreement]:
    """Dice of each pair of readers; none where nothing is drawn in this workspace.

    Weighted, it speaks of the pool and not of what was read, which is of harder cases.
    """
    ledger, log = ws.ledger, ws.ledger.reading
    if ledger.task.kind != "segmentation":
        return []
    return mask_agreement(
        ledger.labels(),
        partial(files.load, ws.masks_folder),
        fair_reads(log.reads(), log.rereads()),
        {item.id: item.group for item in ledger.items()},
        weigher(ledger) if weighted else None,
    )


def mask_agreement_table(found: list[MaskAgreement]) -> Table:
    """One line a finding and pair of readers."""
    columns = ("finding", "readers", "Dice [95 %]", "items", "drawn [95 %]", "items", "unsure")
    made = show.table("Agreement of masks (Dice, interval by patient)", columns, left=2)
    for one in found:
        made.add_row(
            escape(one.finding),
            escape(" and ".join(one.readers)),
            show.interval(one.dice),
            f"{one.dice.n:,}",
            show.interval(one.drawn),
            f"{one.drawn.n:,}",
            f"{one.unsure:,}",
        )
    made.caption = MEANING
    return made
