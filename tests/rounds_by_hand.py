"""Rounds written into a ledger by hand: their models' opinions are given, so nothing trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_core.history.ledger import Ledger
from ssl_core.probabilities import FOLDER
from ssl_core.recipes import plan
from ssl_core.records import Measurement, Model, Pulled, Round, Selection, Stage
from ssl_core.workspace import Workspace
from tests import toy


def made(root: Path, url: str, task: str = "binary", **tables) -> Workspace:
    """A toy workspace whose ledger is at this URL; 72 items of 36 patients, no labels."""
    ws, _ = toy.opened(toy.make(root, toy.TASKS[task], **tables))
    items = ws.ledger.items()
    ws.ledger.close()
    return replace(ws, ledger=Ledger.create(url, toy.TASKS[task], items))


def ids(ws: Workspace, split: str) -> list[str]:
    return [item.id for item in ws.ledger.items(split)]


def model(name: str, stage: str = "student") -> Model:
    return Model(name, stage, "small_cnn", f"models/{name}.safetensors")


def auroc(model: Model, split: str, value: float, low: float = 0.0, high: float = 1.0, **more):
    told = {"finding": "macro", "name": "auroc", "n": 24} | more
    return Measurement(model.id, model.stage, split, value=value, low=low, high=high, **told)


def open_round(ledger: Ledger, number: int, config: str, strategy: str = "margin") -> None:
    ledger.open_round(Round(number, 0, 8, strategy, "teacher_student", config))


def add(ledger: Ledger, number: int, name: str, kind: str = "fit", detail=None, **rows) -> None:
    position = len(ledger.stages(number))
    ledger.add_stage(Stage(number, position, name, kind, json.dumps(detail or {}), 1.0), **rows)


def trained(ws: Workspace, number: int, **students: float) -> None:
    """A finished round with a teacher and a student, both measured: name of each to its AUROC."""
    open_round(ws.ledger, number, ws.config.to_json())
    models = [model(n, s) for n, s in zip(students, ("teacher", "student"), strict=True)]
    for one in models:
        add(ws.ledger, number, one.stage, models=[one])
    numbers = [
        auroc(one, split, students[one.id], students[one.id] - 0.1, students[one.id] + 0.1)
        for one in models
        for split in ("validation", "vault")
    ]
    thresholds = {one.stage: [0.5] * len(ws.ledger.task.findings) for one in models}
    add(ws.ledger, number, "evaluate", detail={"thresholds": thresholds}, measurements=numbers)
    ws.ledger.finish_round(number, "{}")


def says(ws: Workspace, model_id: str, opinions: dict[str, list[float]]) -> None:
    """Let a model have these probabilities of items; it is silent on all others."""
    how = plan(ws.config.recipe)
    table = np.full((len(ws.images), len(ws.ledger.task.findings)), np.nan, np.float32)
    for item_id, row in opinions.items():
        table[ws.images.positions([item_id])[0]] = row
    path = ws.root / FOLDER / f"{model_id}-{how.tta}-{how.stem_blocks}.npy"
    path.parent.mkdir(exist_ok=True)
    np.save(path, table)


def asked(item_id: str, rank: int, kind: str = "strategy") -> Selection:
    return Selection(item_id, rank, kind, "margin", 0.5, 0.5, 0.1, "because")


def take(ledger: Ledger, *reads) -> None:
    ledger.reading.take("room", Pulled(reads))
