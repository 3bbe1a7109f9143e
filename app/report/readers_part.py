"""The readers: pace, agreement, the pull of hints, second reads and re-reads."""

from __future__ import annotations

import math

from app.mask_agreement import MEANING, mask_agreement_of
from app.reading_tables import EFFECTS, TRUTH
from app.report.html import Part, Points, Section, Table
from app.report.scene import UNKNOWN, Scene, percent, readers_of
from app.rooms import is_archive
from ssl_core.auditing.pool_reads import weigher
from ssl_core.evidence import Estimate
from ssl_core.readers import reread_result
from ssl_core.readers.agreement import Agreement, Pace, agreement, pace
from ssl_core.readers.reader_evidence import ReaderEvidence, fair_reads, reader_evidence
from ssl_core.readers.reread_result import RereadResult

TITLE = "Readers"


def readers(scene: Scene) -> Section:
    """How fast they read, how far they agree, and whether hints move them."""
    ws, log = scene.ws, scene.ws.ledger.reading
    if is_archive(ws):
        text = (
            "Nobody reads in this workspace: a simulated reader answers from labels that the "
            "import hid. Pace, agreement and the pull of hints are those of no person, so they "
            "are not known."
        )
        return Section("readers", TITLE, (text,))
    reads = log.reads()
    if not [r for r in reads if r.outcome != "withdrawn"]:
        text = (
            f"Nothing has been read yet; named as readers: {_named(scene)}. Pace and agreement are "
            "not known before."
        )
        return Section("readers", TITLE, (text,))
    found = reader_evidence(ws)
    spoken = [s for s in (_time(found)) if s]
    parts: list[Part] = [Points(tuple(spoken)), TRUTH]
    parts += [_pace(scene, found), *_effects(found), *_agreement(scene)]
    parts += [*_anchoring(scene, found), *_rereads(found)]
    return Section("readers", TITLE, tuple(parts))


def _named(scene: Scene) -> str:
    return ", ".join(sorted(scene.people.name(one) for one in readers_of(scene.ws))) or "nobody"


def _time(found: ReaderEvidence) -> list[str]:
    """Sentences that name nobody: those of single readers stand in the tables."""
    whole = [one.sentence for one in found.anchoring if not one.reader]
    return [
        found.pace.sentence,
        found.steps_sentence,
        found.per_minute_sentence,
        *(whole or [found.anchoring_sentence]),
        found.second_read.sentence,
        found.rereads.sentence,
    ]


def _pace(scene: Scene, found: ReaderEvidence) -> Table:
    cut = scene.ws.config.reading.idle_cut_seconds
    told = pace(scene.ws.ledger.reading.reads(), cut)
    expected = {one.reader: one.seconds for one in found.pace.readers}
    rows = tuple(sorted(_row(scene, one, expected.get(one.reader)) for one in told))
    head = (
        *("reader", "read", "unusable", "skipped", "hinted", "blind", "minutes a read [95 %]"),
        *("next blind read, seconds [95 %]", "hours", "untimed"),
    )
    caption = (
        f"Pace. A read longer than {cut:.0f} s counts as that long. The next blind read of a "
        "random case is by the pace model, which draws readers towards their common mean by as "
        "much as their reads leave open."
    )
    return Table(head, rows, caption)


def _row(scene: Scene, one: Pace, expected: Estimate | None) -> tuple[str, ...]:
    name = scene.people.name(one.reader) + (" (adjudicator)" if one.role == "adjudicator" else "")
    counts = (one.read, one.unusable, one.skipped, one.hinted, one.blind)
    seconds = UNKNOWN if expected is None else _interval(expected, 0)
    hours = f"{one.seconds / 3600:.2f}"
    minutes = _interval(one.minutes, 2)
    return (name, *(f"{n:,}" for n in counts), minutes, seconds, hours, f"{one.untimed:,}")


def _interval(found: Estimate, digits: int, sign: str = "") -> str:
    if math.isnan(found.value):
        return UNKNOWN
    value, low, high = (f"{x:{sign},.{digits}f}" for x in (found.value, found.low, found.high))
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"


def _effects(found: ReaderEvidence) -> list[Part]:
    rows = tuple(
        (EFFECTS.get(name, name), _interval(times, 2), f"{times.n:,}")
        for name, times in found.pace.effects
    )
    caption = "What a read's time depends on: times as long, 95 %."
    return [Table(("effect", "times as long [95 %]", "reads"), rows, caption)] if rows else []


