"""The label-cost curve as plain data: AUROC on the vault against labels, reader-hours and money.

Where masks are drawn every `auroc` here is the mean Dice; `Curve.metric` says which it is.

Every number is one that a round measured and the ledger holds: nothing here reads a vault label.
There are two random controls: what `simulate` replayed on the same items (its arms lie in the
workspace), and the shadow that rounds train on their random labels alone (see `shadow`), whose
budget is the number of those. A workspace that has neither says why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ssl_core.arms import Replayed, arm_config, replayed_arms
from ssl_core.claims.cost import Spent, spent
from ssl_core.config import ledger_url
from ssl_core.errors import ReadloopError
from ssl_core.evidence import Estimate, mean_of_shares
from ssl_core.history.ledger import Ledger
from ssl_core.recipes import plan
from ssl_core.recipes.stages import LABELS
from ssl_core.records import CONTROL as SHADOW
from ssl_core.records import METRICS, Measurement, Round
from ssl_core.shadow import controls
from ssl_core.workspace import CONFIG_FILE, Workspace

CONTROL = "random"
MACRO = "macro"
NO_CONTROL = (
    "no control yet: the rounds have not trained a shadow control on random labels alone, and no "
    "replay beside random has been run here (`readloop simulate` does that, on an archive)"
)
CONTROL_OFF = (
    'no control: `[selection] control` is "off", and no replay beside random has been run here '
    "(`readloop simulate` does that, on an archive)"
)

Origin = Literal["rounds", "replay"]
Role = Literal["student", "intermediate", "supervised", "control"]


@dataclass(frozen=True, slots=True)
class Point:
    """One AUROC at one budget; `labels` counts the training items labeled when it was trained.

    `hours` and `money` are those of the training reads; None where not known, as in a replay.
    """

    round: int
    labels: int
    hours: float | None
    money: float | None
    auroc: Estimate


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the plot: a stage's AUROC for one finding (or "macro"), by rising budget.

    `origin` "rounds": this workspace's own; "replay": arms of `simulate`, the mean over `seeds`.
    The interval is over vault patients for one seed, and over seeds (Student's t) for several.
    `role` "supervised" is the teacher, which learned from labels alone (a recipe of labels alone
    has its student only); "control" is the student of the random strategy: in a replay, or as the
    shadow of this workspace's rounds, where `round` is the one that trained it, `labels` are the
    random ones it learned from, and nobody knows what they alone cost.
    """

    origin: Origin
    strategy: str
    stage: str
    role: Role
    finding: str
    seeds: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """All lines, what was spent, and what is not known: `no_control` is "" where there is one.

    `spent` has one entry for every round that measured, as of its opening; `now` is of today.
    `metric` is what people call the measured number: "AUROC", or "Dice" where masks are drawn.
    """

    lines: tuple[Line, ...]
    findings: tuple[str, ...]
    spent: tuple[Spent, ...]
    now: Spent
    no_control: str
    currency: str | None
    metric: str = METRICS["auroc"]

    def line(self, role: Role, origin: Origin = "rounds", finding: str = MACRO) -> Line | None:
        """The line of a role for one finding; None where there is none."""
        same = (role, origin, finding)
        found = (x for x in self.lines if (x.role, x.origin, x.finding) == same)
        return next(found, None)


def label_cost(ws: Workspace) -> Curve:
    """The curve of a workspace: its own rounds, and what was replayed beside them."""
    ledger, config = ws.ledger, ws.config
    own = _measured(ledger)
    numbers = list(dict.fromkeys(number for number, _ in own))
    *at, now = spent(ledger, config, numbers)
    rounds = {r.number: r for r in ledger.rounds()}
    lines = _own_lines(own, {s.round or 0: s for s in at}, rounds)
    lines += [*_shadow_lines(ledger, own), *_replayed(ws)]
    controlled = any(line.role == "control" for line in lines)
    return Curve(
        lines=tuple(lines),
        findings=(MACRO, *ledger.task.findings) if len(ledger.task.findings) > 1 else (MACRO,),
        spent=tuple(at),
        now=now,
        no_control="" if controlled else _no_control(ws),
        currency=config.cost.currency if config.cost else None,
        metric=ledger.task.metric_name,
    )


def _no_control(ws: Workspace) -> str:
    arms = sum(1 for _ in (ws.root / "simulations").glob(f"*/*/{CONFIG_FILE}"))
    if not arms:
        return CONTROL_OFF if ws.config.selection.control == "off" else NO_CONTROL
    return (
        f"no control yet: {arms} replays in this workspace were run with other settings, so "
        "they are not held against its rounds (`readloop simulate` runs them anew)"
    )


def supervised_stage(recipe: dict[str, object]) -> str | None:
    """The stage of a recipe whose model learned from labels alone; None where there is none."""
    fits = plan(recipe).fits
    return next(
        (f.name for f in fits if f.on in (LABELS, (LABELS,)) and not (f.start or f.views)), None
    )


def _measured(ledger: Ledger) -> list[tuple[int, Measurement]]:
    """The task's metric on the vault of every finished round, in the order of rounds and stages."""
    found = [
        (number, m)
        for number, m in ledger.measurements()
        if m.split == "vault" and m.name == ledger.task.metric
    ]
    finished = {number for number in {n for n, _ in found} if ledger.finished(number)}
    return [(number, m) for number, m in found if number in finished]


