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
import numpy.typing as npt
from rich.markup import escape
from rich.table import Table

from app import show
from app.status import queue
from connectors.folder import FolderSource
from ssl_core.claims.promotion import find_in_use, in_use
from ssl_core.drawings import drawn_masks
from ssl_core.errors import ImageError, WorkspaceError
from ssl_core.images import fit_image
from ssl_core.masks.files import keep, load
from ssl_core.masks.networks import Segmenter
from ssl_core.masks.predict import predict_masks
from ssl_core.recipes import plan
from ssl_core.records import Measurement, Model, Selection
from ssl_core.student import operating_point, present
from ssl_core.training.predict import Device, choose_device, predict
from ssl_core.workspace import MASKS_FOLDER, Workspace

LABEL_COLUMNS = ("item_id", "path", "patient", "split", "finding", "value", "reader", "source")
QUEUE_COLUMNS = ("item_id", "path", "patient", "round", "rank", "kind", "probability", "reason")


def predict_files(ws: Workspace, paths: Sequence[Path]) -> dict[str, Any]:
    """Probabilities of each finding for image files, and what they mean at the threshold."""
    number, model = in_use(ws)
    images, task = ws.config.images, ws.ledger.task
    pixels = np.stack(
        [fit_image(_read(path), images.size, images.fit, images.channels) for path in paths]
    )
    found, holds = _scored(ws, number, model, pixels)
    thresholds = operating_point(ws, number, model.stage)
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
                "present": [f for f, yes in zip(task.findings, said, strict=True) if yes],
            }
            for path, row, said in zip(paths, found, holds, strict=True)
        ],
    }


def _scored(
    ws: Workspace, number: int, model: Model, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], list[list[bool]]]:
    """Probabilities `(N, C)`, and which findings each image holds.

    Where masks are drawn a finding is present if its mask has a pixel; the probability is the
    auxiliary classifier's, or the map's maximum.
    """
    network, exclusive = ws.network(model), ws.ledger.task.exclusive
    tta, device = plan(ws.config.recipe).tta, Device(choose_device("cpu"))
    rows = np.arange(len(pixels))
    if isinstance(network, Segmenter):
        told = predict_masks(
            network,
            pixels,
            rows,
            lambda _, made: {"p": made.classes, "drawn": drawn_masks(made.maps).any((2, 3))},
            device=device,
            tta=tta,
        )
        return told["p"], told["drawn"].tolist()
    found = predict(network, pixels, rows, exclusive=exclusive, device=device, tta=tta)
    limits = operating_point(ws, number, model.stage)
    holds = [present(row, limits, exclusive) for row in found.probabilities.tolist()]
    return found.probabilities, holds


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ImageError(f"{str(path)!r} is not a file: give the path of an image.")
    real = path.resolve()  # a link may lead anywhere: it was named by the caller, not by a manifest
    try:
        return FolderSource(real.parent).read(real.name)
    except ImageError as error:
        raise ImageError(f"{str(path)!r}: {error}") from None


def prediction_table(found: dict[str, Any]) -> Table:
    """One line a finding of each image: with many findings, columns would not fit a terminal."""
    table = Table(title=f"model {found['model'][:12]}, round {found['round']}")
    table.add_column("image", overflow="fold")
    table.add_column("finding", overflow="fold")
    for column in ("probability", "present"):
        table.add_column(column, justify="right")
    for image in found["images"]:
        name = escape(_plain(image["path"]))
        for finding, probability in image["probabilities"].items():
            present = "yes" if finding in image["present"] else ""
            table.add_row(name, escape(finding), show.number(probability), present)
            name = ""
        table.add_section()
    return table


def _plain(text: str) -> str:
    """Text from outside: escape sequences of a terminal are shown, not obeyed."""
    return text if text.isprintable() else repr(text)


