"""The map of a round: what its model makes of every item, and where that lies on a plane.

It is made in the round's job once its stages are done, from what they predicted already. It is no
stage: the ledger holds what came of it in the row that ends the round, and a map that fails takes
no round along. No label is read here; vault items, and those whose image is unusable, are points
like all others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core import strategies
from ssl_core.errors import Cancelled, MapError
from ssl_core.pictures.embedding import FEW, embed, embed_apart, method_for
from ssl_core.pictures.map_files import (
    DAMAGED,
    FOLDER,
    INDEX,
    RoundMap,
    digest_of,
    load_map,
    read_index,
    replace,
    save,
    write_index,
)
from ssl_core.progress import Progress, Report, silent
from ssl_core.records import SPLITS
from ssl_core.training.distributed import agree, barrier, is_main
from ssl_core.training.predict import Prediction, Tta
from ssl_core.turn import Turn, replay
from ssl_core.workspace import Workspace

PIECES = "map-pieces"
LARGEST = float(np.finfo(np.float16).max)


def make_map(
    workspace: Workspace,
    number: int,
    methods: Sequence[str] | None = None,
    report: Report = silent,
) -> RoundMap:
    """Make the map of a round that was opened before, or add methods to the one it has.

    Features that are there are used again; else the round's model is run over every item. For
    "t-SNE on request" and for rounds without a map; it belongs into a job, not into a page.

    Args:
        workspace: an open workspace.
        number: the round.
        methods: as `[map] methods`; None takes those of the round's configuration.
        report: told of progress; it may raise `Cancelled`, what was finished is kept.

    Raises:
        MapError: there is no such round, or it has no model to look with.
    """
    opened = {round_.number: round_ for round_ in workspace.ledger.rounds()}
    if number not in opened:
        raise MapError(f"Round {number} was never opened: choose one of those that were.")
    turn = replay(workspace, opened[number], report)
    if turn.trains and turn.plan.fits[-1].name not in turn.models():
        raise MapError(f"Round {number} ended without a model: choose another round.")
    _make(turn, methods or turn.config.map.methods or ("auto",))
    barrier()
    return load_map(workspace, number)


def map_round(turn: Turn) -> dict[str, Any]:
    """Make the map of a round whose stages are done; what came of it, for the ledger.

    Whatever fails is told and does not fail the round; only `Cancelled` goes on to the caller.
    """
    if not _wanted(turn):
        return {}
    turn.report(Progress("map", 0, 0))
    try:
        told = _make(turn, turn.config.map.methods)
    except Cancelled:
        raise
    except Exception as error:  # a map is a picture of the round, not a part of its result
        told = {"failed": {"map": f"{type(error).__name__}: {error}"[:300]}}
    if failed := told.get("failed"):
        turn.report(Progress("map", 1, 0, f"failed: {'; '.join(failed.values())}"))
    if is_main():
        forget_pieces(turn.folder)
    return {"map": told}


def keep_prediction(
    turn: Turn, piece: str, rows: npt.NDArray[np.int64], prediction: Prediction
) -> None:
    """Put by what a stage predicted with the round's model, so that the map need not ask again.

    `rows` `(n,)` of the pixel store. A stage that is run again overwrites its piece. What cannot
    be written is predicted again.
    """
    if not (_wanted(turn) and is_main()):
        return
    path = turn.folder / PIECES / f"{piece}.npz"
    arrays: dict[str, Any] = {
        "model": np.array(_model_id(turn)),
        "rows": rows,
        "features": _half(prediction.features),
        "probabilities": prediction.probabilities,
    }
    with suppress(OSError):
        replace(path, lambda file: np.savez(file, **arrays))


def forget_pieces(round_folder: Path) -> None:
    """Remove what stages put by for the map of a round."""
    shutil.rmtree(round_folder / PIECES, ignore_errors=True)


def _wanted(turn: Turn) -> bool:
    """Not in a round that looked at no image: a map would cost more than the round itself."""
    looked = turn.trains or "features" in strategies.ALL_NEEDS[turn.round.strategy]
    return bool(turn.config.map.methods) and looked


def _make(turn: Turn, methods: Iterable[str]) -> dict[str, Any]:
    """Score what is not scored, embed what is not embedded; plain data of what there is now."""
    folder = turn.folder / FOLDER
    index = read_index(folder)
    fresh = index is None or (index["model_id"], index["seed"]) != _origin(turn)
    if agree(fresh):
        index = _score(turn, folder)
    if index is None or not is_main():
        return {}
    for method in dict.fromkeys(methods):
        _add(turn, folder, index, method_for(index["items"]) if method == "auto" else method)
    done = {name: digest_of(folder / f"{name}.npy") for name in index["embeddings"]}
    told = {"items": index["items"], "features": index["features"], "embeddings": done}
    return {**told, "failed": index["failed"]} if index["failed"] else told


def _add(turn: Turn, folder: Path, index: dict[str, Any], method: Any) -> None:
    if method in index["embeddings"]:
        return
    features, seed = folder / "features.npy", turn.seed("map")
    try:
        if method == "pca" or index["items"] < FEW:
            made = embed(np.load(features, mmap_mode="r"), method, seed=seed)
        else:
            tell = partial(turn.report, Progress("map", 1, 0, method))
            made = embed_apart(features, method, seed=seed, waiting=tell)
    except MapError as error:
        index["failed"][method] = str(error)
    else:
        index["failed"].pop(method, None)
        save(folder / f"{made.method}.npy", made.coordinates)
        told = {"parameters": made.parameters, "seed": made.seed, "note": made.note}
        index["embeddings"][made.method] = told
    write_index(folder, index)


def _score(turn: Turn, folder: Path) -> dict[str, Any] | None:
    """Write every array but the coordinates; None in the processes that do not write."""
    items, images = turn.workspace.ledger.items(), turn.workspace.images
    rows = images.positions([item.id for item in items])
    pieces = _pieces(turn) if is_main() else []
    known = np.concatenate([np.empty(0, np.int64), *(piece[0] for piece in pieces)])
    missing = agree(np.setdiff1d(rows, known))
    pieces.append((missing, *_predict(turn, missing)))
    if not is_main():
        return None
    place = np.full(len(images), -1)
    place[rows] = np.arange(len(rows))
    features = np.empty((len(rows), pieces[-1][1].shape[1]), np.float16)
    probabilities = np.empty((len(rows), len(turn.findings)), np.float32)
    for at, theirs, scores in pieces:
        features[place[at]], probabilities[place[at]] = theirs, scores
    if not turn.trains:
        probabilities[:] = np.nan
    kind = turn.round.strategy if turn.round.strategy in ("entropy", "margin") else "entropy"
    (folder / INDEX).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # with what killed writers left
    save(folder / "ids.npy", np.array([item.id for item in items]))
    save(folder / "splits.npy", np.array([SPLITS.index(i.split) for i in items], np.uint8))
    save(folder / "features.npy", features)
    save(folder / "probabilities.npy", probabilities)
    save(folder / "uncertainty.npy", _uncertainty(probabilities, kind, turn.exclusive))
    model_id, seed = _origin(turn)
    index: dict[str, Any] = {
        "model_id": model_id,
        "seed": seed,
        "items": len(items),
        "tta": _tta(turn),
        "uncertainty_of": kind,
        "features": digest_of(folder / "features.npy"),
        "embeddings": {},
        "failed": {},
    }
    write_index(folder, index)
    return index


def _predict(
    turn: Turn, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    found = turn.predict(turn.student_or_first(), rows, tta=_tta(turn), stage="map")
    return _half(found.features), found.probabilities


_Piece = tuple[npt.NDArray[np.int64], npt.NDArray[np.float16], npt.NDArray[np.float32]]


def _pieces(turn: Turn) -> list[_Piece]:
    """What the stages put by; a damaged piece, or one of another model, is as none."""
    found: list[_Piece] = []
    for path in sorted((turn.folder / PIECES).glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if str(arrays["model"]) == _model_id(turn):
                    found.append((arrays["rows"], arrays["features"], arrays["probabilities"]))
        except DAMAGED:
            continue
    return found


def _uncertainty(
    probabilities: npt.NDArray[np.float32], kind: str, exclusive: bool
) -> npt.NDArray[np.float32]:
    if np.isnan(probabilities).any():
        return np.full(len(probabilities), np.nan, np.float32)
    view = strategies.PoolView(len(probabilities), exclusive, probabilities)
    nothing = np.random.default_rng(0)  # neither strategy draws
    return strategies.STRATEGIES[kind](view, 0, nothing).astype(np.float32)


def _model_id(turn: Turn) -> str:
    return turn.models()[turn.plan.fits[-1].name].id if turn.trains else ""


def _origin(turn: Turn) -> tuple[str, int]:
    """What a map depends on: another ledger's round of the same number has another."""
    return _model_id(turn), turn.seed("map")


def _tta(turn: Turn) -> Tta:
    return turn.plan.tta if turn.trains else "none"  # as `select` predicts


def _half(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    return np.clip(features, -LARGEST, LARGEST).astype(np.float16)