def _own_lines(
    measured: Iterable[tuple[int, Measurement]],
    at: dict[int, Spent],
    rounds: dict[int, Round],
) -> list[Line]:
    points: dict[tuple[str, Role, str], list[Point]] = {}
    roles = {number: _roles(json.loads(rounds[number].config)) for number in at}
    for number, m in measured:
        if m.stage == SHADOW:
            continue
        cost = at[number].train
        point = Point(number, cost.labels, cost.hours, cost.money, _estimate(m))
        role = roles[number].get(m.stage, "intermediate")
        points.setdefault((m.stage, role, m.finding), []).append(point)
    # A round trains on what the rounds before it asked.
    asked = [r.strategy for number, r in sorted(rounds.items()) if number < max(at, default=0)]
    name = ", ".join(dict.fromkeys(asked)) or "labels at hand"
    return [
        Line("rounds", name, stage, role, finding, 1, tuple(found))
        for (stage, role, finding), found in points.items()
    ]


def _shadow_lines(ledger: Ledger, measured: Iterable[tuple[int, Measurement]]) -> Iterator[Line]:
    """The shadow control by finding: each point at its own number of random labels."""
    labels = {control.round: control.labels for control in controls(ledger)}
    points: dict[str, list[Point]] = {}
    for number, m in measured:
        if m.stage == SHADOW:
            point = Point(number, labels[number], None, None, _estimate(m))
            points.setdefault(m.finding, []).append(point)
    for finding, found in points.items():
        rising = tuple(sorted(found, key=lambda point: point.labels))
        yield Line("rounds", CONTROL, SHADOW, "control", finding, 1, rising)


def _roles(config: dict[str, dict[str, object]]) -> dict[str, Role]:
    """What each stage of a round is on the plot, by the recipe that the round was opened with."""
    recipe = config.get("recipe", {"name": "teacher_student"})
    try:
        alone, last = supervised_stage(recipe), plan(recipe).fits[-1].name
    except ReadloopError:  # of a recipe that this version does not know
        return {"student": "student", "teacher": "supervised"}
    roles: dict[str, Role] = {alone: "supervised"} if alone else {}
    return {**roles, last: "student"}


def _estimate(m: Measurement) -> Estimate:
    return Estimate(m.value, m.low, m.high, m.n)


# What was replayed


@dataclass(frozen=True, slots=True)
class _Cell:
    arm: Replayed
    labels: int
    round: int
    stage: str
    finding: str
    auroc: Estimate


def _replayed(ws: Workspace) -> list[Line]:
    """The arms of this workspace's configuration, strategy by strategy, means over seeds.

    Arms that were asked in other steps are other runs: of each strategy those steps are taken
    that have most cells, and of equals the first by name.
    """
    cells = [cell for arm in replayed_arms(ws) for cell in _cells(ws, arm)]
    roles = _roles(ws.config.model_dump())
    lines: list[Line] = []
    names = {c.arm.strategy for c in cells}
    for strategy in sorted(names, key=lambda name: (name == CONTROL, name)):
        mine = _one_path([c for c in cells if c.arm.strategy == strategy])
        for stage, finding in dict.fromkeys((c.stage, c.finding) for c in mine):
            role = roles.get(stage, "intermediate")
            if strategy == CONTROL and role == "student":
                role = "control"
            some = [c for c in mine if (c.stage, c.finding) == (stage, finding)]
            lines.append(_mean_line(some, role))
    return lines


def _cells(ws: Workspace, arm: Replayed) -> list[_Cell]:
    config = arm_config(ws.config, arm.strategy, arm.seed)
    with Ledger.open(ledger_url(config, arm.root)) as ledger:
        measured = _measured(ledger)
        labels = {n: ledger.label_counts(n)["train"] for n in {n for n, _ in measured}}
    return [_Cell(arm, labels[n], n, m.stage, m.finding, _estimate(m)) for n, m in measured]


def _one_path(cells: Sequence[_Cell]) -> list[_Cell]:
    paths = sorted({c.arm.steps for c in cells})
    most = max(paths, key=lambda path: sum(c.arm.steps == path for c in cells), default="")
    return [c for c in cells if c.arm.steps == most]


def _mean_line(cells: Sequence[_Cell], role: Role) -> Line:
    """One point a round: every seed's arm asks for the same budgets in the same rounds."""
    points = []
    seeds = len({c.arm.seed for c in cells})
    for number in sorted({c.round for c in cells}):
        here = [c for c in cells if c.round == number]
        if len(here) < seeds:
            continue  # a seed has not come so far: the mean would be of other seeds
        labels = round(sum(c.labels for c in here) / len(here))
        own = here[0].auroc if len(here) == 1 else mean_of_shares([c.auroc.value for c in here])
        points.append(Point(number, labels, None, None, own))
    stage, finding, strategy = cells[0].stage, cells[0].finding, cells[0].arm.strategy
    return Line("replay", strategy, stage, role, finding, seeds, tuple(points))


def reach(budgets: Sequence[float], values: Sequence[float], target: float) -> float:
    """The first budget at which the line through the points reaches the target.

    Straight over the logarithm of the budget, since a learning curve bends: a line straight over
    the budget would lie below it between the points and say that the control needed more.

    The first budget itself where its value is there already (so few or fewer); infinity where no
    point reaches it. Budgets are above 0. Points whose value is NaN are left out; NaN where none
    is left.
    """
    points = [(b, v) for b, v in zip(budgets, values, strict=True) if not math.isnan(v)]
    if not points:
        return math.nan
    before = points[0]
    for budget, value in points:
        if value >= target:
            if value == before[1]:
                return float(budget)
            share = (target - before[1]) / (value - before[1])
            return float(before[0] * (budget / before[0]) ** share)
        before = budget, value
    return math.inf
