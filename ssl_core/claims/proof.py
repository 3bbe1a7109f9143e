"""The claims of a workspace, tested: what was replayed beside random, and its own rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core import tell
from ssl_core.claims.cost import Cost
from ssl_core.claims.curve import Curve, Point, label_cost
from ssl_core.claims.forecast import Forecast, Observed, forecast
from ssl_core.claims.kept_evidence import Pair, pairs
from ssl_core.claims.savings import (
    Paths,
    Saved,
    area,
    area_difference,
    differences,
    joint,
    saved,
)
from ssl_core.claims.stopping import Advice, advise
from ssl_core.claims.watch import Verdict, of_replay, verdict
from ssl_core.evidence import Difference, Estimate, Z
from ssl_core.records import METRICS
from ssl_core.training.seeds import derived_seed
from ssl_core.workspace import Workspace

STEP = 0.01  # a forecast's target lies so far above the newest AUROC, where none is asked for


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where the learning curve leads: the forecast with its back-test, and the stop advice."""

    forecast: Forecast
    advice: Advice


@dataclass(frozen=True, slots=True)
class Replayed:
    """One strategy replayed beside its control; differences are ours less the control's.

    `auroc` and `control_auroc` are at `budgets`, as is `difference`, over seeds and test cases;
    with one seed their intervals are NaN. `area…` is the mean AUROC over the log of the budget.
    `saved` is at the AUROC of the control's largest budget, `at_target` at the one asked for.
    """

    strategy: str
    control: str
    seeds: tuple[int, ...]
    budgets: tuple[float, ...]
    auroc: tuple[Estimate, ...]
    control_auroc: tuple[Estimate, ...]
    difference: tuple[Difference, ...]
    area: Estimate
    control_area: Estimate
    area_difference: Difference
    saved: Saved
    at_target: Saved | None
    outlook: Outlook
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Proof:
    """All that is claimed: `own` of the workspace's own rounds, and each replayed strategy.

    `metric` is what people call what was measured: every `auroc` here is of that.
    """

    own: Outlook | None
    verdict: Verdict
    replayed: tuple[Replayed, ...]
    currency: str | None
    metric: str = METRICS["auroc"]


def proof(
    ws: Workspace,
    target: float | None = None,
    *,
    curve: Curve | None = None,
    found: Sequence[Pair] | None = None,
    ask_models: bool = False,
) -> Proof:
    """Test the claims of a workspace; `found` are replays to speak of instead of those kept.

    `target`: an AUROC in (0, 1) for forecast and savings; None: `STEP` above the newest, and that
    of the control's largest budget alone. No label is read. Same seed, same answer.
    """
    curve = curve or label_cost(ws)
    line = curve.line("student")
    now = curve.now.train
    told = tuple(
        replayed(ws, pair, target, now, ask_models=ask_models)
        for pair in (pairs(ws) if found is None else found)
    )
    own = None
    if line is not None and line.points:
        history = [_observed(p) for p in line.points]
        own = _outlook(history, target, _rng(ws, "own"))
    said = verdict(ws, ask_models=ask_models)
    return Proof(own, said, told, curve.currency, curve.metric)


def replayed(
    ws: Workspace, pair: Pair, target: float | None, now: Cost, *, ask_models: bool = False
) -> Replayed:
    """Every claim of one replayed strategy. `now` prices a label, where reads carry a time."""
    ours, control = pair.ours, pair.control
    hours, money = (
        None if x is None or not now.reads else x / now.reads for x in (now.hours, now.money)
    )
    return Replayed(
        strategy=ours.strategy,
        control=control.strategy,
        seeds=pair.seeds,
        budgets=tuple(ours.budgets.tolist()),
        auroc=_means(ours),
        control_auroc=_means(control),
        difference=differences(ours, control),
        area=area(ours),
        control_area=area(control),
        area_difference=area_difference(ours, control),
        saved=saved(ours, control, None, hours, money),
        at_target=None if target is None else saved(ours, control, target, hours, money),
        outlook=_outlook(_history(ours), target, _rng(ws, ours.strategy)),
        verdict=of_replay(ws, pair, ask_models=ask_models),
    )


def sentences(found: Proof) -> list[str]:
    """The claims in words, most important first."""
    told = [found.verdict.sentence]
    if found.own is not None:
        told += outlook_sentences(found.own, found.metric)
    for one in found.replayed:
        told += replay_sentences(one, found.currency, found.metric)
    return list(dict.fromkeys(told))


