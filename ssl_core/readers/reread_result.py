"""What re-reading contradictions found: how many answers changed, against the control's share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl_core.evidence import Estimate, mean_interval
from ssl_core.metrics import operating_points
from ssl_core.readers.assignment import DONE
from ssl_core.records import AGAIN, HeldRead, Reread, RereadKind
from ssl_core.workspace import Workspace

KINDS: tuple[RereadKind, RereadKind] = ("contradiction", "control")
REMEMBERED = "Who remembers a case repeats the answer, so both shares may be too low."
NOTHING = "No case has been re-read: `readloop reread` asks for contradictions and a control."


@dataclass(frozen=True, slots=True)
class Part:
    """Contradictions, or their control: of `asked` items `read` were read again.

    On `unsure` of those the re-reader could not tell, or called the image unusable; they are in no
    share. `changed` of the others were answered otherwise; `share` in [0, 1] has Wilson's interval
    by patient. `seconds` is the time that was told, each read cut at the idle cut, and `minutes`
    its mean a read.
    """

    asked: int
    read: int
    unsure: int
    changed: int
    share: Estimate
    seconds: float
    minutes: Estimate


@dataclass(frozen=True, slots=True)
class RereadResult:
    """Both parts, and the contradictions' share less the control's, with its 95 % interval.

    `money` is what these re-reads cost, None without a price. `waiting` are not read yet. `own` is
    the same of what the reader who had answered first was asked again, and of that alone; None
    where nobody was. `sentence` says it all in words.
    """

    contradiction: Part
    control: Part
    difference: Estimate
    waiting: int
    money: float | None
    sentence: str
    own: RereadResult | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """One re-read: 1.0 when the answer changed, 0.0 when not, NaN when nobody could tell.

    `own`: by the reader who had answered first.
    """

    kind: RereadKind
    group: str
    changed: float
    seconds: float | None
    own: bool = False


def reread_result(ws: Workspace) -> RereadResult:
    """What the re-reads of a workspace found so far; no vault label is looked at."""
    rereads = ws.ledger.reading.rereads()
    found = answered(ws, rereads)
    price = ws.config.cost.per_hour if ws.config.cost else None
    cut = ws.config.reading.idle_cut_seconds
    by_others, own = (
        result([x for x in found if x.own == mine], asked, cut, price)
        for mine in (False, True)
        for asked in [[one for one in rereads if _is_own(one) == mine]]
    )
    if not own.contradiction.asked:
        return by_others
    told = [by_others.sentence] if by_others.contradiction.asked else []
    told += [f"By the reader who had answered before: {own.sentence} {REMEMBERED}"]
    return replace(by_others, own=own, sentence=" ".join(told))


def answered(ws: Workspace, rereads: Sequence[Reread]) -> list[Answered]:
    """The re-reads that are done: of each item, the first reader's who had not read it before.

    Where the same reader was asked again, theirs.
    """
    if not rereads:
        return []
    history = [read for _, read in ws.ledger.read_history()]
    newest = {(r.item_id, r.reader): r for r in ws.ledger.reading.reads() if r.outcome in DONE}
    said = {(x.item_id, x.finding, x.reader): x.value for x in ws.ledger.labels()}
    groups = {item.id: item.group for item in ws.ledger.items()}
    events: dict[str, list[tuple[int, HeldRead]]] = {one.item_id: [] for one in rereads}
    for position, read in enumerate(history):
        if read.item_id in events:
            events[read.item_id].append((position, read))
    done = []
    for one in rereads:
        if (again := _again(one, events[one.item_id], newest)) is not None:
            value = said.get((one.item_id, one.finding, again.reader), math.nan)
            unsure = again.outcome == "unusable" or math.isnan(value)
            changed = math.nan if unsure else float(value != one.value)
            group = groups[one.item_id]
            done.append(Answered(one.kind, group, changed, again.seconds, _is_own(one)))
    return done


def result(
    done: Sequence[Answered],
    rereads: Sequence[Reread],
    idle_cut: float,
    price: float | None = None,
) -> RereadResult:
    """Count, with intervals; `idle_cut` in seconds, `price` of an hour."""
    parts = [_part(done, rereads, kind, idle_cut) for kind in KINDS]
    ours, control = parts
    apart = difference(ours.share, control.share)
    untimed = sum(one.seconds is None for one in done)
    hours = (ours.seconds + control.seconds) / 3600
    money = None if price is None or untimed else hours * price
    waiting = len(rereads) - len(done)
    told = _sentence(ours, control, apart, waiting)
    return RereadResult(ours, control, apart, waiting, money, told)


def difference(ours: Estimate, theirs: Estimate) -> Estimate:
    """The difference of two independent shares, by Newcombe's hybrid of their intervals.

    Newcombe 1998, method 10: d - √((a - a_low)² + (b_high - b)²) to d + √((a_high - a)² +
    (b - b_low)²). NaN where one of the two is.
    """
    d = ours.value - theirs.value
    down = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    up = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Estimate(d, d - down, d + up, min(ours.n, theirs.n))


def _again(
    one: Reread,
    events: Sequence[tuple[int, HeldRead]],
    newest: dict[tuple[str, str], HeldRead],
) -> HeldRead | None:
    """Who was asked, or who kept the item in reserve and came first; an own correction is none."""
    before = {read.reader for position, read in events if position < one.after}
    for position, read in events:
        if _is_own(one) and read.reader != one.reader:
            continue
        if position >= one.after and read.reader not in before:
            found = newest.get((one.item_id, read.reader))
            if found is not None:
                return found
    return None


def _is_own(one: Reread) -> bool:
    return one.reader.endswith(AGAIN)


def _part(
    done: Sequence[Answered], rereads: Sequence[Reread], kind: RereadKind, idle_cut: float
) -> Part:
    here = [one for one in done if one.kind == kind]
    told = [one for one in here if not math.isnan(one.changed)]
    seconds = [min(one.seconds, idle_cut) for one in here if one.seconds is not None]
    return Part(
        asked=sum(one.kind == kind for one in rereads),
        read=len(here),
        unsure=len(here) - len(told),
        changed=sum(one.changed == 1 for one in told),
        share=_share(told),
        seconds=sum(seconds),
        minutes=mean_interval([s / 60 for s in seconds]),
    )


def _share(told: Sequence[Answered]) -> Estimate:
    if not told:
        return Estimate(math.nan, math.nan, math.nan, 0)
    changed = np.array([[one.changed] for one in told])
    groups = np.array([one.group for one in told], dtype=np.str_)
    # What is called present throughout is right as often as the truth is present.
    called = np.ones_like(changed)
    return operating_points(called, changed, groups=groups)["precision"].macro.estimate


def _sentence(ours: Part, control: Part, apart: Estimate, waiting: int) -> str:
    if not ours.asked:
        return NOTHING
    if math.isnan(apart.value):
        return f"{waiting:,} re-reads wait, and there is nothing to compare yet."
    shares = (
        f"Of {ours.share.n:,} contradictions that were read again, {ours.changed:,} were answered "
        f"otherwise ({_percent(ours.share)}); of {control.share.n:,} in the control, "
        f"{control.changed:,} ({_percent(control.share)})"
    )
    points = f"{100 * apart.value:+.0f} points [{100 * apart.low:+.0f}, {100 * apart.high:+.0f}]"
    if apart.low > 0:
        verdict = "the model points at labels that do not hold"
    elif apart.high < 0:
        verdict = "labels that the model denies hold more often than others"
    else:
        verdict = "they cannot be told apart"
    rest = f" {waiting:,} more wait." if waiting else ""
    return f"{shares}: {points}, {verdict}.{rest}"


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"
