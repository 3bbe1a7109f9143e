"""A workspace of tiny pictures that a tiny network learns in seconds: for the loop's tests."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import numpy as np

from connectors.archive import ArchiveRoom
from connectors.memory import MemorySource
from ssl_core.config import Config, ledger_url, save_config, validated
from ssl_core.history.ledger import Ledger
from ssl_core.images import ImageStore
from ssl_core.masks.files import keep
from ssl_core.records import Answer, Item, Task
from ssl_core.workspace import CONFIG_FILE, IMAGES_FOLDER, MASKS_FOLDER, Workspace, open_workspace

SIZE = 16
_SCHEDULE = {"epochs": 2, "epoch_steps": 3, "batch_size": 8, "learning_rate": 3e-3}
RECIPE = {
    "name": "teacher_student",
    "teacher": _SCHEDULE,
    "intermediate": _SCHEDULE,
    "student": _SCHEDULE,
    "tta": "flip",
    "augmentation": {"rotation": 5.0, "translation": 0.02, "perspective": 0.0},
}
TASKS = {
    "binary": Task("binary", ("Spot",)),
    "multi_label": Task("multi_label", ("Spot", "Bar", "Rare")),
    "multi_class": Task("multi_class", ("plain", "spot", "bar")),
    "segmentation": Task("segmentation", ("Spot", "Bar")),
}


def picture(rng: np.random.Generator, spot: bool, bar: bool) -> np.ndarray:
    """Noise; a bright blob if `spot`, a bright row if `bar`."""
    return drawn(rng, spot, bar)[0]


def drawn(
    rng: np.random.Generator, spot: bool, bar: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture, and the masks of blob and row."""
    pixels = rng.integers(0, 90, (SIZE, SIZE), dtype=np.uint8)
    masks = np.zeros((2, SIZE, SIZE), bool)
    if spot:
        y, x = rng.integers(2, SIZE - 6, 2)
        masks[0, y : y + 4, x : x + 4] = True
    if bar:
        masks[1, rng.integers(0, SIZE)] = True
    pixels = pixels + masks[0] * np.uint8(120)
    pixels = pixels + masks[1] * np.uint8(100)
    return np.repeat(pixels[:, :, None], 3, axis=2), *masks


def make(root: Path, task: Task = TASKS["binary"], *, items: int = 72, **tables: object) -> Path:
    """Write an archive workspace with two items a patient; return its folder."""
    rng = np.random.default_rng(7)
    images, rows, answers = {}, [], []
    for i in range(items):
        spot, bar = bool(rng.random() < 0.4), bool(rng.random() < 0.3)
        if task.kind == "multi_class" and spot:
            bar = False
        name = f"{i:03d}.png"
        images[name], *masks = drawn(rng, spot, bar)
        split = ("train", "train", "train", "validation", "vault", "vault")[(i // 2) % 6]
        rows.append(Item(f"{i:032x}", f"P{i // 2}", split, name))
        values = {
            "binary": [spot],
            "multi_label": [spot, bar, False],
            "multi_class": [not spot and not bar, spot, bar],
            "segmentation": [spot, bar, False][: len(task.findings)],
        }[task.kind]
        kept = [None] * len(values)
        if task.kind == "segmentation":
            kept[:2] = [keep(root / MASKS_FOLDER, m) if m.any() else None for m in masks]
        answers += [
            Answer(rows[-1].id, f, float(v), mask)
            for f, v, mask in zip(task.findings, values, kept, strict=True)
        ]
    config = validated(
        Config,
        {
            "images": {"folder": str(root), "size": SIZE, "channels": 1},
            "model": {"backbone": "small_cnn"},
            "compute": {"device": "cpu", "checkpoint_seconds": 0.0},
            "selection": {"query_size": 8},
            "recipe": RECIPE,
            **tables,
        },
        "toy",
    )
    root.mkdir(parents=True, exist_ok=task.kind == "segmentation")
    source = MemorySource(images)
    pairs = [(item.id, item.path) for item in rows]
    ImageStore.build(root / IMAGES_FOLDER, pairs, source, size=SIZE, fit="pad", channels=1)
    with Ledger.create(ledger_url(config, root), task) as ledger:
        ledger.import_items(rows, answers=answers)
    save_config(config, root / CONFIG_FILE)
    return root


def opened(root: Path) -> tuple[Workspace, ArchiveRoom]:
    """The workspace, and the room of its simulated reader."""
    workspace = open_workspace(root)
    return workspace, ArchiveRoom(workspace.ledger.answers)


def copied(source: Path, target: Path) -> Path:
    """A workspace with the same past, to go on from."""
    subprocess.run(["cp", "-r", source, target], check=True)
    return target


def history(root: Path) -> dict[str, list[tuple]]:
    """Everything in the ledger but when it happened and how long it took."""
    connection = sqlite3.connect(root / "ledger.db")
    tables = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    told = {}
    for table in sorted(tables):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        kept = [f'"{c}"' for c in columns if c not in ("at", "seconds")]
        told[table] = sorted(
            connection.execute(f"SELECT {', '.join(kept)} FROM {table}").fetchall(), key=repr
        )
    connection.close()
    return told
