"""What a model of the ledger says of items: computed once, and kept in a file.

A file a model, one row for each row of the pixel store. The stages of a round put by what they
predict, and what none of them did is computed at the first call, so that a page waits for little.
The files may be deleted at any time.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssl_core.errors import WorkspaceError
from ssl_core.masks.predict import predict_masks
from ssl_core.metrics import decide
from ssl_core.progress import Report, silent
from ssl_core.recipes import Plan, plan
from ssl_core.records import Model, Round, Split
from ssl_core.training.distributed import is_main
from ssl_core.turn import Turn, replay
from ssl_core.workspace import Part, Workspace, part

FOLDER = "probabilities"

Floats = npt.NDArray[np.float64]


def probabilities(
    ws: Workspace, number: int, model: Model, item_ids: Sequence[str], report: Report = silent
) -> Floats:
    """Probabilities `(N, C)` in [0, 1] of items by a model that round `number` made.

    Under the test-time augmentation of that round, on the device of today's configuration.
    Probabilities of vault items need no vault label; nothing here reads one.

    Raises:
        WorkspaceError: the model's file is missing, the round is unknown, or an item has no pixels.
    """
    round_ = find_round(ws, number)
    path = _path(ws, model, plan(json.loads(round_.config)["recipe"]))
    return _through(ws, path, item_ids, lambda rows: _predicted(ws, round_, model, rows, report))


def peaks(
    ws: Workspace, number: int, model: Model, item_ids: Sequence[str], report: Report = silent
) -> Floats:
    """The highest value in [0, 1] of each map that a model draws of items, `(N, C)`.

    A finding is drawn where it is one half or more, which the classifier beside the maps need not
    say. Under test-time augmentation, and raises, as `probabilities`.
    """
    how = plan(json.loads(find_round(ws, number).config)["recipe"])
    path = _path(ws, model, how).with_suffix(".peaks.npy")

    def ask(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        found = predict_masks(
            ws.load_segmenter(model),
            ws.images.array,
            rows,
            lambda _, made: {"peaks": made.maps.max(axis=(2, 3))},
            device=ws.device,
            tta=how.tta,
            report=report,
            stage=f"round {number} {model.stage}",
        )
        return np.asarray(found["peaks"])

    return _through(ws, path, item_ids, ask)


def _through(
    ws: Workspace,
    path: Path,
    item_ids: Sequence[str],
    ask: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
) -> Floats:
    """What a file keeps of items, `(N, C)`; of those that it lacks, what `ask` says, kept too."""
    rows, kept = ws.rows(item_ids), _kept(path, _shape(ws))
    missing = np.unique(rows[np.isnan(kept[rows, 0])])
    if missing.size:
        kept[missing] = ask(missing)
        _keep(path, kept)
    return kept[rows].astype(np.float64)


def put_by(
    turn: Turn, model: Model, rows: npt.NDArray[np.int64], found: npt.NDArray[np.float32]
) -> None:
    """Keep what a stage computed anyway, so that no page computes it again.

    rows: `(N,)` of the pixel store. found: `(N, C)`, under the recipe's own test-time augmentation.
    A disk that is full costs the pages time, not the round its life.
    """
    if is_main():
        path = _path(turn.workspace, model, turn.plan)
        kept = _kept(path, _shape(turn.workspace))
        kept[rows] = found
        with suppress(OSError):
            _keep(path, kept)


def _path(ws: Workspace, model: Model, how: Plan) -> Path:
    return ws.root / FOLDER / f"{model.id}-{how.tta}-{how.stem_blocks}.npy"


def _shape(ws: Workspace) -> tuple[int, int]:
    return len(ws.images), len(ws.ledger.task.findings)


def find_round(ws: Workspace, number: int) -> Round:
    """The round as it was opened. Raises `WorkspaceError` for one that never was."""
    for one in ws.ledger.rounds():
        if one.number == number:
            return one
    raise WorkspaceError(
        f"{ws.root} has no round {number}: `readloop status {ws.root}` lists those it has."
    )


def stage_model(ws: Workspace, number: int, stage: str | None = None) -> Model:
    """The model that a stage of a round made; None: the round's last, its student.

    Raises:
        WorkspaceError: there is no such round, or it made no such model.
    """
    find_round(ws, number)
    made = [m for _, m in ws.ledger.models(number) if stage in (None, m.stage)]
    if not made:
        what = f"no model of stage {stage!r}" if stage else "no model"
        raise WorkspaceError(f"Round {number} of {ws.root} made {what}: choose another round.")
    return made[-1]


def labeled(ws: Workspace, split: Split) -> Part:
    """The usable items of a split that hold a label today; never of the vault.

    Raises:
        ValueError: for the vault, whose labels are read in one place only.
    """
    labels = ws.ledger.labels(splits=[split])
    out = ws.ledger.reading.unusable()
    items = [item for item in ws.ledger.items(split) if item.id not in out]
    found = part(items, labels, ws.ledger.task.findings, ws.images)
    return found.where(found.labeled)


def calls(ws: Workspace, found: Floats, thresholds: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which findings a model calls present, `(N, C)`, at its own operating point."""
    return decide(found, exclusive=ws.ledger.task.exclusive, thresholds=thresholds)


def _predicted(
    ws: Workspace, round_: Round, model: Model, rows: npt.NDArray[np.int64], report: Report
) -> npt.NDArray[np.float32]:
    turn = replace(replay(ws, round_, report), device=ws.device)
    stage = f"round {round_.number} {model.stage}"
    found = turn.predict(ws.network(model), rows, tta=turn.plan.tta, stage=stage)
    return found.probabilities


def _kept(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == shape and found.dtype == np.float32:
            return np.asarray(found)
    except (OSError, ValueError, EOFError):
        pass  # not there yet, or damaged: computed afresh
    return np.full(shape, np.nan, np.float32)


def _keep(path: Path, found: npt.NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    with scratch.open("wb") as file:
        np.save(file, found, allow_pickle=False)
    scratch.replace(path)
