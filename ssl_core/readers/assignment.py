"""Who reads what: a round's questions dealt out to the panel of readers, and what is still open."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl_core.records import AGAIN, Assignment, HeldRead

SPAN = 10_000_000
"""Priorities that a round takes up: newer rounds come first, whatever was asked before."""

DONE = ("read", "unusable")  # outcomes that answer a question; a skipped one still waits
SEEN = (*DONE, "skipped")  # a reader is not shown the item again


@dataclass(frozen=True, slots=True)
class Panel:
    """The readers of a workspace, and how a round's items are dealt out to them.

    `overlap_share` of the items, drawn at random, go to `overlap` readers and the rest to one.
    """

    readers: tuple[str, ...]
    adjudicator: str = ""
    overlap: int = 1
    overlap_share: float = 0.0
    backup: bool = True
    hints: bool = False

    @property
    def desks(self) -> tuple[str, ...]:
        """Everybody who may be asked: readers, the adjudicator, and readers who read again."""
        chief = (self.adjudicator,) if self.adjudicator else ()
        return (*self.readers, *chief, *(reader + AGAIN for reader in self.readers))


def deal(
    item_ids: Sequence[str], round_number: int, panel: Panel, rng: np.random.Generator
) -> list[Assignment]:
    """Deal N items, in the order of asking, out to the panel.

    Every item gets its primary readers, drawn so that their loads differ by one at the most. With
    `backup`, it is also put at the end of the other readers' queues, last asked first: two
    readers who run dry meet in the middle instead of reading the same item.
    """
    n = len(item_ids)
    double = min(panel.overlap, len(panel.readers))
    shared = np.zeros(n, dtype=bool)
    share = math.floor(round(panel.overlap_share * n, 9) + 0.5)
    shared[rng.choice(n, size=share, replace=False)] = True
    first = -round_number * SPAN
    load: Counter[str] = Counter()
    dealt = []
    for rank, item_id in enumerate(item_ids):
        order = [panel.readers[i] for i in rng.permutation(len(panel.readers))]
        order.sort(key=lambda reader: load[reader])
        primaries = order[: double if shared[rank] else 1]
        load.update(primaries)
        dealt += [Assignment(item_id, r, round_number, first + rank) for r in primaries]
        if panel.backup:
            last = first + SPAN - 1 - rank
            others = (r for r in panel.readers if r not in primaries)
            dealt += [Assignment(item_id, r, round_number, last, primary=False) for r in others]
    return dealt


def deal_hints(
    dealt: Iterable[Assignment], strata: Sequence[Sequence[str]], rng: np.random.Generator
) -> list[Assignment]:
    """Mark a random half of each stratum's items as hinted, for all of their readers.

    An item in no stratum stays blind. Of an odd number, chance decides whether the half is
    rounded up.
    """
    hinted: set[str] = set()
    for ids in strata:
        half = (len(ids) + int(rng.integers(2))) // 2
        hinted.update(ids[i] for i in rng.choice(len(ids), size=half, replace=False))
    return [replace(a, hinted=a.item_id in hinted) for a in dealt]


def newcomers(held: Iterable[Assignment], panel: Panel) -> list[Assignment]:
    """With `backup`, what a reader who joined later may read: everything the panel was asked."""
    if not panel.backup:
        return []
    of_item: dict[str, dict[str, Assignment]] = {}
    for a in held:
        if a.reader in panel.readers and a.role == "reader":
            of_item.setdefault(a.item_id, {})[a.reader] = a
    return [
        replace(one, reader=reader, priority=_last(one), primary=False)
        for readers in of_item.values()
        for one in [next(iter(readers.values()))]
        for reader in panel.readers
        if reader not in readers
    ]


def _last(one: Assignment) -> int:
    """The priority at the other end of the round's span: mirrors that of the primary readers."""
    first = -one.round * SPAN
    return 2 * first + SPAN - 1 - one.priority if one.primary else one.priority


def open_assignments(
    assignments: Iterable[Assignment], reads: Iterable[HeldRead], panel: Panel
) -> list[Assignment]:
    """What the panel still has to read, by reader and priority.

    An item is closed for everybody once as many readers have read it as it has primary readers who
    are in the panel or did read it (one at the least), and for a reader who read or skipped it.
    """
    assignments, outcome = list(assignments), _outcomes(reads)
    members = {*panel.desks}
    done, needed = _votes(assignments, outcome, members)
    present = [
        a for a in assignments if a.reader in members and (a.item_id, a.reader) not in outcome
    ]
    still = [
        a for a in present if a.role == "adjudicator" or done[a.item_id] < max(needed[a.item_id], 1)
    ]
    return sorted(still, key=lambda a: (a.reader, a.priority))


