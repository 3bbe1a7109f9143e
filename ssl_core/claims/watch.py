"""The verdict on a query strategy against its random control, as rounds go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_core import tell
from ssl_core.claims import order_check
from ssl_core.claims.kept_evidence import Pair, pairs
from ssl_core.claims.savings import area_difference, difference_weights, joint
from ssl_core.claims.sequence import FIRST, Look, so_far
from ssl_core.claims.shadow_looks import shadow_looks
from ssl_core.config import ledger_url, load_config
from ssl_core.evidence import Difference
from ssl_core.history.ledger import Ledger
from ssl_core.records import METRICS, Split
from ssl_core.workspace import CONFIG_FILE, Workspace

State = Literal["better", "worse", "not told", "broken"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be said of a strategy: `sentence` says it, with what it rests on.

    `rounds` counts the rounds (of a replay, the budgets) that were compared. `difference` is ours
    less the control's in AUROC, its 95 % interval valid over all looks; None where too little is
    known. "broken" is said of the selection itself, whatever AUROC says.
    """

    state: State
    sentence: str
    rounds: int
    difference: Difference | None


def verdict(
    ws: Workspace, split: Split = "vault", *, ask_models: bool = False, strategy: str = ""
) -> Verdict:
    """The verdict on the workspace's strategy, or on another one that was replayed in it.

    First its selections are checked (see `order_check`; `ask_models` is passed on). Then come the
    rounds' shadow controls (measurements of stage "control", named "difference", at equal
    budgets), looked at after every round; where there are none, on the vault, the replay beside
    random, which is looked at once, when it is finished.

    Ask for split "validation" whatever acts on the verdict: what the vault chose it could no
    longer measure. The vault is for telling. No label is read here.
    """
    name, metric = strategy or ws.config.selection.strategy, ws.ledger.task.metric_name
    wrong = order_check.broken(ws, ask_models=ask_models)
    if wrong is not None:
        return said_broken(name, *wrong)
    looks = shadow_looks(ws.ledger, ws.config.selection.strategy, split)
    if looks or split != "vault":
        return judge(looks, name, metric)
    found = pairs(ws)
    chosen = [p for p in found if p.ours.strategy == name] or found[:1]
    return of_replay(ws, chosen[0], ask_models=ask_models) if chosen else judge([], name, metric)


def judge(
    looks: Sequence[Look], strategy: str = "The strategy", metric: str = METRICS["auroc"]
) -> Verdict:
    """The verdict on a sequence of paired differences, one a round, oldest first (pure).

    Valid however often one looks and whenever one stops: a strategy that is no better than random
    is called better in 5 % of histories at the most, over all their looks (see `sequence`).
    `metric` is what people call what was measured.
    """
    if not looks:
        told = (
            f"{strategy} is not told from random: no control of equal budget has been measured yet."
        )
        return Verdict("not told", told, 0, None)
    found = so_far(looks)
    if found is None:
        few = f"{strategy} is not told from random: {_count(len(looks))} compared, and "
        return Verdict("not told", f"{few}{FIRST} are needed to say anything.", len(looks), None)
    return _settled(found, strategy, f"after {_count(len(looks))}", len(looks), metric)


def of_replay(ws: Workspace, pair: Pair, *, ask_models: bool = False) -> Verdict:
    """The verdict on a replayed strategy: the paired difference of the areas, at one look."""
    name, budgets = pair.ours.strategy, len(pair.ours.budgets)
    metric = ws.ledger.task.metric_name
    for one in arms(ws, pair.arms):
        wrong = order_check.broken(one, ask_models=ask_models)
        if wrong is not None:
            return said_broken(name, *wrong)
    if len(pair.seeds) < 2:
        return judge(_looks(pair), name, metric)
    over = f"over {len(pair.seeds)} seeds and {budgets} budgets"
    return _settled(area_difference(pair.ours, pair.control), name, over, budgets, metric)


def said_broken(strategy: str, number: int, wrong: str) -> Verdict:
    """The verdict where the selection itself is wrong, seen in round `number`."""
    told = f"The selection of {strategy} is broken, as round {number} shows: {wrong}."
    return Verdict("broken", told, number, None)


def arms(ws: Workspace, roots: Sequence[Path]) -> Iterator[Workspace]:
    """The workspaces of arms, each closed when the next is asked for."""
    for root in roots:
        config = load_config(root / CONFIG_FILE)
        with Ledger.open(ledger_url(config, root)) as ledger:
            yield Workspace(root, config, ledger, ws.images)


def _looks(pair: Pair) -> list[Look]:
    """One run of each side: the budgets as looks, with their errors over test cases alone."""
    both, weights = joint(pair.ours, pair.control), difference_weights(pair.ours, pair.control)
    errors = np.sqrt(np.einsum("mk,kl,ml->m", weights, both.cases, weights))
    budgets = pair.ours.budgets.tolist()
    numbers = zip(budgets, weights @ both.mean, errors, strict=True)
    return [Look(k + 2, b, float(d), float(e)) for k, (b, d, e) in enumerate(numbers)]


def _settled(found: Difference, strategy: str, after: str, rounds: int, metric: str) -> Verdict:
    numbers = f"{metric} {tell.difference(found)} against random labels"
    if found.low > 0:
        return Verdict(
            "better", f"{strategy} is better than random {after}: {numbers}.", rounds, found
        )
    if found.high < 0:
        return Verdict(
            "worse", f"{strategy} is worse than random {after}: {numbers}.", rounds, found
        )
    told = f"{strategy} is not told from random {after}: {numbers}."
    return Verdict("not told", told, rounds, found)


def _count(looks: int) -> str:
    return "1 round" if looks == 1 else f"{looks} rounds"
