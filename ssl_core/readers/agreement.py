"""How far readers agree, and how long they take: Cohen's kappa by pair, minutes by reader.

Everything here is of reads that people made at their own time. Of validation and train alone: the
ledger does not give vault labels, since how readers agree there would be a look at them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ssl_core.auditing.weighted import Weights, weighted_share
from ssl_core.evidence import Estimate, mean_interval
from ssl_core.records import HeldRead, Label, ReaderRole

Floats = npt.NDArray[np.float64]
Values = dict[tuple[str, str], dict[str, float]]  # by finding and reader, each item's value
Weigh = Callable[[Collection[str]], Mapping[str, float]]
"""What each of some items stands for; see `pool_reads.weigher`."""

DRAWS = 4000
PRIOR = 0.25  # in each of four cells: one item in all (Perks 1947)
SEED = 0  # of the interval alone: the same labels give the same interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa of two readers on one finding, with its 95 % interval.

    `n` items were answered by both; on `agreed` of them, a share in [0, 1], they said the same;
    on `unsure` more at least one of the two could not tell, and they are left out. `kappa` is in
    [-1, 1]; it and its interval are NaN where both readers gave one and the same value to all n
    items: all of the agreement is then to be expected by chance, and nothing is left to divide by.
    [`agreed_low`, `agreed_high`] is the 95 % interval of `agreed`. `worth` is how many items of
    equal weight the n are worth (Kish 1965): n where nothing was weighted.
    """

    finding: str
    readers: tuple[str, str]
    kappa: float
    low: float
    high: float
    agreed: float
    n: int
    unsure: int
    agreed_low: float = math.nan
    agreed_high: float = math.nan
    worth: float = math.nan


@dataclass(frozen=True, slots=True)
class Pace:
    """What one reader has done, and the time it took.

    `read` and `unusable` count items with that outcome, and `hinted` and `blind` the same items
    by whether the model's opinion was shown. `seconds` is all the time that was told, of skipped
    items too, each read cut at the idle cut; `cut` reads were longer than that. `minutes` is the
    mean per item read or unusable with Student's 95 % interval and the reads timed as its `n`
    (in simulation of skewed times it covered .90 to .92 for n = 10, .94 for n = 100);
    `median_seconds` is their median, NaN where none is; `untimed` more came without a time.
    """

    reader: str
    role: ReaderRole
    read: int
    unusable: int
    skipped: int
    hinted: int
    blind: int
    seconds: float
    minutes: Estimate
    median_seconds: float
    cut: int
    untimed: int


def agreement(
    labels: Iterable[Label],
    reads: Iterable[HeldRead] | None = None,
    groups: Mapping[str, str] | None = None,
    weigh: Weigh | None = None,
) -> list[Agreement]:
    """Kappa for each finding and pair of readers with an item in common, in order of the names.

    Adjudicators, who read what is in dispute alone, and imported labels are in no pair.

    The interval is that of a Bayesian bootstrap (Rubin 1981) by patient, with a quarter of an item
    added to each of the four cells; where every item is its own patient, kappa's posterior under
    Perks's prior. In simulation (n 30 and 100; prevalence .05, .3 and .5; kappa 0 to .95; 3,000
    tables each) it covered .893 to .976, .944 on average; with two items a patient, half of the
    pairs alike, .924 to .989 and .951. The asymptotic interval (Fleiss, Cohen and Everitt 1969)
    covered .130 to .950, .769 on average, and the bootstrap .130 to .995, .795 on average: both
    fail where few items are positive or nearly all agree.

    Args:
        labels: at most one for each item, finding and reader, as `Ledger.labels` gives them.
        reads: leaves out labels without a read of outcome "read" by that reader: those that were
            withdrawn, which would count as unsure, and whatever else the caller left out, say all
            hinted reads (both readers of a hinted item saw the same hint, so they agree more).
        groups: each item's patient; None, or an item that is not in it, is its own.
        weigh: what each item stands for, given those that the two of a pair answered. A queue is
            of hard cases, on which readers agree less: with weights, kappa and agreement speak of
            the pool (in simulation kappa was .42 on the queue where the pool's was .66, and .66
            with weights; see `test_weighted.py`). An item that stands for nothing
            is left out.
    """
    said = said_by(labels, reads)
    values = {who: {i: one.value for i, one in each.items()} for who, each in said.items()}
    found = (_agreement(values, *one, groups or {}, weigh) for one in pairs_of(values))
    return [one for one in found if one is not None]


def said_by(
    labels: Iterable[Label], reads: Iterable[HeldRead] | None = None
) -> dict[tuple[str, str], dict[str, Label]]:
    """By finding and reader, the label of each item that counts for agreement; see `agreement`."""
    counted = None if reads is None else {_pair(r) for r in reads if r.outcome == "read"}
    said: dict[tuple[str, str], dict[str, Label]] = {}
    for label in labels:
        if label.role == "adjudicator" or label.source == "import":
            continue
        if counted is None or (label.item_id, label.reader) in counted:
            said.setdefault((label.finding, label.reader), {})[label.item_id] = label
    return said


