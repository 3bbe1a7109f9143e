"""Where readers contradict a confident model: an error of theirs, or of the model.

Of train and validation alone: vault labels are read in one place only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_core.probabilities import labeled, probabilities, stage_model
from ssl_core.progress import Report, silent
from ssl_core.records import Label
from ssl_core.workspace import Workspace

SEEN: tuple[Literal["train"], Literal["validation"]] = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A finding of an item where what counts as true contradicts a confident model.

    `confidence` in [0.5, 1] is the model's, in the opposite of `label`; `probability` is of the
    finding. `readers` says who answered what. `trained_on`: the model had learned from a label of
    this item, and is of another opinion all the same.
    """

    item_id: str
    split: Literal["train", "validation"]
    finding: str
    label: float
    probability: float
    confidence: float
    readers: tuple[tuple[str, float], ...]
    trained_on: bool


def contradictions(
    ws: Workspace,
    number: int,
    stage: str | None = None,
    *,
    least: float = 0.8,
    most: int = 50,
    report: Report = silent,
) -> list[Contradiction]:
    """Labeled items of train and validation that contradict the model, most confident first.

    Args:
        ws: the workspace.
        number: the round whose model is asked.
        stage: the stage that made it; None: the student.
        least: the confidence in [0.5, 1] from which a model counts as confident.
        most: how many to give.
        report: told of progress.

    Raises:
        WorkspaceError: there is no such model.
        ValueError: `least` is outside [0.5, 1].
    """
    if not 0.5 <= least <= 1:
        raise ValueError(f"least is {least}: give a confidence from 0.5 to 1")
    model, task = stage_model(ws, number, stage), ws.ledger.task
    said = _answers(ws.ledger.labels())
    before = ws.ledger.labels(number, splits=["train"])
    learned = {label.item_id for label in before if label.value == label.value}
    found = []
    for split in SEEN:
        items = labeled(ws, split)
        scores = probabilities(ws, number, model, items.ids, report)
        doubt = np.where(items.labels == 1, 1 - scores, scores)
        wrong = ~np.isnan(items.labels) & (doubt >= least)
        if task.exclusive:  # once an item: the class that the model sees and readers do not
            wrong &= items.labels == 0
        found += [
            Contradiction(
                item_id=items.ids[i],
                split=split,
                finding=task.findings[c],
                label=float(items.labels[i, c]),
                probability=float(scores[i, c]),
                confidence=float(doubt[i, c]),
                readers=tuple(said.get((items.ids[i], task.findings[c]), ())),
                trained_on=items.ids[i] in learned,
            )
            for i, c in np.argwhere(wrong).tolist()
        ]
    found.sort(key=lambda one: (-one.confidence, one.item_id, one.finding))
    return found[:most]


def _answers(labels: Collection[Label]) -> dict[tuple[str, str], list[tuple[str, float]]]:
    said: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for label in labels:
        said.setdefault((label.item_id, label.finding), []).append((label.reader, label.value))
    return said
