"""Two rounds side by side: settings, a paired test of their students, the cases that changed.

On validation and train alone: the vault chooses nothing and is not looked at for a comparison.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssl_core.config import Config, validated
from ssl_core.drawings import measured, overlap, shows
from ssl_core.errors import ReadloopError, WorkspaceError
from ssl_core.evidence import Difference, compare
from ssl_core.history.truth import label_matrix
from ssl_core.probabilities import (
    Floats,
    calls,
    find_round,
    labeled,
    probabilities,
    stage_model,
)
from ssl_core.progress import Report, silent
from ssl_core.recipes import ALL_RECIPES
from ssl_core.records import METRICS, Model, Round
from ssl_core.student import operating_point
from ssl_core.workspace import Workspace

Seen = Literal["validation", "train"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that differs, by its dotted key; None where one side does not have it."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Changed:
    """One finding of one item that the two models see differently.

    `before` and `after` are probabilities; `called_before` and `called_after` whether each model
    calls the finding present at its own round's operating point; `label` is what readers say
    today, NaN where unknown. Where masks are drawn, `before` and `after` are the Dice of each
    model's mask against what readers drew, and a model calls present what it draws a pixel of.
    """

    item_id: str
    split: Seen
    finding: str
    before: float
    after: float
    called_before: bool
    called_after: bool
    label: float

    @property
    def flipped(self) -> bool:
        """Whether the two models call it differently."""
        return self.called_before != self.called_after


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rounds: `second` less `first`.

    `findings` maps each finding to its paired difference of `metric` (AUROC, or Dice of masks) on
    the validation items labeled today, `macro` is that of their mean; both by patient.
    `train_labels` counts the labeled training items of both. `changed` begins with the largest
    change of probability (or Dice); `flips` counts the pairs of item and finding, of `cases`, that
    the two call differently: all of the splits, or where masks are drawn those that readers drew.
    """

    first: int
    second: int
    models: tuple[str, str]
    train_labels: tuple[int, int]
    settings: tuple[Setting, ...]
    findings: dict[str, Difference]
    macro: Difference
    changed: tuple[Changed, ...]
    flips: int
    cases: int
    metric: str = METRICS["auroc"]


def compare_rounds(
    ws: Workspace,
    first: int,
    second: int,
    *,
    stage: str | None = None,
    splits: Sequence[Seen] = ("validation",),
    most: int = 50,
    report: Report = silent,
) -> Comparison:
    """Compare the students (or the models of another stage) of two rounds.

    Args:
        ws: the workspace.
        first: the earlier round's number, or whichever is to be "before".
        second: the other's.
        stage: None for each round's last model.
        splits: where changed cases are looked for; "train" scores the whole pool with both
            models, which takes as long as pseudo-labeling it twice (the first time).
        most: how many changed cases to give.
        report: told of progress.

    Raises:
        WorkspaceError: a round is unknown, or has no such model.
        ValueError: a split is the vault.
    """
    if not set(splits) <= {"validation", "train"}:
        raise ValueError(f"splits are {list(splits)}: changed cases are of validation and train")
    made = [(number, _measured(ws, number, stage)) for number in (first, second)]
    look = _drawn if ws.ledger.task.kind == "segmentation" else _seen
    seen = [look(ws, made, split, report) for split in splits]
    changed = [c for one in seen for c in one.largest(most, ws.ledger.task.findings)]
    changed.sort(key=lambda c: (-abs(c.after - c.before), c.item_id, c.finding))
    old, new = (ws.ledger.label_counts(number)["train"] for number in (first, second))
    findings, macro = _differences(ws, made, report)
    return Comparison(
        first=first,
        second=second,
        models=(made[0][1].id, made[1][1].id),
        train_labels=(old, new),
        settings=tuple(settings_diff(find_round(ws, first), find_round(ws, second))),
        findings=findings,
        macro=macro,
        changed=tuple(changed[:most]),
        flips=sum(one.flips for one in seen),
        cases=sum(one.before.size for one in seen),
        metric=ws.ledger.task.metric_name,
    )


