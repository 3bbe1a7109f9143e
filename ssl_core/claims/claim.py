"""What a lead tells the sponsor: one sentence after the other, each made of measured numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssl_core.claims.cost import Cost, Spent
from ssl_core.claims.curve import MACRO, Curve, Line, Origin, Point, reach
from ssl_core.evidence import Estimate
from ssl_core.records import METRICS
from ssl_core.tell import an, interval


@dataclass(frozen=True, slots=True)
class Needed:
    """Training labels that a random control needed for an AUROC, read off its curve.

    `origin` says which control: the random arm of a replay, or the shadow of this workspace's
    rounds, which is one run, with the random labels alone.

    `labels` is where the control's mean reaches it, between its points as in `reach`; `low`
    and `high` where the ends of its 95 % band do. Each is `first` where the control was there with
    its first budget already (so many or fewer), and infinite where it was not with `last`, the
    largest that was replayed.

    The band is of another run and not of the mean, since what it is held against is a run with
    luck of its own: t s sqrt(1 + 1/S) for S seeds, where s is the control's spread over them.
    Both were measured on the same vault, so the luck of its patients is shared and not in the
    band. NaN with one seed, and where the seeds do not differ: the spread is then not known. Two
    strategies that were both replayed are compared in `proof`, seed by seed.
    """

    labels: float
    low: float
    high: float
    first: int
    last: int
    seeds: int
    origin: Origin = "replay"

    def says(self, spent: int) -> str:
        """How that stands to the labels that were spent: "more", "fewer", "same", "unknown"."""
        if math.isnan(self.low) or math.isnan(self.high):
            return "unknown"
        return "more" if self.low > spent else "fewer" if self.high < spent else "same"


@dataclass(frozen=True, slots=True)
class Claim:
    """The newest measured student in numbers, and `text`, the same in words.

    `control` is what a live run is held against, the replay's random arm or else the shadow
    control; None for a replay (see `proof`).

    `point` and `line` are None where no round has measured a model, neither here nor in a replay.
    `evaluation` is what validation and vault cost (None for a replay). `unknown` lists, in words,
    what is not known; it is in the text too.
    """

    origin: Origin
    line: Line | None
    point: Point | None
    evaluation: Spent | None
    control: Needed | None
    currency: str | None
    unknown: tuple[str, ...]
    text: str


def claim(curve: Curve, of: tuple[int, str] | None = None) -> Claim:
    """The claim of one model of the workspace, by round and stage (say, the one in use).

    None: its newest student; where it has none, the student of the replay's largest budget.
    """
    line, point = _chosen(curve, of)
    if line is None or point is None:
        text = "Nothing is measured yet: no round has trained a model on labels."
        return Claim("rounds", None, None, None, None, curve.currency, (text,), text)
    own = line.origin == "rounds"
    at = next((s for s in curve.spent if own and s.round == point.round), None)
    control = needed(_random(curve), point.auroc) if own else None
    unknown = tuple(_unknown(curve, at, point, control))
    parts = [_measured(line, point, curve), *_cost(at, curve), _control(control, point)]
    parts += [f"Not known: {one}." for one in unknown]
    text = " ".join(part for part in parts if part)
    return Claim(line.origin, line, point, at, control, curve.currency, unknown, text)


def _chosen(curve: Curve, of: tuple[int, str] | None) -> tuple[Line | None, Point | None]:
    if of is not None:
        for line in curve.lines:
            if (line.origin, line.finding, line.stage) == ("rounds", MACRO, of[1]):
                for point in line.points:
                    if point.round == of[0]:
                        return line, point
        return None, None
    best = curve.line("student") or curve.line("student", "replay")
    return best, best.points[-1] if best and best.points else None


def _random(curve: Curve) -> Line | None:
    """The replay's random arm where it has come so far; else the shadow control."""
    lines = [curve.line("control", "replay"), curve.line("control")]
    return next((line for line in lines if line is not None and line.points), None)


def needed(line: Line | None, target: Estimate) -> Needed | None:
    """The labels that a random control's line needs for the AUROC of one run.

    None without a control, without a target, or where no point of the control is defined.
    """
    if line is None or math.isnan(target.value):
        return None
    points = [p for p in line.points if not math.isnan(p.auroc.value)]
    if not points:
        return None
    budgets, means = [p.labels for p in points], [p.auroc.value for p in points]
    halves = [_half(p.auroc, line.seeds) for p in points]
    low, high = (
        math.nan
        if any(math.isnan(half) for half in halves)
        else reach(
            budgets, [m + sign * h for m, h in zip(means, halves, strict=True)], target.value
        )
        for sign in (1, -1)
    )
    found = reach(budgets, means, target.value)
    return Needed(found, low, high, budgets[0], budgets[-1], line.seeds, line.origin)