def replay_sentences(
    one: Replayed, currency: str | None, metric: str = METRICS["auroc"]
) -> list[str]:
    """The claims of one replayed strategy."""
    ours, control = one.strategy, one.control
    told = [one.verdict.sentence]
    told.append(
        f"Replayed with {_seeds(one.seeds)}, {one.budgets[0]:,.0f} to {one.budgets[-1]:,.0f} "
        f"labels, {ours} has a mean {metric} of {tell.interval(one.area)} over the budgets (evenly "
        f"on their logarithm) and {control} {tell.interval(one.control_area)}: "
        f"{tell.difference(one.area_difference)}."
    )
    for some in (one.saved, one.at_target):
        if some is not None:
            told.append(saved_sentence(ours, control, some, currency, metric))
    return told + [f"Replay of {ours}: {text}" for text in outlook_sentences(one.outlook, metric)]


def saved_sentence(
    ours: str, control: str, some: Saved, currency: str | None, metric: str = METRICS["auroc"]
) -> str:
    """What the strategy needs for an AUROC (or Dice) of the control's, and what that spares."""
    goal = tell.share(some.target)
    text = (
        f"For {tell.an(metric)} of {goal}, which {control} has with {some.control:,.0f} labels, "
        f"{ours} needs {tell.labels(some.labels)}, {tell.ratio(some.labels, some.control)} times "
        "as many"
    )
    if math.isnan(some.labels.low):
        return f"{text}; with one seed, how far luck goes is not known."
    text += f": spared {tell.amount(some.spared)} labels"
    if some.hours is not None:
        text += f", {tell.amount(some.hours, 1)} reader-hours"
    if some.money is not None:
        text += f", {currency} {tell.amount(some.money)}"
    return text + "."


def outlook_sentences(found: Outlook, metric: str = METRICS["auroc"]) -> list[str]:
    """The forecast with its back-test, and the stop advice."""
    ahead, advice = found.forecast, found.advice
    if ahead.labels is None:
        return [f"No forecast and no stop advice: {ahead.refused}."]
    hits = sum(one.covered for one in ahead.back_test)
    low, middle, high = (_far(x) for x in (ahead.labels.low, ahead.labels.value, ahead.labels.high))
    return [
        f"{_first(metric)} of {tell.share(ahead.target)} is forecast with {middle} labels in all "
        f"[{low}, {high}]; back-test: {hits} of {len(ahead.back_test)} earlier points lay in the "
        "interval forecast from those before.",
        f"The next {advice.more} labels add {tell.an(metric)} of {tell.share(advice.worth)} or "
        f"more with probability {advice.probability:.2f}: {advice.advice}"
        + (f", at a risk of {advice.risk:.2f} or less." if advice.advice == "stop" else "."),
    ]


def _first(metric: str) -> str:
    """ "An AUROC", at the beginning of a sentence."""
    name = tell.an(metric)
    return name[0].upper() + name[1:]


def _far(labels: float) -> str:
    return f"{labels:,.0f}" if math.isfinite(labels) else "no end in sight"


def _seeds(seeds: Sequence[int]) -> str:
    return "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _outlook(
    history: Sequence[Observed], target: float | None, rng: np.random.Generator
) -> Outlook:
    newest = max(history, key=lambda one: one.labels).auroc
    goal = min(newest + STEP, (newest + 1) / 2) if target is None else target
    return Outlook(forecast(history, goal, rng), advise(history, rng))


def _means(paths: Paths) -> tuple[Estimate, ...]:
    found = joint(paths)
    rows = (found.difference(row) for row in np.eye(len(paths.budgets)))
    return tuple(Estimate(d.value, d.low, d.high, d.n) for d in rows)


def _history(paths: Paths) -> list[Observed]:
    """Errors over seeds; over test cases where there is one seed alone."""
    found = joint(paths)
    luck = found.seeds if found.runs > 1 else found.cases
    numbers = zip(paths.budgets, found.mean, np.sqrt(np.diag(luck)), strict=True)
    return [Observed(float(n), float(y), float(e)) for n, y, e in numbers]


def _observed(point: Point) -> Observed:
    error = (point.auroc.high - point.auroc.low) / (2 * Z)
    return Observed(point.labels, point.auroc.value, error)


def _rng(ws: Workspace, name: str) -> np.random.Generator:
    return np.random.default_rng(derived_seed(ws.config.seed, 0, f"claims {name}"))
