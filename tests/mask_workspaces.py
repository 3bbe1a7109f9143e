"""Workspaces in which masks are drawn: empty, asked once, and after rounds of self-training."""

from __future__ import annotations

from pathlib import Path

from ssl_core.recipes import MASK_RECIPES
from ssl_core.rounds import run_round
from ssl_core.training.schedule import Schedule
from tests import toy

TASK = toy.TASKS["segmentation"]
TABLES = {
    "model": {"backbone": "small_unet"},
    "selection": {
        "query_size": 12,
        "strategy": "foreground_random",
        "cold_start": "random",
        "control": "off",
    },
    "map": {"methods": ["pca"]},
}
NEWEST = 3


def short(name: str, **changes: object) -> dict[str, object]:
    """A recipe's table with every one of its schedules cut short."""
    lengths = {"epochs": 1, "epoch_steps": 8, "batch_size": 8, "learning_rate": 1e-2, **changes}
    fields = MASK_RECIPES[name][0].model_fields
    table = {
        key: {**field.default.model_dump(), **lengths}
        for key, field in fields.items()
        if field.annotation is Schedule
    }
    few = {"backbones": [["", ""], [""]], "positive": 0.5, "negative": 0.2}
    return {"name": name, **table, **(few if "backbones" in fields else {})}


def empty(root: Path, recipe: str = "self_training", **tables: object) -> Path:
    """An archive in which no round has run."""
    return toy.make(root, TASK, recipe=short(recipe), **{**TABLES, **tables})


def asked(root: Path) -> Path:
    """After a cold round: a dozen cases wait to be drawn, and nothing is trained."""
    workspace, room = toy.opened(empty(root))
    run_round(workspace, room)
    workspace.ledger.close()
    return root


def trained(root: Path) -> Path:
    """After `NEWEST` rounds, of which all but the first trained."""
    workspace, room = toy.opened(empty(root))
    for _ in range(NEWEST):
        run_round(workspace, room)
    workspace.ledger.close()
    return root
