"""The headline claims, each with its interval, and the label-cost curve as figure and table."""

from __future__ import annotations

import math
from dataclasses import replace

from app.claim_words import REPLAYED, SHADOW, beside, by_chance, name_of, of_chance
from app.report.curve_svg import Drawn, curve_svg
from app.report.html import Figure, Part, Points, Section, Table
from app.report.scene import UNKNOWN, Scene, plural
from ssl_core import tell
from ssl_core.claims.claim import Claim, claim
from ssl_core.claims.curve import MACRO, Line, Origin
from ssl_core.claims.promotion import find_in_use
from ssl_core.claims.proof import Outlook, Proof, Replayed, proof, sentences
from ssl_core.evidence import Difference, Estimate

Row = tuple[str, str, str]
DOES = {"auroc": "ranks", "dice": "draws on"}
ORIGINS: tuple[Origin, Origin] = ("rounds", "replay")
NO_REPLAY = (
    "What selection saved beside chance, in labels, hours and money, is not known: nothing was "
    "replayed here under the present settings. On an archive `readloop replay` measures it."
)

TOO_EARLY = (
    "A shadow control has been trained, and it is on the curve; it can be held against selection "
    "once measured rounds had fewer and more labels than it."
)


def claims(scene: Scene) -> Section:
    """What was reached, whether selection beats chance, what it saved, and what comes next."""
    used = find_in_use(scene.ws)
    told = claim(scene.curve, None if used is None else (used[0], used[1].stage))
    proven = proof(scene.ws, scene.target, curve=scene.curve)
    parts: list[Part] = [told.text.partition(" Not known:")[0] + beside(scene.curve, told)]
    if told.point is not None and told.unknown:
        parts.append("Not known: " + "; ".join(told.unknown) + ".")
    parts.append(Points(tuple(sentences(proven))))
    if not proven.verdict.rounds and scene.curve.line("control") and not proven.replayed:
        parts.append(TOO_EARLY)
    if not proven.replayed:
        parts.append(NO_REPLAY)
    caption = "The same in numbers, each with its 95 % interval and what it rests on."
    parts.append(
        Table(("claim", "value [95 %]", "rests on"), _numbers(told, proven), caption, 1, 1)
    )
    for one in proven.replayed:
        parts.append(_beside_control(one, proven.metric))
    parts += _back_tests(proven)
    return Section("claims", "What may be claimed", tuple(parts))


def _numbers(told: Claim, proven: Proof) -> tuple[Row, ...]:
    rows, metric = _reached(told, proven.metric), proven.metric
    one = proven.verdict
    of = f"{plural(one.rounds, 'comparison')}; verdict: {one.state}"
    rows.append((f"{metric}, selection less chance", _difference(one.difference), of))
    for replayed in proven.replayed:
        rows += _saved(replayed, proven.currency, metric)
    if proven.own is not None:
        rows += _ahead("", proven.own, metric)
    for replayed in proven.replayed:
        rows += _ahead(f"replay of {replayed.strategy}: ", replayed.outlook, metric)
    return tuple(rows)


def _reached(told: Claim, metric: str) -> list[Row]:
    point, line = told.point, told.line
    if point is None or line is None:
        return [(f"{metric} on the vault", UNKNOWN, "no round has measured a model")]
    whose = f"{name_of(line)}, round {point.round}"
    rows = [
        (f"{metric} on the vault", _interval(point.auroc), f"{whose}; {_n(line, point.auroc)}"),
        ("Training labels behind it", f"{point.labels:,}", "items read by then"),
    ]
    if told.evaluation is not None:
        cost = sum(one.labels for one in told.evaluation.evaluation)
        rows.append(("Labels to measure it", f"{cost:,}", "validation and vault, counted apart"))
        hours, why = told.evaluation.train.hours, told.evaluation.train.reason
        value = UNKNOWN if hours is None else f"{hours:,.1f}"
        rows.append(("Reader-hours of the training labels", value, why or "timed reads"))
        rows.append(("Labels that chance needed for it", _chance(told), _of(told)))
    return rows


def _chance(told: Claim) -> str:
    value, found = by_chance(told), told.control
    if found is None or math.isnan(found.low) or math.isnan(found.high):
        return value
    low, high = (f"{x:,.0f}" if math.isfinite(x) else f"over {found.last:,}" for x in _ends(told))
    return f"{value} [{low}, {high}]"


def _ends(told: Claim) -> tuple[float, float]:
    return (told.control.low, told.control.high) if told.control else (math.nan, math.nan)


