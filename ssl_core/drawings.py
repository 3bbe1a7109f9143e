"""What a model of the ledger draws on items: computed once, and kept in a file as packed bits.

A file a model beside those of `probabilities`, one row for each row of the pixel store: the bits of
its masks and a checksum of them, which no row has that was never written. So nothing is rewritten,
a place that nobody wrote costs no disk where files may have holes, and who is killed in the middle
of a row has written none. The files may be deleted at any time.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ssl_core import metrics
from ssl_core.evidence import PerFinding
from ssl_core.masks.overlap import Bools, as_truth, average, dice
from ssl_core.masks.predict import Maps, predict_masks
from ssl_core.masks.truth import mask_truth
from ssl_core.probabilities import FOLDER, Floats, find_round, probabilities
from ssl_core.progress import Report, silent
from ssl_core.recipes import Plan, plan
from ssl_core.records import Model
from ssl_core.training.distributed import is_main
from ssl_core.turn import Turn, replay
from ssl_core.workspace import Part, Workspace

AT_ONCE = 256  # items whose masks are unpacked together
CUT = 0.5  # a map's pixel from here on is drawn
_CHECK = 4  # bytes

Rows = npt.NDArray[np.int64]
Packed = dict[int, npt.NDArray[np.uint8]]  # by row of the pixel store


def drawn_masks(maps: npt.NDArray[np.floating]) -> Bools:
    """Maps in [0, 1] of any shape as masks, cut as measuring cuts them."""
    return np.asarray(maps >= CUT)


def drawings(
    ws: Workspace, number: int, model: Model, item_ids: Sequence[str], report: Report = silent
) -> Bools:
    """Masks `(N, C, S, S)` that a model of round `number` draws on items, at the working size.

    Under the test-time augmentation of that round, on the device of today's configuration. What a
    model draws on vault items needs no vault label; nothing here reads one.

    Raises:
        WorkspaceError: the model's file is missing, the round is unknown, or an item has no pixels.
    """
    rows = ws.rows(item_ids)
    return _unpacked(ws, _at(ws, number, model, rows, report), rows)


def shows(
    ws: Workspace, number: int, model: Model, item_ids: Sequence[str], report: Report = silent
) -> Bools:
    """Whether the model draws any pixel of a finding on an item, `(N, C)`; as `drawings`."""
    rows, (findings, _) = ws.rows(item_ids), _shape(ws)
    kept = _at(ws, number, model, rows, report)
    packed = np.array([kept[row] for row in rows.tolist()], np.uint8)
    each = _bytes(ws) // findings
    return np.asarray(packed.reshape(len(rows), findings, each).any(axis=2))


def put_by(turn: Turn, model: Model, rows: Rows, maps: npt.NDArray[np.floating]) -> None:
    """Keep what a stage drew anyway: maps `(N, C, S, S)` of rows `(N,)` of the pixel store."""
    if is_main():
        packed = _packed(drawn_masks(maps))
        with suppress(OSError):
            _keep(turn.workspace, _path(turn.workspace, model, turn.plan), _by_row(rows, packed))


def overlap(
    ws: Workspace, number: int, model: Model, items: Part, report: Report = silent
) -> Floats:
    """The Dice `(N, C)` of a model's masks against what readers drew, as it holds today.

    `items` are of train or validation; NaN where readers say nothing, or no pixel is decided.
    """
    findings = ws.ledger.task.findings
    truth = mask_truth(items.ids, ws.ledger.labels(), findings, ws.masks)
    found = np.full((len(items.ids), len(findings)), np.nan)
    rows = ws.rows(items.ids)
    kept = _at(ws, number, model, rows, report)
    for start in range(0, len(rows), AT_ONCE):
        places = np.arange(start, min(start + AT_ONCE, len(rows)))
        inside, sure, known = as_truth(truth.at(places), truth.present[places])
        masks = _unpacked(ws, kept, rows[places])
        found[places] = dice(masks & sure, inside, known)
    return found


def measured(
    ws: Workspace, number: int, model: Model, items: Part, report: Report = silent
) -> PerFinding:
    """The task's metric of a model on items of train or validation, by patient.

    AUROC of its probabilities, or the mean Dice of its masks, against what readers say today; of
    findings that one of the items shows.

    Raises:
        WorkspaceError: as `drawings`.
    """
    groups = np.array(items.groups)
    if ws.ledger.task.kind == "segmentation":
        found = overlap(ws, number, model, items, report)
        return average(np.where((items.labels == 1).any(axis=0), found, np.nan), groups)
    scores = probabilities(ws, number, model, items.ids, report)
    return metrics.auroc(scores, items.labels, groups)


def _at(ws: Workspace, number: int, model: Model, rows: Rows, report: Report) -> Packed:
    """The packed masks of rows of the pixel store: what is not in the file is drawn and kept."""
    path = _path(ws, model, plan(json.loads(find_round(ws, number).config)["recipe"]))
    kept = _kept(ws, path, rows)
    missing = np.array([row for row in dict.fromkeys(rows.tolist()) if row not in kept], np.int64)
    if missing.size:
        new = _drawn(ws, number, model, missing, report)
        with suppress(OSError):  # a disk that is full costs the next page its time
            _keep(ws, path, new)
        kept |= new
    return kept


def _unpacked(ws: Workspace, kept: Packed, rows: Rows) -> Bools:
    findings, size = _shape(ws)
    packed = np.array([kept[row] for row in rows.tolist()], np.uint8)
    packed = packed.reshape(len(rows), findings, _bytes(ws) // findings)
    flat = np.unpackbits(packed, axis=2, count=size * size)
    return np.asarray(flat.reshape(len(rows), findings, size, size).view(np.bool_))


def _drawn(ws: Workspace, number: int, model: Model, rows: Rows, report: Report) -> Packed:
    turn = replace(replay(ws, find_round(ws, number), report), device=ws.device)

    def keep(_: npt.NDArray[np.intp], made: Maps) -> dict[str, npt.NDArray[np.uint8]]:
        return {"packed": _packed(drawn_masks(made.maps))}

    found = predict_masks(
        ws.load_segmenter(model),
        ws.images.array,
        rows,
        keep,
        device=turn.device,
        tta=turn.plan.tta,
        report=report,
        stage=f"round {number} {model.stage}",
    )
    return _by_row(rows, found["packed"])


def _packed(masks: Bools) -> npt.NDArray[np.uint8]:
    """`(N, C·bytes)`: each mask begins with a byte of its own."""
    items, findings, height, width = masks.shape  # there may be no item
    packed = np.packbits(masks.reshape(items, findings, height * width), axis=2)
    return packed.reshape(items, findings * packed.shape[2])


def _by_row(rows: Rows, packed: npt.NDArray[np.uint8]) -> Packed:
    return dict(zip(rows.tolist(), packed, strict=True))


def _shape(ws: Workspace) -> tuple[int, int]:
    return len(ws.ledger.task.findings), ws.images.size


def _bytes(ws: Workspace) -> int:
    """Of a row, without its checksum."""
    findings, size = _shape(ws)
    return findings * math.ceil(size * size / 8)


def _path(ws: Workspace, model: Model, how: Plan) -> Path:
    return ws.root / FOLDER / f"{model.id}-{how.tta}-{ws.images.size}.masks"


def _kept(ws: Workspace, path: Path, rows: Rows) -> Packed:
    """What the file holds of these rows; a damaged one is as none."""
    found: Packed = {}
    length = _bytes(ws)
    try:
        with path.open("rb") as file:
            for row in rows.tolist():
                file.seek(row * (length + _CHECK))
                data = file.read(length + _CHECK)
                if len(data) == length + _CHECK and _checksum(data[:length]) == data[length:]:
                    found[row] = np.frombuffer(data[:length], np.uint8)
    except OSError:
        return {}
    return found


def _keep(ws: Workspace, path: Path, rows: Packed) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as file:
        for row, packed in sorted(rows.items()):
            data = packed.tobytes()
            file.seek(row * (_bytes(ws) + _CHECK))
            file.write(data + _checksum(data))


def _opened(path: Path) -> BinaryIO:
    """To write anywhere in it; two who write a row write the same."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECK, "little")
