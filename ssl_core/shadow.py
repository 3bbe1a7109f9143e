"""The shadow control: the round's own recipe, trained on what chance alone had labeled by then.

A live workspace has no random arm beside it, but every query carries a random slice (design, rule
2), and the labels of all slices together are what asking at random would have bought: fewer labels,
later. So the control at R random labels is held against the rounds whose models knew about R labels
(see `equal_budget`), not against the round that trains it. Its items were drawn from what the
strategy had left, so in a pool that is nearly read through it is no longer a fair sample.

A control costs about as much as the round's own training. One is trained when the random labels
have grown by a quarter since the last: with a slice of 15 % that is nearly every round at first and
seldom later, and its points stand evenly on the logarithm of the budget, along which a learning
curve is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssl_core.errors import TrainingError
from ssl_core.history.ledger import Ledger
from ssl_core.made import Made
from ssl_core.recipes import Plan, Pretrain
from ssl_core.recipes.stages import renamed as with_names
from ssl_core.records import CONTROL, Round
from ssl_core.turn import Turn, can_teach

GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class Control:
    """A measured control: its `labels` (R), and the rounds that it is held against, by weight.

    `against` is empty where no rounds of the strategy span R (see `equal_budget.stand_ins`).
    """

    round: int
    labels: int
    against: dict[int, float]


def shadow_of(turn: Turn) -> Turn | None:
    """The round as its control sees it; None where it is not to be trained.

    It is not: where the settings say so, where every label is a random one already (the round's
    own student is then the control), where the random labels teach nothing, and where they have
    not grown enough since the last control of the same recipe.
    """
    chance, labeled = turn.by_chance, turn.train.labeled
    labels = np.where(chance[:, None], turn.train.labels, np.nan)
    if turn.config.selection.control == "off" or (chance == labeled).all():
        return None
    if not can_teach(labels, turn.workspace.ledger.task):
        return None
    before = controls(turn.workspace.ledger, turn.round)
    if before and chance.sum() < GROWTH * max(control.labels for control in before):
        return None
    return replace(turn, train=replace(turn.train, labels=labels), plan=renamed(turn.plan))


def renamed(recipe: Plan) -> Plan:
    """The same recipe under names of its own, so that nothing it makes mixes with the round's.

    Features that were learned without labels are the same for both, and keep their name.
    """
    shared = {stage.name for stage in recipe.stages if isinstance(stage, Pretrain)}
    own = {stage.name for stage in recipe.stages} - shared

    def name(stage: str) -> str:
        return shadow_name(stage) if stage in own else stage

    stages = [s if isinstance(s, Pretrain) else with_names(s, name) for s in recipe.stages]
    return replace(recipe, stages=tuple(stages))


def shadow_name(stage: str) -> str:
    """What a stage of the recipe is called in the control."""
    return f"{CONTROL} {stage}"


def spared(turn: Turn, work: Callable[[], Made]) -> Made:
    """Do a stage of the control; one that fails to train is on record and takes no round along.

    What follows it in the control is then left out, and the control is not measured.
    """
    if failed := _failure(turn):
        return {"detail": {"failed": failed}}
    try:
        return work()
    except TrainingError as error:
        return {"detail": {"failed": str(error)}}


def _failure(turn: Turn) -> str:
    for stage in turn.workspace.ledger.stages(turn.round.number):
        if stage.name.startswith(f"{CONTROL} "):
            failed: str = json.loads(stage.detail).get("failed", "")
            if failed:
                return failed
    return ""


def controls(ledger: Ledger, like: Round | None = None) -> list[Control]:
    """Every measured control, oldest first.

    With `like`, those before that round that were trained by the same recipe and network.
    """
    measured = {number for number, m in ledger.measurements() if m.stage == CONTROL}
    found = []
    for one in ledger.rounds():
        other = like is not None and (one.number >= like.number or not same_training(one, like))
        if one.number not in measured or other:
            continue
        details = (json.loads(s.detail) for s in ledger.stages(one.number) if s.name == "evaluate")
        told = next(detail["control"] for detail in details)
        found.append(Control(one.number, told["labels"], dict(told["against"])))
    return found


def budgets(turn: Turn) -> dict[int, int]:
    """Training labels by round, of this round and those before it with comparable students."""
    ledger, student = turn.workspace.ledger, turn.plan.fits[-1].name
    measured = {number for number, m in ledger.measurements() if m.stage == student}
    return {
        one.number: ledger.label_counts(one.number)["train"]
        for one in ledger.rounds()
        if one.number == turn.round.number
        or (
            one.number in measured
            and one.number < turn.round.number
            and same_training(one, turn.round)
        )
    }


def same_training(one: Round, other: Round) -> bool:
    """Whether two rounds trained alike: by the same recipe, with the same network."""
    ours, theirs = json.loads(one.config), json.loads(other.config)
    return all(ours.get(table) == theirs.get(table) for table in ("recipe", "model"))