def _half(control: Estimate, runs: int) -> float:
    """Half the width of the band of one point of the control, as `Needed` says."""
    own = (control.high - control.low) / 2
    if runs < 2 or math.isnan(own) or own == 0:
        return math.nan
    return own * math.sqrt(runs + 1)


def _measured(line: Line, point: Point, curve: Curve) -> str:
    auroc = interval(point.auroc)
    if line.origin == "replay":
        seeds = "1 seed" if line.seeds == 1 else f"{line.seeds} seeds"
        return (
            f"Replayed with {seeds}, {point.labels:,} training labels chosen by {line.strategy} "
            f"gave {an(curve.metric)} of {auroc} on the vault."
        )
    since = curve.now.train.labels - point.labels
    more = f" {since:,} more were read since." if since > 0 else ""
    return (
        f"With {point.labels:,} training labels, {curve.metric} on the vault is {auroc} "
        f"({line.stage} of round {point.round}, {point.auroc.n:,} items).{more}"
    )


def _cost(at: Spent | None, curve: Curve) -> list[str]:
    if at is None:
        return []
    parts = []
    if at.train.hours is not None and at.train.reads:
        parts.append(f"They took {_effort(at.train, curve)}.")
    if at.train.imported:
        parts.append(f"{at.train.imported:,} of them came with the import.")
    labels = sum(one.labels for one in at.evaluation)
    efforts = [one.hours for one in at.evaluation]
    money = [one.money for one in at.evaluation]
    if labels:
        effort = ""
        if None not in efforts and any(one.reads for one in at.evaluation):
            price = None if None in money else sum(m for m in money if m is not None)
            effort = ", " + _amount(sum(h for h in efforts if h is not None), price, curve)
        parts.append(f"Measuring cost {labels:,} labels besides{effort}.")
    return parts


def _effort(cost: Cost, curve: Curve) -> str:
    assumed = f" ({cost.reason})" if cost.reason else ""
    return _amount(cost.hours or 0.0, cost.money, curve) + assumed


def _amount(hours: float, money: float | None, curve: Curve) -> str:
    price = "" if money is None else f", {curve.currency} {money:,.0f}"
    return f"{hours:.1f} reader-hours{price}"


def _control(needed: Needed | None, point: Point) -> str:
    if needed is None:
        return ""
    who, most = _who(needed)
    stands, spent = needed.says(point.labels), f"{point.labels:,}"
    if math.isinf(needed.labels):
        told = {
            "more": "",
            "unknown": "; how far luck goes is not known",
            "same": f", but its runs spread too far to tell that from the {spent} spent",
            "fewer": "",
        }
        return (
            f"{who} did not get there with {needed.last:,} labels, the most that {most}"
            f"{told[stands]}."
        )
    band = ""
    if stands != "unknown":
        band = f" [{_labels(needed.low, needed)}, {_labels(needed.high, needed)}]"
    told = {
        "more": f", more than the {spent} spent",
        "fewer": f", fewer than the {spent} spent",
        "same": f", which cannot be told from the {spent} spent",
        "unknown": f" (here: {spent}); how far luck goes is not known",
    }
    count = _labels(needed.labels, needed)
    return f"{who} needed {count} labels{band} to get there{told[stands]}."


def _who(needed: Needed) -> tuple[str, str]:
    """The control in words, and what is true of its largest budget."""
    if needed.origin == "rounds":
        return "The shadow control, which learned from random labels alone,", "it was trained on"
    seeds = "1 seed" if needed.seeds == 1 else f"{needed.seeds} seeds"
    return f"Random choice, replayed with {seeds},", "was replayed"


def _labels(value: float, needed: Needed) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return f"more than {needed.last:,}"
    at_most = "at most " if value == needed.first else ""
    return f"{at_most}{math.ceil(value):,}"


def _unknown(curve: Curve, at: Spent | None, point: Point, control: Needed | None) -> list[str]:
    found = []
    if math.isnan(point.auroc.value):
        found.append(f"{curve.metric}, because {_unmeasured(curve)}")
    if at is not None and at.train.hours is None:
        found.append(f"reader-hours, because {at.train.reason}")
    if curve.currency is None and at is not None:
        found.append("money, because `[cost] per_hour` is not set in readloop.toml")
    replayed = at is None and curve.line("control", "replay") is not None
    if control is None and not replayed and not math.isnan(point.auroc.value):
        reason = curve.no_control or (
            f"the {curve.metric} of its control is not defined"
            if _random(curve)
            else "no control yet: the replay of random is not finished"
        )
        found.append(f"what random choice would have needed ({reason})")
    return found


def _unmeasured(curve: Curve) -> str:
    if curve.metric == METRICS["dice"]:
        return "no mask of the vault is known"
    return "the vault's labels do not hold two sides of any finding"