def pairs_of(said: Collection[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Each finding with each pair of readers, in order of the names."""
    readers = sorted({reader for _, reader in said})
    return [
        (finding, first, second)
        for finding in sorted({finding for finding, _ in said})
        for first, second in combinations(readers, 2)
    ]


def kappa(cells: npt.ArrayLike) -> Floats:
    """Cohen's kappa of tables `(..., 4)`: both present, first alone, second alone, both absent.

    NaN where both readers gave one and the same value throughout, or the table is empty.
    """
    both, first, second, neither = np.moveaxis(np.asarray(cells, dtype=np.float64), -1, 0)
    # Cohen's (p_o - p_e) / (1 - p_e), multiplied out: exact for whole numbers, and 0 / 0 when
    # it should be
    above = 2 * (both * neither - first * second)
    below = (both + first) * (first + neither) + (both + second) * (second + neither)
    with np.errstate(invalid="ignore"):
        return np.asarray(above / below, dtype=np.float64)


def interval(cells: npt.ArrayLike, *, weighted: bool = False) -> tuple[float, float]:
    """Kappa's 95 % interval from each patient's table, `(G, 4)`; G is 1 at the least.

    Weighted tables are those of unequal sums; what is added to them is one item of the weight that
    their worth in patients gives it.
    """
    tables = np.asarray(cells, dtype=np.float64)
    rng = np.random.default_rng(SEED)
    # Patients with the same table share one draw: a sum of exponentials is a gamma.
    kinds, patients = np.unique(tables, axis=0, return_counts=True)
    weights = rng.standard_gamma(patients, size=(DRAWS, len(kinds)))
    items = float(tables.sum()) / len(tables)
    if weighted:
        sums = tables.sum(axis=1)
        items = float(sums @ sums) / float(sums.sum())
    prior = items * rng.standard_gamma(PRIOR, size=(DRAWS, 4))
    low, high = np.nanquantile(kappa(weights @ kinds + prior), [0.025, 0.975])
    value = float(kappa(tables.sum(axis=0)))
    return min(float(low), value), max(float(high), value)


def pace(reads: Iterable[HeldRead], idle_cut: float) -> list[Pace]:
    """Each reader's time, by name and role; withdrawn reads do not count.

    `reads` holds each reader's newest read of each item, as `ReadLog.reads` gives them.
    `idle_cut` in seconds: a longer read counts as one of that length, since the reader is taken
    to have left the screen.
    """
    of_reader: dict[tuple[str, ReaderRole], list[HeldRead]] = {}
    for read in reads:
        if read.outcome != "withdrawn":
            of_reader.setdefault((read.reader, read.role), []).append(read)
    return [_pace(*who, of_reader[who], idle_cut) for who in sorted(of_reader)]


def _pair(read: HeldRead) -> tuple[str, str]:
    return read.item_id, read.reader


def _agreement(
    values: Values,
    finding: str,
    first: str,
    second: str,
    groups: Mapping[str, str],
    weigh: Weigh | None,
) -> Agreement | None:
    ours, theirs = values.get((finding, first), {}), values.get((finding, second), {})
    common = [item_id for item_id in ours if item_id in theirs]
    if not common:
        return None
    sure = [i for i in common if not math.isnan(ours[i] + theirs[i])]
    weights = weigh(sure) if weigh else dict.fromkeys(sure, 1)
    counted = [i for i in sure if weights.get(i, 0) > 0]
    tables: dict[str, list[float]] = {}
    for item_id in counted:
        cell = 2 * (ours[item_id] == 0.0) + (theirs[item_id] == 0.0)
        # An item's own id may be some patient's name: the two must not fall together.
        group = f"g{groups[item_id]}" if item_id in groups else f"i{item_id}"
        tables.setdefault(group, [0, 0, 0, 0])[cell] += weights[item_id]
    whole = np.sum(list(tables.values()), axis=0) if tables else np.zeros(4)
    n, value = len(counted), float(kappa(whole))
    ends = (math.nan, math.nan)
    if not math.isnan(value):
        ends = interval(list(tables.values()), weighted=weigh is not None)
    same = {i: float(ours[i] == theirs[i]) for i in counted}
    said = weighted_share(same, Weights(dict(weights)), groups)
    unsure = len(common) - len(sure)
    total, squares = (sum(weights[i] ** power for i in counted) for power in (1, 2))
    return Agreement(
        finding=finding,
        readers=(first, second),
        kappa=value,
        low=ends[0],
        high=ends[1],
        agreed=float(whole[0] + whole[3]) / total if n else math.nan,
        n=n,
        unsure=unsure,
        agreed_low=said.low,
        agreed_high=said.high,
        worth=total**2 / squares if n else 0.0,
    )


def _pace(reader: str, role: ReaderRole, reads: Sequence[HeldRead], idle_cut: float) -> Pace:
    done = [r for r in reads if r.outcome != "skipped"]
    hinted = sum(r.hinted for r in done)
    unusable = sum(r.outcome == "unusable" for r in done)
    timed = [min(r.seconds, idle_cut) for r in done if r.seconds is not None]
    told = [r.seconds for r in reads if r.seconds is not None]
    return Pace(
        reader=reader,
        role=role,
        read=len(done) - unusable,
        unusable=unusable,
        skipped=len(reads) - len(done),
        hinted=hinted,
        blind=len(done) - hinted,
        seconds=sum(min(seconds, idle_cut) for seconds in told),
        minutes=mean_interval([seconds / 60 for seconds in timed]),
        median_seconds=float(np.median(timed)) if timed else math.nan,
        cut=sum(seconds > idle_cut for seconds in told),
        untimed=len(done) - len(timed),
    )
