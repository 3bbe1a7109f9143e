"""What counts as true, pixel by pixel, where readers were several.

The rule of `history.truth`, asked of each pixel of an item and a finding:

1. An adjudicator who read the item decides, "cannot tell" included.
2. Otherwise the readers vote: with the mask that they drew, or with an empty one where they said
   absent; "cannot tell" is no vote. What more readers put inside than outside is inside.
   Who read again has one vote: their first mask, or none where they contradict themselves.
3. Pixels where the vote is even are unknown: they give no loss and are not measured.
4. Where no reader answered, an imported label holds.

Beside it stands `present`, the rule on the findings themselves. The two may differ where readers
drew in different places: two of three call it present, and no pixel has two votes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ssl_core.errors import WorkspaceError
from ssl_core.history.truth import label_matrix, one_vote_each
from ssl_core.masks.overlap import Bools
from ssl_core.masks.store import MaskStore
from ssl_core.records import Label, person

Floats32 = npt.NDArray[np.float32]
Entry: TypeAlias = tuple[int, int]  # item and finding, by position
Votes: TypeAlias = tuple[str | None, ...]  # one a reader: the digest of a mask, None for absent


_BATCH = 64  # items that are read at once


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """The true masks of n items, read from the store as they are asked for.

    `present` `(n, C)` is 1 / 0 / NaN by the findings' own rule; `known` `(n,)` says which items
    have a pixel that is known.
    """

    present: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    votes: Mapping[Entry, Votes]
    store: MaskStore

    def at(self, positions: npt.ArrayLike) -> Floats32:
        """The masks of some items, `(b, C, S, S)`: 1 inside, 0 outside, NaN unknown.

        Raises:
            WorkspaceError: a kept mask is missing or damaged.
        """
        rows = np.asarray(positions, dtype=np.int64)
        findings, size = self.present.shape[1], self.store.size
        out = np.full((len(rows), findings, size, size), np.nan, dtype=np.float32)
        asked = {
            (i, j): self.votes.get((row, j), ())
            for i, row in enumerate(rows.tolist())
            for j in range(findings)
        }
        digests = list(dict.fromkeys(d for votes in asked.values() for d in votes if d))
        masks = dict(zip(digests, self.store.at(digests), strict=True))
        for entry, votes in asked.items():
            if len(votes) == 1:  # by far the most: a copy
                out[entry] = masks[votes[0]] if votes[0] else 0.0
            elif votes:
                out[entry] = _decided([masks[d] for d in votes if d], len(votes), size)
        return out


def mask_truth(
    ids: Sequence[str], labels: Iterable[Label], findings: Sequence[str], store: MaskStore
) -> MaskTruth:
    """What holds for n items, by the rule above.

    `labels` holds at most one label for each item, finding and reader, as `Ledger.labels` gives
    them; those of other items are passed over. Masks are read where readers were even in number
    alone, to tell whether a pixel is known.

    Raises:
        WorkspaceError: a label says that something is there, and has no mask.
    """
    labels = list(labels)
    votes, present = _votes(ids, labels, findings), label_matrix(ids, labels, findings)
    known, even = np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=bool)
    for (row, _), said in votes.items():
        known[row] |= len(said) % 2 == 1
        even[row] |= len(said) % 2 == 0
    truth = MaskTruth(present, known, votes, store)
    doubtful = np.flatnonzero(even & ~known)
    for start in range(0, len(doubtful), _BATCH):
        rows = doubtful[start : start + _BATCH]
        known[rows] = np.isfinite(truth.at(rows)).any(axis=(1, 2, 3))
    return truth


def _votes(
    ids: Sequence[str], labels: Iterable[Label], findings: Sequence[str]
) -> dict[Entry, Votes]:
    """Whose masks decide each entry that is known."""
    row = {item_id: position for position, item_id in enumerate(ids)}
    column = {finding: position for position, finding in enumerate(findings)}
    imported, adjudicated = dict[Entry, Votes](), dict[Entry, Votes]()
    read = dict[Entry, dict[str, Votes]]()  # by person
    for label in one_vote_each(labels):
        if label.item_id not in row:
            continue
        entry = row[label.item_id], column[label.finding]
        vote: Votes = () if math.isnan(label.value) else (_drawn(label),)
        if label.role == "adjudicator":
            adjudicated[entry] = vote
        elif label.source == "import":
            imported[entry] = vote
        elif vote:
            of = read.setdefault(entry, {})
            of[person(label.reader)] = of.get(person(label.reader), ()) + vote
    # Who says both present and absent has two: neither counts, as in `history.truth`.
    voted = {
        entry: tuple(vote for votes in people.values() if len(votes) == 1 for vote in votes)
        for entry, people in read.items()
    }
    return {entry: votes for entry, votes in (imported | voted | adjudicated).items() if votes}


def _drawn(label: Label) -> str | None:
    if label.value and label.mask is None:
        raise WorkspaceError(
            f"The label of {label.finding!r} on the item {label.item_id} has no mask: it was "
            "imported by an older version, so import the masks into a new workspace."
        )
    return label.mask


def _decided(masks: Sequence[Bools], voters: int, size: int) -> Floats32:
    """The pixelwise majority `(S, S)` of `voters`, of whom those without a mask said absent."""
    inside = np.sum(masks, axis=0, dtype=np.int64) if masks else np.zeros((size, size), np.int64)
    lead = 2 * inside - voters
    return np.where(lead == 0, np.nan, lead > 0).astype(np.float32)
