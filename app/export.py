"""`readloop predict` and `readloop export`: what leaves a workspace."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from app import show
from connectors.folder import FolderSource
from ssl_core.errors import WorkspaceError
from ssl_core.images import fit_image
from ssl_core.predict import Device, choose_device, predict
from ssl_core.recipes import plan
from ssl_core.records import Measurement, Model
from ssl_core.workspace import Workspace

LABEL_COLUMNS = ("item_id", "path", "patient", "split", "finding", "value", "reader", "source")


def newest_student(ws: Workspace) -> tuple[int, Model]:
    """The last model of the newest measured round, and that round's number.

    Raises:
        WorkspaceError: no round has trained a model yet.
    """
    student = plan(ws.config.recipe).fits[-1].name
    made = [(number, model) for number, model in ws.ledger.models() if model.stage == student]
    finished = [(number, model) for number, model in made if ws.ledger.finished(number)]
    if not finished:
        raise WorkspaceError(
            f"{ws.root} has no trained model yet: run `readloop round {ws.root}` until it has."
        )
    return finished[-1]


def predict_files(ws: Workspace, paths: Sequence[Path]) -> dict[str, Any]:
    """Probabilities of each finding for image files, and what they mean at the threshold."""
    number, model = newest_student(ws)
    images, task = ws.config.images, ws.ledger.task
    pixels = np.stack(
        [fit_image(_read(path), images.size, images.fit, images.channels) for path in paths]
    )
    found = predict(
        ws.load(model),
        pixels,
        np.arange(len(paths)),
        exclusive=task.exclusive,
        device=Device(choose_device("cpu")),
        tta=plan(ws.config.recipe).tta,
    ).probabilities
    thresholds = _thresholds(ws, number, model.stage)
    return {
        "model": model.id,
        "round": number,
        "thresholds": dict(zip(task.findings, thresholds, strict=True)),
        "images": [
            {
                "path": str(path),
                "probabilities": {
                    f: round(float(p), 6) for f, p in zip(task.findings, row, strict=True)
                },
                "present": _present(row.tolist(), thresholds, task.findings, task.exclusive),
            }
            for path, row in zip(paths, found, strict=True)
        ],
    }


def _read(path: Path) -> Any:
    return FolderSource(path.absolute().parent).read(path.name)


def _thresholds(ws: Workspace, number: int, stage: str) -> list[float]:
    detail = next(s.detail for s in ws.ledger.stages(number) if s.name == "evaluate")
    chosen: list[float] = json.loads(detail)["thresholds"][stage]
    return chosen


def _present(
    row: Sequence[float], thresholds: Sequence[float], findings: Sequence[str], exclusive: bool
) -> list[str]:
    if exclusive:
        return [findings[int(np.argmax(row))]]
    return [f for f, p, t in zip(findings, row, thresholds, strict=True) if p >= t]


def prediction_table(found: dict[str, Any]) -> Table:
    """One line an image."""
    findings = list(found["thresholds"])
    table = Table(title=f"model {found['model'][:12]}, round {found['round']}")
    table.add_column("image")
    for finding in findings:
        table.add_column(escape(finding), justify="right")
    table.add_column("present at the threshold")
    for image in found["images"]:
        values = [show.number(image["probabilities"][f]) for f in findings]
        present = ", ".join(image["present"]) or "none"
        table.add_row(escape(image["path"]), *values, escape(present))
    return table


def export(ws: Workspace, out: Path) -> list[str]:
    """Write `labels.csv`, and the newest student as `model.safetensors` with `model-card.md`.

    The vault's labels are not exported: only a measuring round reads them.

    Raises:
        WorkspaceError: the folder exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkspaceError(f"{out} is not an empty folder: choose another for the export.")
    out.mkdir(parents=True, exist_ok=True)
    count = _export_labels(ws, out / "labels.csv")
    lines = [f"Wrote {count:,} labels with their provenance to {out / 'labels.csv'}."]
    try:
        number, model = newest_student(ws)
    except WorkspaceError:
        return [*lines, "No model was exported: no round has trained one yet."]
    shutil.copyfile(ws.root / model.path, out / "model.safetensors")
    card = _card(ws, number, model)
    (out / "model-card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    (out / "model-card.md").write_text(_card_text(card), encoding="utf-8")
    return [*lines, f"Wrote the student of round {number} and its card to {out}."]


def _export_labels(ws: Workspace, path: Path) -> int:
    items = {item.id: item for item in ws.ledger.items()}
    labels = ws.ledger.labels()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*LABEL_COLUMNS, "round", "seconds"))
        for label in labels:
            item = items[label.item_id]
            value = "" if math.isnan(label.value) else int(label.value)
            seconds = "" if label.seconds is None else label.seconds
            writer.writerow(
                (
                    *(item.id, item.path, item.group, item.split),
                    *(label.finding, value, label.reader, label.source, label.round, seconds),
                )
            )
    return len(labels)


def _card(ws: Workspace, number: int, model: Model) -> dict[str, Any]:
    task, config = ws.ledger.task, ws.config
    measured = [m for _, m in ws.ledger.measurements(number) if m.stage == model.stage]
    return {
        "model": model.id,
        "backbone": model.backbone,
        "recipe": plan(config.recipe).name,
        "round": number,
        "config_digest": config.digest(),
        "task": task.kind,
        "findings": list(task.findings),
        "input": config.images.model_dump(exclude={"folder"}),
        "labels": ws.ledger.label_counts(number),
        "thresholds": dict(zip(task.findings, _thresholds(ws, number, model.stage), strict=True)),
        "vault": [_number(m) for m in measured if m.split == "vault"],
        "vault_looks": len(ws.ledger.vault_looks()),
    }


def _number(m: Measurement) -> dict[str, Any]:
    values = {"value": m.value, "low": m.low, "high": m.high}
    finite = {key: None if math.isnan(v) else round(v, 6) for key, v in values.items()}
    return {"finding": m.finding, "name": m.name, **finite, "n": m.n}


def _card_text(card: dict[str, Any]) -> str:
    lines = [
        f"# Model card: {card['recipe']}, round {card['round']}",
        "",
        f"- model `{card['model']}` ({card['backbone']}), configuration `{card['config_digest']}`",
        f"- task: {card['task']}; findings: {', '.join(card['findings'])}",
        f"- input: {json.dumps(card['input'])}",
        f"- labels: {json.dumps(card['labels'])}; vault looks so far: {card['vault_looks']}",
        f"- thresholds (from validation): {json.dumps(card['thresholds'])}",
        "",
        "Measured on the vault, with 95 % intervals by patient. Not a medical device.",
        "",
        "| finding | measure | value | 95 % | n |",
        "|---|---|---|---|---|",
    ]
    for m in card["vault"]:
        value, low, high = (
            "–" if m[k] is None else f"{m[k]:.3f}" for k in ("value", "low", "high")
        )
        lines.append(f"| {m['finding']} | {m['name']} | {value} | {low} to {high} | {m['n']} |")
    return "\n".join(lines) + "\n"