def _agreement(scene: Scene) -> list[Part]:
    ledger, log = scene.ws.ledger, scene.ws.ledger.reading
    blind, labels = fair_reads(log.reads(), log.rereads()), ledger.labels()
    groups = {item.id: item.group for item in ledger.items()}
    plain = agreement(labels, blind, groups)
    if not plain:
        return ["How far readers agree is not known: no two have read the same case blind yet."]
    weighted = agreement(labels, blind, groups, weigher(ledger))
    rows = [_pair(scene, w, p) for w, p in zip(weighted, plain, strict=True)]
    head = (
        *("finding", "readers", "kappa, weighted [95 %]", "kappa, plain [95 %]"),
        *("agreed on, weighted [95 %]", "items", "could not tell"),
    )
    caption = (
        "Agreement of pairs of readers (Cohen's kappa, interval by patient), on blind reads of "
        "train and validation. Weighted numbers speak of the pool, plain ones of what was read, "
        "which is of harder cases. Kappa is not known where both gave one value throughout."
    )
    return [Table(head, tuple(rows), caption, 2), *_masks(scene)]


def _masks(scene: Scene) -> list[Part]:
    rows = tuple(
        (
            one.finding,
            " and ".join(sorted(scene.people.name(reader) for reader in one.readers)),
            *(_interval(one.dice, 2), f"{one.dice.n:,}"),
            *(_interval(one.drawn, 2), f"{one.drawn.n:,}", f"{one.unsure:,}"),
        )
        for one in mask_agreement_of(scene.ws, weighted=True)
    )
    head = (
        *("finding", "readers", "Dice, weighted [95 %]", "items", "where drawn [95 %]", "items"),
        "could not tell",
    )
    return [Table(head, rows, f"Agreement of masks. {MEANING}", 2)] if rows else []


def _pair(scene: Scene, weighted: Agreement, plain: Agreement) -> tuple[str, ...]:
    agreed = Estimate(weighted.agreed, weighted.agreed_low, weighted.agreed_high, weighted.n)
    return (
        weighted.finding,
        " and ".join(sorted(scene.people.name(one) for one in weighted.readers)),
        _interval(Estimate(weighted.kappa, weighted.low, weighted.high, weighted.n), 2),
        _interval(Estimate(plain.kappa, plain.low, plain.high, plain.n), 2),
        percent(agreed),
        f"{plain.n:,}",
        f"{plain.unsure:,}",
    )


def _anchoring(scene: Scene, found: ReaderEvidence) -> list[Part]:
    rows = tuple(
        (
            scene.people.name(one.reader) if one.reader else "all readers",
            f"{one.hinted:,}",
            f"{one.blind:,}",
            percent(one.shown),
            percent(one.hidden),
            _points(one.shift),
            _interval(one.times, 2),
        )
        for one in found.anchoring
    )
    head = (
        *("reader", "hinted", "blind", "model's answer, shown", "model's answer, hidden"),
        *("shift, points [95 %]", "times as long [95 %]"),
    )
    caption = (
        "The pull of hints: how often an answer is the model's, where it was shown and where it "
        "was hidden; chance decides which. Not known where too few patients were read either way."
    )
    return [Table(head, rows, caption)] if rows else []


def _points(found: Estimate) -> str:
    hundred = Estimate(100 * found.value, 100 * found.low, 100 * found.high, found.n)
    return _interval(hundred, 0, "+")


def _rereads(found: ReaderEvidence) -> list[Part]:
    result = found.rereads
    rows = tuple(
        (
            name,
            *(f"{n:,}" for n in (part.asked, part.read, part.changed, part.unsure)),
            percent(part.share),
        )
        for name, part in _reread_parts(result)
    )
    if not rows:
        return []
    caption = (
        "Re-reads: answers that the model denies with confidence, and a control of like cases that "
        "it does not deny, read again blind by somebody else, or (own) by the reader who had "
        "answered."
    )
    head = ("re-read", "asked", "read", "changed", "could not tell", "share changed [95 %]")
    return [Table(head, rows, caption)]


def _reread_parts(result: RereadResult) -> list[tuple[str, reread_result.Part]]:
    found = [(result, ""), *([(result.own, ", own")] if result.own else [])]
    return [
        row
        for one, whose in found
        if one.contradiction.asked
        for row in ((f"contradictions{whose}", one.contradiction), (f"control{whose}", one.control))
    ]