def export(ws: Workspace, out: Path) -> list[str]:
    """Write `labels.csv`, `queue.csv` (what readers have yet to answer), and the model in use.

    The model is `model.safetensors` with `model-card.md`. `masks/` holds what the labels say was
    drawn. The vault's labels are not exported: only a measuring round reads them.

    Raises:
        WorkspaceError: the folder exists and is not empty, or the model cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkspaceError(f"{out} is not an empty folder: choose another for the export.")
    found = find_in_use(ws)
    if found:
        ws.network(found[1])  # a damaged one is refused before anything is written
    fresh = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        return _write(ws, found, out)
    except BaseException:
        for half_made in out.iterdir():
            shutil.rmtree(half_made) if half_made.is_dir() else half_made.unlink()
        if fresh:
            out.rmdir()
        raise


def _write(ws: Workspace, found: tuple[int, Model] | None, out: Path) -> list[str]:
    count, open_questions = _export_labels(ws, out / "labels.csv"), queue(ws)
    _export_queue(ws, open_questions, out / "queue.csv")
    lines = [
        f"Wrote {count:,} labels with their provenance to {out / 'labels.csv'}.",
        f"Wrote {len(open_questions):,} items that wait for a reader to {out / 'queue.csv'}.",
    ]
    if found is None:
        return [*lines, "No model was exported: no round has trained one yet."]
    number, model = found
    shutil.copyfile(ws.root / model.path, out / "model.safetensors")
    card = model_card(ws, number, model)
    (out / "model-card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    (out / "model-card.md").write_text(_card_text(card), encoding="utf-8")
    return [
        *lines,
        f"Wrote the model in use, {model.stage} of round {number}, and its card to {out}.",
    ]


def _export_queue(ws: Workspace, asked: Sequence[Selection], path: Path) -> None:
    items = {item.id: item for item in ws.ledger.items("train")}
    number = len(ws.ledger.rounds())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(QUEUE_COLUMNS)
        for s in asked:
            item = items[s.item_id]
            writer.writerow(
                (item.id, item.path, item.group, number, s.rank, s.kind, s.probability, s.reason)
            )


def _export_labels(ws: Workspace, path: Path) -> int:
    items = {item.id: item for item in ws.ledger.items()}
    labels = ws.ledger.labels()
    drawn = ws.ledger.task.kind == "segmentation"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*LABEL_COLUMNS, "round", "seconds", *(("mask",) if drawn else ())))
        for label in labels:
            item = items[label.item_id]
            value = "" if math.isnan(label.value) else int(label.value)
            seconds = "" if label.seconds is None else label.seconds
            mask = f"{MASKS_FOLDER}/{label.mask}.png" if label.mask else ""
            writer.writerow(
                (
                    *(item.id, item.path, item.group, item.split),
                    *(label.finding, value, label.reader, label.source, label.round, seconds),
                    *((mask,) if drawn else ()),
                )
            )
    _export_masks(ws, {label.mask for label in labels if label.mask}, path.with_name(MASKS_FOLDER))
    return len(labels)


def _export_masks(ws: Workspace, digests: set[str], folder: Path) -> None:
    """Copy the masks of the exported labels alone: the folder holds the vault's too."""
    for digest in sorted(digests):
        keep(folder, load(ws.masks_folder, digest))


def model_card(ws: Workspace, number: int, model: Model) -> dict[str, Any]:
    """What a model of a finished round is, learned from and was measured to be; plain JSON."""
    task, config = ws.ledger.task, ws.config
    measured = [m for _, m in ws.ledger.measurements(number) if m.stage == model.stage]
    return {
        "model": model.id,
        "backbone": model.backbone,
        "recipe": plan(config.recipe).name,
        "round": number,
        "stage": model.stage,
        "config_digest": config.digest(),
        "task": task.kind,
        "findings": list(task.findings),
        "input": config.images.model_dump(exclude={"folder"}),
        "labels": ws.ledger.label_counts(number),
        "thresholds": dict(
            zip(task.findings, operating_point(ws, number, model.stage), strict=True)
        ),
        "vault": [_number(m) for m in measured if m.split == "vault"],
        "vault_looks": len(ws.ledger.vault_looks()),
    }


def _number(m: Measurement) -> dict[str, Any]:
    values = {"value": m.value, "low": m.low, "high": m.high}
    finite = {key: None if math.isnan(v) else round(v, 6) for key, v in values.items()}
    return {"finding": m.finding, "name": m.name, **finite, "n": m.n}


def _card_text(card: dict[str, Any]) -> str:
    lines = [
        f"# Model card: {card['recipe']}, {card['stage']} of round {card['round']}",
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
