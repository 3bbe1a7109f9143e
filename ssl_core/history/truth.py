"""What counts as true where readers were several: the adjudicator, else the readers' vote.

The rule, entry by entry (an item and a finding):

1. An adjudicator who read the item decides, "cannot tell" included.
2. Otherwise the readers vote; "cannot tell" is no vote. Present or absent holds when more readers
   said so than said the opposite.
   A reader who read again has one vote: none, where the two reads contradict each other.
3. An even vote is unknown until an adjudicator reads it: unknown gives no loss (design, rule 4).
4. Where no reader answered, an imported label holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, starmap

import numpy as np
import numpy.typing as npt

from ssl_core.records import AGAIN, HeldRead, Label, person


def label_matrix(
    ids: Sequence[str], labels: Iterable[Label], findings: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Labels as `(n, C)` of 1 / 0 / NaN, by the rule above.

    `labels` holds at most one label for each item, finding and reader, as `Ledger.labels` gives
    them; those of other items are passed over.
    """
    row = {item_id: position for position, item_id in enumerate(ids)}
    column = {finding: position for position, finding in enumerate(findings)}
    shape = (len(ids), len(findings))
    votes, voters = np.zeros(shape), np.zeros(shape, dtype=bool)
    truth, decided = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for label in one_vote_each(labels):
        if label.item_id not in row:
            continue
        entry = row[label.item_id], column[label.finding]
        if label.role == "adjudicator":
            truth[entry], decided[entry] = label.value, True
        elif label.source == "import":
            truth[entry] = truth[entry] if decided[entry] else label.value
        elif not math.isnan(label.value):
            votes[entry] += 1.0 if label.value else -1.0
            voters[entry] = True
    voted = voters & ~decided
    truth[voted] = np.where(votes > 0, 1.0, np.where(votes < 0, 0.0, np.nan))[voted]
    return truth


def one_vote_each(labels: Iterable[Label]) -> Iterator[Label]:
    """The labels, less those by which a person says at a second desk what they said before."""
    labels = list(labels)
    first = {
        (x.item_id, x.finding, x.reader, x.value)
        for x in labels
        if x.source != "import" and x.role == "reader"
    }
    for x in labels:
        second = x.reader.endswith(AGAIN)
        if not (second and (x.item_id, x.finding, person(x.reader), x.value) in first):
            yield x


def unusable_items(reads: Iterable[HeldRead]) -> set[str]:
    """The items whose image cannot be read, from each reader's newest read of each item.

    An adjudicator decides; without one, a single reader who says so takes the item out.
    """
    doubted: set[str] = set()
    adjudicated: dict[str, str] = {}
    for read in reads:
        if read.role == "adjudicator" and read.outcome in ("read", "unusable"):
            adjudicated[read.item_id] = read.outcome
        elif read.outcome == "unusable":
            doubted.add(read.item_id)
    usable = {item_id for item_id, outcome in adjudicated.items() if outcome == "read"}
    return (doubted | adjudicated.keys()) - usable


Apart = Callable[[str, str], bool]
"""Whether two kept masks, by their digests, are not of the same thing."""


def disagreements(
    reads: Iterable[HeldRead], labels: Iterable[Label], masks_apart: Apart | None = None
) -> list[str]:
    """The items, by first read, on which readers contradict each other and nobody adjudicated.

    They do when one said present and another absent of any finding, when both drew it and
    `masks_apart`, or when one read an image that another called unusable. "Cannot tell"
    contradicts nobody.
    """
    outcomes: dict[str, set[str]] = {}
    settled: set[str] = set()
    for read in reads:
        if read.outcome in ("read", "unusable"):
            outcomes.setdefault(read.item_id, set()).add(read.outcome)
            if read.role == "adjudicator":
                settled.add(read.item_id)
    values: dict[tuple[str, str], set[float]] = {}
    drawn: dict[tuple[str, str], set[str]] = {}
    for label in labels:
        if label.source != "import" and not math.isnan(label.value):
            values.setdefault((label.item_id, label.finding), set()).add(label.value)
            if label.mask and label.item_id not in settled:
                drawn.setdefault((label.item_id, label.finding), set()).add(label.mask)
    apart = {item_id for (item_id, _), said in values.items() if len(said) > 1}
    if masks_apart is not None:
        apart |= {
            item_id
            for (item_id, _), masks in drawn.items()
            if item_id not in apart and any(starmap(masks_apart, combinations(sorted(masks), 2)))
        }
    apart |= {item_id for item_id, said in outcomes.items() if len(said) > 1}
    return [item_id for item_id in outcomes if item_id in apart and item_id not in settled]
