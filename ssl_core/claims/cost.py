"""What reads cost: labels, reads, reader-hours and money, by split, as of every round.

Training, validation and vault are counted apart (design, rule 1). A count of vault labels is no
look at them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssl_core.config import Config
from ssl_core.history.ledger import Ledger
from ssl_core.records import SPLITS, HeldRead, Split

UNTIMED = "no read has a time (a simulated reader answers at once)"
NO_READS = "there are labels but no reads of them"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one split had cost by some moment.

    `labels` counts items with a label, of which `imported` came with the import and took nobody's
    time here. `reads` counts items read or unusable, once for each reader; `untimed` of them came
    without a time. `seconds` is what was measured, skipped items too, each read cut at the idle
    cut; a reader's newest read of an item counts, and one that was taken back does not. `hours`
    adds `assumed` seconds, the mean of the timed reads of all splits by then, for each untimed
    read. `hours` and `money` are None where `reason` says why; `money` also without a price.
    """

    labels: int
    imported: int
    reads: int
    untimed: int
    seconds: float
    assumed: float | None
    hours: float | None
    money: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What had been spent when a round was opened (None: by now)."""

    round: int | None
    train: Cost
    validation: Cost
    vault: Cost

    @property
    def evaluation(self) -> tuple[Cost, Cost]:
        """What it cost to measure: validation and vault."""
        return self.validation, self.vault


@dataclass(slots=True)
class _Sum:
    reads: int = 0
    untimed: int = 0
    done_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, read: HeldRead, idle_cut: float, sign: int) -> None:
        if read.outcome == "withdrawn":
            return
        done = read.outcome != "skipped"
        self.reads += sign * done
        if read.seconds is None:
            self.untimed += sign * done
            return
        cut = sign * min(read.seconds, idle_cut)
        self.seconds += cut
        self.done_seconds += cut * done


def spent(ledger: Ledger, config: Config, rounds: Sequence[int] = ()) -> list[Spent]:
    """What had been spent at the opening of each of these rounds, then what has been by now.

    `rounds` rise. The idle cut and the price are those of `config`: a setting may change, and what
    was measured stays as it is in the ledger.
    """
    history = ledger.read_history()
    begun = ledger.first_labeled()
    sums = {split: _Sum() for split in SPLITS}
    newest: dict[tuple[str, str], HeldRead] = {}
    place, found = 0, list[Spent]()
    for number in (*rounds, None):
        stop = _position(history, number)
        for split, read in history[place:stop]:
            _replace(sums[split], newest, read, config.reading.idle_cut_seconds)
        place = stop
        counts = {split: _labels(begun, split, number) for split in SPLITS}
        found.append(_spent(number, sums, counts, config))
    return found


def _position(history: Sequence[tuple[Split, HeldRead]], number: int | None) -> int:
    """How many reads came before a round was opened: they are in the order of their rounds."""
    if number is None:
        return len(history)
    return bisect_left(history, number, key=lambda one: one[1].round)


def _replace(
    total: _Sum, newest: dict[tuple[str, str], HeldRead], read: HeldRead, idle_cut: float
) -> None:
    before = newest.get((read.item_id, read.reader))
    if before is not None:
        total.add(before, idle_cut, -1)
    total.add(read, idle_cut, 1)
    newest[read.item_id, read.reader] = read


def _labels(
    begun: Iterable[tuple[Split, int, bool, int]], split: Split, number: int | None
) -> tuple[int, int]:
    """Labeled items of a split before a round, and how many of them were imported."""
    here = [
        (imported, count)
        for of, first, imported, count in begun
        if of == split and (number is None or first < number)
    ]
    return sum(count for _, count in here), sum(count for imported, count in here if imported)


def _spent(
    number: int | None,
    sums: dict[Split, _Sum],
    counts: dict[Split, tuple[int, int]],
    config: Config,
) -> Spent:
    timed = sum(one.reads - one.untimed for one in sums.values())
    mean = sum(one.done_seconds for one in sums.values()) / timed if timed else None
    parts = {split: _cost(sums[split], *counts[split], mean, config) for split in SPLITS}
    return Spent(number, **parts)


def _cost(one: _Sum, labels: int, imported: int, mean: float | None, config: Config) -> Cost:
    hours, reason = _hours(one, labels, imported, mean)
    price = config.cost.per_hour if config.cost else None
    return Cost(
        labels=labels,
        imported=imported,
        reads=one.reads,
        untimed=one.untimed,
        seconds=max(0.0, one.seconds),
        assumed=mean if one.untimed else None,
        hours=hours,
        money=None if hours is None or price is None else hours * price,
        reason=reason,
    )


def _hours(one: _Sum, labels: int, imported: int, mean: float | None) -> tuple[float | None, str]:
    if labels > imported and not one.reads:
        return None, NO_READS
    if not one.untimed:
        return max(0.0, one.seconds) / 3600, ""
    if mean is None:
        return None, UNTIMED
    hours = (max(0.0, one.seconds) + one.untimed * mean) / 3600
    return hours, f"{one.untimed:,} of {one.reads:,} reads have no time: {mean:.0f} s assumed each"