def _of(told: Claim) -> str:
    if told.control is None:
        return "no control has been measured yet"
    seeds = plural(told.control.seeds, "seed")
    unsure = "; its luck is not known" if math.isnan(told.control.low) else ""
    return f"{of_chance(told)}, {seeds}{unsure}"


def _saved(one: Replayed, currency: str | None, metric: str) -> list[Row]:
    seeds = plural(len(one.seeds), "seed")
    name = f"replay of {one.strategy}: "
    area = f"{name}{metric} over the budgets, less chance"
    rows = [(area, _difference(one.area_difference), seeds)]
    for some in (one.saved, one.at_target):
        if some is None:
            continue
        reached = f"{tell.an(metric)} of {tell.share(some.target)}"
        goal = f"at {reached} ({one.control}: {some.control:,.0f})"
        luck = "" if len(one.seeds) > 1 else "; with one seed luck is not known"
        rows.append((f"{name}labels needed", tell.labels(some.labels), goal))
        rows.append(
            (f"{name}times the labels of chance", tell.ratio(some.labels, some.control), goal)
        )
        rows.append((f"{name}labels spared", tell.amount(some.spared), seeds + luck))
        hours = UNKNOWN if some.hours is None else tell.amount(some.hours, 1)
        why = "no timed read prices a label" if some.hours is None else "at the time of a read here"
        rows.append((f"{name}reader-hours spared", hours, why))
        money = UNKNOWN if some.money is None else f"{currency} {tell.amount(some.money)}"
        price = "no price an hour, or no timed read" if some.money is None else "at the set price"
        rows.append((f"{name}money spared", money, price))
    return rows


def _ahead(name: str, found: Outlook, metric: str) -> list[Row]:
    ahead, advice = found.forecast, found.advice
    goal = f"{name}labels to {tell.an(metric)} of {tell.share(ahead.target)}"
    if ahead.labels is None:
        return [(goal, UNKNOWN, ahead.refused), (f"{name}go on or stop", UNKNOWN, ahead.refused)]
    hits = sum(one.covered for one in ahead.back_test)
    tried = f"forecast; back-test: {hits} of {len(ahead.back_test)} held"
    risk = f"{advice.advice}, at a risk of {advice.risk:.2f}" if advice.advice == "stop" else ""
    chance = UNKNOWN if advice.probability is None else f"{advice.probability:.2f}"
    next_ = f"{name}chance that {advice.more} more labels add {tell.share(advice.worth)} or more"
    return [
        (goal, tell.amount(ahead.labels), tried),
        (next_, chance, f"advice: {risk or advice.advice}"),
    ]


def _beside_control(one: Replayed, metric: str) -> Table:
    columns = zip(one.budgets, one.auroc, one.control_auroc, one.difference, strict=True)
    rows = [
        (f"{n:,.0f}", tell.interval(a), tell.interval(b), _difference(d)) for n, a, b, d in columns
    ]
    area = (tell.interval(one.area), tell.interval(one.control_area))
    rows.append(("all (area)", *area, _difference(one.area_difference)))
    caption = (
        f"{metric} of {one.strategy} beside the {REPLAYED}, {plural(len(one.seeds), 'seed')}; "
        "differences are paired by seed and patient."
    )
    head = ("labels", one.strategy, one.control, "difference [95 %]")
    return Table(head, tuple(rows), caption, 0)


def _back_tests(proven: Proof) -> list[Part]:
    outlooks = [("the workspace's own rounds", proven.own)] if proven.own else []
    outlooks += [(f"the replay of {one.strategy}", one.outlook) for one in proven.replayed]
    return [
        Table(
            ("labels", "forecast [95 %]", "measured", "held"),
            tuple(
                (
                    f"{t.labels:,.0f}",
                    tell.interval(t.forecast),
                    tell.share(t.measured),
                    "yes" if t.covered else "no",
                )
                for t in found.forecast.back_test
            ),
            f"Back-test of the forecast on {name}: each point as forecast from those before it.",
            0,
        )
        for name, found in outlooks
        if found is not None and found.forecast.back_test
    ]


def _interval(found: Estimate) -> str:
    return UNKNOWN if math.isnan(found.value) else tell.interval(found)


def _difference(found: Difference | None) -> str:
    return UNKNOWN if found is None or math.isnan(found.value) else tell.difference(found)


def _n(line: Line, found: Estimate) -> str:
    seeds = line.origin == "replay" and line.seeds > 1
    return plural(found.n, "seed") if seeds else f"{plural(found.n, 'item')}, by patient"


# The curve ----------------------------------------------------------------------------------------


