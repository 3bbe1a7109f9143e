"""The reads of a workspace as the pace model sees them, and what is still to be read."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from ssl_core.history.ledger import Ledger
from ssl_core.readers.assignment import DONE, open_assignments
from ssl_core.readers.pace import Case, TimedRead
from ssl_core.readers.reading import panel_in
from ssl_core.records import HeldRead, Selection
from ssl_core.workspace import Workspace

PAUSE = timedelta(minutes=30)  # between two reads: a new sitting begins

Chosen = dict[str, tuple[str, float]]  # by item: the strategy that asked for it, its score's place


def timed_reads(ws: Workspace) -> list[TimedRead]:
    """Every read or unusable image with a time, as it stands now; vault items too, no label."""
    return timed(ws.ledger.reading.reads(), chosen_of(ws.ledger))


def timed(reads: Iterable[HeldRead], chosen: Mapping[str, tuple[str, float]]) -> list[TimedRead]:
    """Reads with their place in each reader's work, by the room's clock where it told one."""
    done = [read for read in reads if read.outcome in DONE]
    when = {id(read): _moment(read.read_at) for read in done}
    early = datetime.min.replace(tzinfo=UTC)
    done.sort(key=lambda read: (read.reader, when[id(read)] or early))
    practice: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    place: dict[str, int] = {}
    found = []
    for read in done:
        moment, before = when[id(read)], last.get(read.reader)
        rested = moment is None or before is None or moment - before > PAUSE
        place[read.reader] = 0 if rested else place[read.reader] + 1
        if moment is not None:
            last[read.reader] = moment
        strategy, rank = chosen.get(read.item_id, ("", 0.5))
        if read.seconds is not None:
            case = Case(
                reader=read.reader,
                practice=practice[read.reader],
                sitting=None if moment is None else place[read.reader],
                hinted=bool(read.hinted),
                chosen=strategy,
                rank=rank,
            )
            found.append(TimedRead(case, read.seconds))
        practice[read.reader] += 1
    return found


def queue_cases(ws: Workspace) -> list[Case]:
    """What each reader still has to read of their own, in order; nothing kept in reserve."""
    log = ws.ledger.reading
    reads, chosen = log.reads(), chosen_of(ws.ledger)
    practice = Counter(read.reader for read in reads if read.outcome in DONE)
    cases = []
    for one in open_assignments(log.assignments(), reads, panel_in(ws.config)):
        if one.primary:
            strategy, rank = chosen.get(one.item_id, ("", 0.5))
            n = practice[one.reader]
            cases.append(Case(one.reader, n, None, bool(one.hinted), strategy, rank))
            practice[one.reader] += 1
    return cases


def chosen_of(ledger: Ledger) -> Chosen:
    """The strategy that asked for each item, and the place of its score in that batch.

    Scores of different strategies and rounds have no common scale; places do. The random slice is
    left out.
    """
    rounds: dict[int, list[Selection]] = {}
    for number, selection in ledger.selected():
        if selection.kind == "strategy":
            rounds.setdefault(number, []).append(selection)
    found: Chosen = {}
    for batch in rounds.values():
        scored = sorted(s.score for s in batch if not math.isnan(s.score))
        for one in batch:
            found[one.item_id] = one.strategy, _place(scored, one.score)
    return found


def _place(scored: list[float], score: float) -> float:
    """The share of scores below this one, ties by half; 0.5 where there is nothing to rank."""
    if len(scored) < 2 or math.isnan(score):
        return 0.5
    below, upto = bisect_left(scored, score), bisect_right(scored, score)
    return (below + upto - 1) / 2 / (len(scored) - 1)


def _moment(told: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(told or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