def _measured(ws: Workspace, number: int, stage: str | None) -> Model:
    model = stage_model(ws, number, stage)
    if not ws.ledger.measurements(number):
        raise WorkspaceError(
            f"Round {number} of {ws.root} was not measured: choose another to compare with."
        )
    return model


def _differences(
    ws: Workspace, made: Sequence[tuple[int, Model]], report: Report
) -> tuple[dict[str, Difference], Difference]:
    """Second less first, for each finding and the macro."""
    items, findings = labeled(ws, "validation"), ws.ledger.task.findings
    if not items.ids:
        nowhere = Difference(math.nan, math.nan, math.nan, math.nan, 0)
        return dict.fromkeys(findings, nowhere), nowhere
    before, after = (measured(ws, *one, items, report) for one in made)
    found = compare(after, before)
    return dict(zip(findings, found.findings, strict=True)), found.macro


def settings_diff(first: Round, second: Round) -> list[Setting]:
    """What two rounds were opened with differently, by dotted key; their defaults filled in."""
    old, new = (flat(settings_of(one)) for one in (first, second))
    return [
        Setting(key, old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def settings_of(round_: Round) -> dict[str, Any]:
    """The configuration of a round with every default; as stored, where it cannot be read today.

    `round` holds what it was opened with, which may not be what the configuration says.
    """
    data: dict[str, Any] = json.loads(round_.config)
    try:
        filled = validated(Config, data, f"round {round_.number}").model_dump()
        recipe = dict(filled["recipe"])
        parameters = ALL_RECIPES[recipe.pop("name")][0]
        filled["recipe"] = {
            "name": data["recipe"]["name"],
            **validated(parameters, recipe, "recipe").model_dump(),
        }
    except (ReadloopError, KeyError):
        filled = data
    opened = {"query_size": round_.query_size, "strategy": round_.strategy, "seed": round_.seed}
    return {**filled, "round": opened}


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted keys: {"a": {"b": 1}} is {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What two models say of one split: probabilities (or Dice) and calls, each `(N, C)`."""

    split: Seen
    ids: Sequence[str]
    labels: Floats
    before: Floats
    after: Floats
    called: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]

    @property
    def flips(self) -> int:
        return int((self.called[0] != self.called[1]).sum())

    def largest(self, most: int, findings: Sequence[str]) -> list[Changed]:
        """The largest changes, of equals the first by row: no more than asked for."""
        change = np.nan_to_num(np.abs(self.after - self.before))  # masks that nobody drew
        order = np.argsort(-change, axis=None, kind="stable")[:most]
        pairs = [divmod(int(k), len(findings)) for k in order]
        return [
            Changed(
                item_id=self.ids[i],
                split=self.split,
                finding=findings[c],
                before=float(self.before[i, c]),
                after=float(self.after[i, c]),
                called_before=bool(self.called[0][i, c]),
                called_after=bool(self.called[1][i, c]),
                label=float(self.labels[i, c]),
            )
            for i, c in pairs
            if change[i, c] > 0
        ]


def _seen(ws: Workspace, made: Sequence[tuple[int, Model]], split: Seen, report: Report) -> _Seen:
    findings = ws.ledger.task.findings
    ids = [item.id for item in ws.ledger.items(split)]
    labels = label_matrix(ids, ws.ledger.labels(splits=[split]), findings)
    before, after = (probabilities(ws, *one, ids, report) for one in made)
    first, second = (
        calls(ws, found, operating_point(ws, number, model.stage))
        for found, (number, model) in zip((before, after), made, strict=True)
    )
    return _Seen(split, ids, labels, before, after, (first, second))


def _drawn(ws: Workspace, made: Sequence[tuple[int, Model]], split: Seen, report: Report) -> _Seen:
    """Of the items that readers drew: each model's Dice, and whether it draws anything."""
    items = labeled(ws, split)
    before, after = (overlap(ws, *one, items, report) for one in made)
    first, second = (shows(ws, *one, items.ids) for one in made)
    return _Seen(split, items.ids, items.labels, before, after, (first, second))