def curve(scene: Scene) -> Section:
    """The metric against labels, the control beside it, as a figure and in a table."""
    metric = scene.curve.metric
    title = f"{metric} against labels"
    lines = [line for line in scene.curve.lines if line.points]
    shown = [line for line in lines if line.finding == MACRO]
    if not shown:
        text = "There is no curve yet: no round has trained a model on labels and measured it."
        return Section("curve", title, (text,))
    parts: list[Part] = [
        "Each point is a model of one round, or the mean over the seeds of a replay: how well it "
        f"{DOES[scene.ws.ledger.task.metric]} the vault's items, against the labels it learned "
        "from. Bars are 95 % intervals, over patients for one model and over seeds for several.",
        _control(scene),
    ]
    for origin in ORIGINS:
        parts += _figure(shown, origin, metric)
    parts.append(_table(shown, scene.curve.currency, metric))
    if len(scene.curve.findings) > 1:
        parts.append(_by_finding(lines, metric))
    return Section("curve", title, tuple(parts))


def _control(scene: Scene) -> str:
    if scene.curve.no_control:
        return f"Chance is not on the curve: {scene.curve.no_control}."
    told = {
        REPLAYED: "the same items replayed, labels drawn at random",
        SHADOW: "the same recipe, trained in this workspace on its random labels alone",
    }
    there = {name_of(line) for line in scene.curve.lines if line.role == "control"}
    return "Controls: " + "; ".join(f"{n}: {t}" for n, t in told.items() if n in there) + "."


def _figure(lines: list[Line], origin: Origin, metric: str) -> list[Part]:
    """The students, the teacher of the own rounds, and every control."""
    own = [x for x in lines if x.origin == origin and x.role != "control"]
    if not own:
        return []
    roles = ("student", "supervised") if origin == "rounds" else ("student",)
    chosen = sorted((x for x in own if x.role in roles), key=lambda x: roles.index(x.role)) or own
    # A replay's control stands beside the own rounds too, as on the page Overview.
    kept = [x for x in lines if x.role == "control" and (origin == "rounds" or x.origin == origin)]
    drawn = [Drawn(name_of(x), x.role == "control", _places(x)) for x in (*chosen, *kept)]
    title = "This workspace's rounds" if origin == "rounds" else "The replay"
    svg = curve_svg(drawn, f"{title}: {metric} against training labels", metric)
    caption = f"{title}: {metric} on the vault (mean over findings) against training labels."
    return [Figure(svg, caption)] if svg else []


def _places(line: Line) -> tuple[tuple[float, float, float, float], ...]:
    return tuple((float(p.labels), p.auroc.value, p.auroc.low, p.auroc.high) for p in line.points)


def _table(lines: list[Line], currency: str | None, metric: str) -> Table:
    money = (f"money, {currency}",) if currency else ()
    rows = []
    for line in lines:
        for p in line.points:
            hours = "–" if p.hours is None else f"{p.hours:,.2f}"
            cost = ("–" if p.money is None else f"{p.money:,.0f}",) if currency else ()
            n = _n(line, p.auroc).partition(",")[0]
            cells = (f"{p.labels:,}", hours, *cost, _on_curve(line, p.auroc), n)
            rows.append((name_of(line), f"{p.round}", *cells))
    head = ("line", "round", "labels", "reader-hours", *money, f"{metric} [95 %]", "over")
    caption = (
        "The same as numbers. Reader-hours are of training reads; – where they are not known, as "
        "in a replay, where nobody reads. Intervals of a replay are here over its seeds alone, in "
        "the claims over test patients too."
    )
    return Table(head, tuple(rows), caption)


def _on_curve(line: Line, found: Estimate) -> str:
    """An interval over seeds ends at 1; seeds that do not differ tell none."""
    if line.origin == "rounds" or line.seeds < 2:
        return _interval(found)
    if found.low == found.high:
        return f"{tell.share(found.value)}, seeds alike"
    return _interval(replace(found, low=max(0.0, found.low), high=min(1.0, found.high)))


def _by_finding(lines: list[Line], metric: str) -> Table:
    """The newest student of the own rounds, else of the replays, finding by finding."""
    own = [x for x in lines if x.role == "student" and x.finding != MACRO]
    origin = "rounds" if any(x.origin == "rounds" for x in own) else "replay"
    rows = tuple(
        (x.finding, name_of(x), f"{x.points[-1].labels:,}", _interval(x.points[-1].auroc))
        for x in own
        if x.origin == origin
    )
    caption = (
        "The newest point of each student by finding; not known where the vault's labels do "
        "not say enough of a finding to measure it."
    )
    return Table(("finding", "model", "labels", f"{metric} [95 %]"), rows, caption, 2)
