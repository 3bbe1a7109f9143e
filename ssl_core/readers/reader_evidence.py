"""What a workspace says of its readers: pace, anchoring, second reads, re-reads, AUROC an hour.

Everything is computed from the ledger (and, for anchoring, from the models that gave hints).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ssl_core.claims.curve import Curve, label_cost
from ssl_core.errors import ReadloopError
from ssl_core.evidence import Estimate
from ssl_core.readers.anchoring import Anchoring, anchoring
from ssl_core.readers.anchoring_reads import hinted_or_blind
from ssl_core.readers.pace import LEAST, Case, PaceModel, fit_pace, minutes_of, seconds_of
from ssl_core.readers.pace_reads import queue_cases, timed_reads
from ssl_core.readers.reader_minutes import (
    PerMinute,
    Step,
    per_minute_of,
    per_minute_sentence,
    steps,
    steps_sentence,
)
from ssl_core.readers.reread_result import RereadResult, reread_result
from ssl_core.readers.second_read import SecondRead, second_read
from ssl_core.records import HeldRead, Reread
from ssl_core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ReaderPace:
    """Expected seconds of a reader's next blind read of a random case; `n` reads are behind it."""

    reader: str
    seconds: Estimate


@dataclass(frozen=True, slots=True)
class PaceTold:
    """The pace model in numbers: readers, effects, and minutes for what waits.

    `queue` maps each reader with open cases of their own to the minutes these take; `whole` is all
    of it. `sentence` says it, or why there is no model.
    """

    readers: tuple[ReaderPace, ...]
    effects: tuple[tuple[str, Estimate], ...]
    queue: dict[str, Estimate]
    whole: Estimate | None
    waiting: int
    n: int
    sentence: str


@dataclass(frozen=True, slots=True)
class ReaderEvidence:
    """All of it. `anchoring` is empty without hints, `anchoring_sentence` says what holds."""

    pace: PaceTold
    anchoring: tuple[Anchoring, ...]
    anchoring_sentence: str
    second_read: SecondRead
    rereads: RereadResult
    steps: tuple[Step, ...]
    steps_sentence: str
    per_minute: tuple[PerMinute, ...]
    per_minute_sentence: str


def reader_evidence(ws: Workspace) -> ReaderEvidence:
    """Compute it; the first call may ask the models that gave hints, which takes a while."""
    model = fit_pace(timed_reads(ws), ws.config.reading.idle_cut_seconds)
    meter, said = _anchoring(ws)
    curve = label_cost(ws)
    own = _own_steps(curve)
    compared = () if model is None else per_minute_of(curve, model, _slice_share(ws))
    return ReaderEvidence(
        pace=pace_told(ws, model),
        anchoring=tuple(meter),
        anchoring_sentence=said,
        second_read=_second(ws, curve),
        rereads=reread_result(ws),
        steps=own,
        steps_sentence=steps_sentence(own, curve.metric),
        per_minute=tuple(compared),
        per_minute_sentence=per_minute_sentence(compared, curve.metric),
    )


def fair_reads(reads: Iterable[HeldRead], rereads: Iterable[Reread]) -> list[HeldRead]:
    """Blind reads that agreement may be counted from: re-reads are of items in doubt."""
    again = {(one.item_id, one.reader) for one in rereads}
    return [r for r in reads if not r.hinted and (r.item_id, r.reader) not in again]


def pace_told(ws: Workspace, model: PaceModel | None = None) -> PaceTold:
    """The pace model's numbers; without `model` it is fitted."""
    reads = timed_reads(ws)
    cases = queue_cases(ws)
    model = model or fit_pace(reads, ws.config.reading.idle_cut_seconds)
    if model is None:
        told = f"Too few timed reads for a pace model: {len(reads):,} of {LEAST} that are needed."
        return PaceTold((), (), {}, None, len(cases), len(reads), told)
    readers = [
        ReaderPace(name, _of(seconds_of(model, Case(name, n)), n))
        for name, n in model.practice.items()
    ]
    of_reader: dict[str, list[Case]] = {}
    for case in cases:
        of_reader.setdefault(case.reader, []).append(case)
    whole = minutes_of(model, cases) if cases else None
    return PaceTold(
        readers=tuple(readers),
        effects=tuple((e.name, e.times) for e in model.effects),
        queue={name: minutes_of(model, mine) for name, mine in of_reader.items()},
        whole=whole,
        waiting=len(cases),
        n=model.n,
        sentence=_sentence(whole, model.n, len(cases)),
    )


def _of(found: Estimate, n: int) -> Estimate:
    return Estimate(found.value, found.low, found.high, n)


def _sentence(whole: Estimate | None, reads: int, waiting: int) -> str:
    if whole is None:
        return f"Nothing waits to be read. The model rests on {reads:,} timed reads."
    return (
        f"The {waiting:,} reads that wait will take about {whole.value:,.0f} minutes "
        f"[{whole.low:,.0f}, {whole.high:,.0f}], by {reads:,} timed reads."
    )


def _anchoring(ws: Workspace) -> tuple[list[Anchoring], str]:
    try:
        found = anchoring(hinted_or_blind(ws), ws.config.reading.idle_cut_seconds)
    except ReadloopError as error:  # a model's file is gone
        return [], f"Anchoring cannot be measured: {error}"
    if found:
        return found, found[0].sentence
    return [], (
        "Anchoring is not measured: no reader was shown a hint (`hints` under [reading] in "
        "readloop.toml shows one on a random half)."
    )


def _second(ws: Workspace, curve: Curve) -> SecondRead:
    ledger = ws.ledger
    items, log = ledger.items("train"), ledger.reading
    line = curve.line("student") if ledger.task.metric == "auroc" else None  # Dice says no R²
    asked = {s.item_id for _, s in ledger.selected()} | ledger.labeled_items()
    return second_read(
        ledger.labels(),
        fair_reads(log.reads(), log.rereads()),
        {item.id: item.group for item in ledger.items()},
        auroc=line.points[-1].auroc if line is not None else None,
        adjudicated=bool(ws.config.reading.adjudicator),
        left=sum(item.id not in asked for item in items),
    )


def _own_steps(curve: Curve) -> tuple[Step, ...]:
    line = curve.line("student")
    return tuple(steps(line)) if line is not None else ()


def _slice_share(ws: Workspace) -> float:
    return ws.config.selection.random_share