def others(
    assignments: Iterable[Assignment], reads: Iterable[HeldRead], panel: Panel
) -> dict[str, list[str]]:
    """Who may read an item once more, for each item that was read by just as many as were to.

    Readers of the panel who did not see it, nor may have seen a hint on it; where there is none,
    the adjudicator; where the panel is one reader alone, who read it without a hint, that reader
    at the desk `AGAIN`. Items that an adjudicator was asked about are left out.
    """
    assignments, outcome = list(assignments), _outcomes(reads)
    done, needed = _votes(assignments, outcome, {*panel.desks})
    settled = {a.item_id for a in assignments if a.role == "adjudicator"}
    hinted = {(a.item_id, a.reader) for a in assignments if a.hinted}
    barred = {*outcome} | hinted
    alone = panel.readers if len(panel.readers) == 1 else ()
    found: dict[str, list[str]] = {}
    for item_id, votes in done.items():
        if item_id not in settled and votes == needed[item_id] > 0:
            free = [r for r in panel.readers if (item_id, r) not in barred]
            chief = [panel.adjudicator] if panel.adjudicator else []
            own = [r + AGAIN for r in alone if _read_blind(item_id, r, outcome, hinted)]
            found[item_id] = free or chief or own
    return {item_id: readers for item_id, readers in found.items() if readers}


def _read_blind(
    item_id: str,
    reader: str,
    outcome: Mapping[tuple[str, str], str],
    hinted: Collection[tuple[str, str]],
) -> bool:
    return outcome.get((item_id, reader)) in DONE and (item_id, reader) not in hinted


def _outcomes(reads: Iterable[HeldRead]) -> dict[tuple[str, str], str]:
    return {(read.item_id, read.reader): read.outcome for read in reads if read.outcome in SEEN}


def _votes(
    assignments: Iterable[Assignment],
    outcome: Mapping[tuple[str, str], str],
    members: Collection[str],
) -> tuple[Counter[str], Counter[str]]:
    """How many readers have read each item, and how many are to."""
    done: Counter[str] = Counter()
    needed: Counter[str] = Counter()
    for a in assignments:
        if a.role == "reader":
            has_read = outcome.get((a.item_id, a.reader)) in DONE
            done[a.item_id] += has_read
            needed[a.item_id] += a.primary and (has_read or a.reader in members)
    return done, needed


def near(open_: Iterable[Assignment], backups: int) -> list[Assignment]:
    """What of the open assignments is worth showing: all that are a reader's own, and of those
    kept as a backup the next ones, `backups` a reader.

    Showing all would double the work of two readers' rooms for cases that are seldom reached.
    """
    left: Counter[str] = Counter()
    shown = []
    for a in open_:  # by reader and priority
        left[a.reader] += not a.primary
        if a.primary or left[a.reader] <= backups:
            shown.append(a)
    return shown


def skipped_by_all(
    assignments: Iterable[Assignment], reads: Iterable[HeldRead], panel: Panel
) -> list[str]:
    """The items that everybody who was asked skipped, in order of asking: nobody will read them."""
    outcome, members = _outcomes(reads), {*panel.desks}
    of_item: dict[str, set[str | None]] = {}
    for a in assignments:
        if a.reader in members or (a.item_id, a.reader) in outcome:
            of_item.setdefault(a.item_id, set()).add(outcome.get((a.item_id, a.reader)))
    return [item_id for item_id, found in of_item.items() if found == {"skipped"}]


def adjudications(
    item_ids: Sequence[str], assignments: Iterable[Assignment], panel: Panel
) -> list[Assignment]:
    """Put disputed items in front of the adjudicator, oldest dispute first; blind, like a reader.

    None without an adjudicator in the panel; an item that waits for one already is left out.
    """
    if not panel.adjudicator:
        return []
    waiting = {a.item_id: a for a in assignments if a.reader == panel.adjudicator}
    new = [item_id for item_id in item_ids if item_id not in waiting]
    rounds = {a.item_id: a.round for a in assignments}
    return [
        Assignment(item_id, panel.adjudicator, rounds[item_id], priority, role="adjudicator")
        for priority, item_id in enumerate(new, len(waiting))
    ]
