"""The ledger's reads as a sample of the whole train pool: prevalence and item weights.

What `weighted` needs of a workspace: the rounds' draws, who was read, and of which patient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.auditing.weighted import Draw, Share, draw_of, pool_share, weigh
from ssl_core.evidence import Estimate
from ssl_core.history.ledger import Ledger
from ssl_core.history.truth import label_matrix
from ssl_core.records import Label, Reread, Selection

Floats = npt.NDArray[np.float64]


def draws_of(selected: Iterable[tuple[int, Selection]], since: int = 1) -> list[Draw]:
    """The rounds' batches from round `since` on, as `Ledger.selected` gives them."""
    batches: dict[int, list[Selection]] = {}
    for number, selection in selected:
        if number >= since:
            batches.setdefault(number, []).append(selection)
    return [draw_of(batches[number]) for number in sorted(batches)]


def values_of(
    ids: Sequence[str], labels: Iterable[Label], findings: Sequence[str], seen: Collection[str]
) -> list[dict[str, float]]:
    """For each finding, what is known of each item that was seen: 1, 0 or NaN."""
    table = label_matrix(ids, labels, findings)
    read = set(seen) | {i for i, row in zip(ids, table, strict=True) if not np.isnan(row).all()}
    return [
        {i: float(v) for i, v in zip(ids, column, strict=True) if i in read} for column in table.T
    ]


def first_reads(labels: Iterable[Label], rereads: Collection[Reread]) -> list[Label]:
    """Labels without the re-reads, and without what an adjudicator made of an item read again.

    Which items are read again is a model's doing: their second answers lean to its side.
    """
    again = {(one.item_id, one.reader) for one in rereads}
    doubted = {one.item_id for one in rereads}
    return [
        label
        for label in labels
        if (label.item_id, label.reader) not in again
        and not (label.role == "adjudicator" and label.item_id in doubted)
    ]


def pool_shares(ledger: Ledger, before_round: int | None = None) -> list[Share]:
    """The share of each finding in the train pool, labeled items and unlabeled ones together.

    From all labels before a round (None: until now), those that the strategy asked for too, each
    with its inclusion weight; unusable images are no part of the pool. What was read again because
    a model denied it counts with its first reads. NaN while no random slice was read.
    """
    out = ledger.reading.unusable(before_round)
    items = [item for item in ledger.items("train") if item.id not in out]
    ids, groups = [item.id for item in items], {item.id: item.group for item in items}
    labels = first_reads(ledger.labels(before_round, ["train"]), ledger.reading.rereads())
    draws = draws_of(ledger.selected(before_round))
    known = values_of(ids, labels, ledger.task.findings, {label.item_id for label in labels})
    return [pool_share(values, ids, draws, groups) for values in known]


def prevalence(ledger: Ledger) -> dict[str, Estimate]:
    """How common each finding is in the train pool, with its 95 % interval; see `pool_shares`."""
    found = pool_shares(ledger)
    return {f: s.estimate for f, s in zip(ledger.task.findings, found, strict=True)}


def weigher(ledger: Ledger) -> Callable[[Collection[str]], dict[str, float]]:
    """A function that says what each of some answered items stands for, in train and validation.

    Train items as `weighted.weigh` has it; validation was asked whole, so its answered items stand
    for the others of it. An item that stands for nothing is left out.
    """
    log = ledger.reading
    seen = {read.item_id for read in log.reads() if read.outcome in ("read", "unusable")}
    out = log.unusable()
    train = [item.id for item in ledger.items("train") if item.id not in out]
    measured = [item.id for item in ledger.items("validation") if item.id not in out]
    draws = draws_of(ledger.selected())

    def weights(answered: Collection[str]) -> dict[str, float]:
        told = [i for i in measured if i in answered]
        each = {i: len(measured) / len(told) for i in told}
        return weigh(draws, train, answered, seen).whole | each

    return weights
