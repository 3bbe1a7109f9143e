"""The files of a round's map: frozen arrays that pages map to memory.

A round's `map/` folder holds one `.npy` an array and `map.json`, which names what belongs together
and is replaced last, in one step: a reader sees a whole map or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.errors import MapError
from ssl_core.pictures.embedding import Embedding, Method
from ssl_core.records import SPLITS, Split
from ssl_core.training.predict import Tta
from ssl_core.workspace import Workspace

FOLDER, INDEX = "map", "map.json"
ARRAYS = ("ids", "splits", "features", "probabilities", "uncertainty")
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
"""What reading a file of arrays raises when it is not whole."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundMap:
    """N items as the model of a round sees them, in the order of their import; arrays are mapped.

    `model_id` is the round's student, "" where the round trained none: then `features` are those
    of the network that its cold start drew from, and `probabilities` and `uncertainty` are NaN.
    `tta` is the test-time augmentation that everything is the mean of: predict an uploaded image
    with the same. `splits` `(N,)` uint8 index `SPLITS`; `features` `(N, D)` float16;
    `probabilities` `(N, C)` float32 in [0, 1]; `uncertainty` `(N,)` float32 in [0, 1], the score of
    the strategy `uncertainty_of`. `embeddings` hold the coordinates by method, `failed` a sentence
    by method that could not be made. `place` is the row of an item.
    """

    round: int
    model_id: str
    findings: tuple[str, ...]
    exclusive: bool
    tta: Tta
    ids: tuple[str, ...]
    splits: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float16]
    probabilities: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float32]
    uncertainty_of: str
    embeddings: dict[Method, Embedding]
    failed: dict[str, str]
    place: dict[str, int] = field(repr=False)

    def split_of(self, row: int) -> Split:
        """The split of the item at `row`."""
        return SPLITS[int(self.splits[row])]


def load_map(workspace: Workspace, number: int | None = None) -> RoundMap:
    """The map of a round, or of the newest finished one that has any; takes milliseconds.

    Raises:
        MapError: there is none, or its files are damaged; the sentence says why and what to do.
    """
    if number is None:
        found = reversed(mapped_rounds(workspace))
        number = next((n for n in found if workspace.ledger.finished(n)), None)
        if number is None:
            raise MapError(
                "No round has a map yet: run a round, with at least one of the methods under [map]."
            )
    folder = workspace.round_folder(number) / FOLDER
    if not (folder / INDEX).is_file():
        raise MapError(f"Round {number} has no map{_why_not(workspace, number)}.")
    try:
        return _read(workspace, folder, number)
    except DAMAGED:
        raise MapError(
            f"The map in {folder} is damaged: delete that folder and make the map again."
        ) from None


def mapped_rounds(workspace: Workspace) -> list[int]:
    """The rounds that have a map, in order."""
    found = (workspace.root / "rounds").glob(f"*/{FOLDER}/{INDEX}")
    return sorted(int(path.parts[-3]) for path in found)


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Say what belongs together, once it is all there."""
    replace(folder / INDEX, lambda file: file.write(json.dumps(index).encode()))


def read_index(folder: Path) -> dict[str, Any] | None:
    """What the map that lies there says of itself, if there is a whole one."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return (
            index if {"model_id", "seed", "items", "embeddings", "failed"} <= set(index) else None
        )
    except (OSError, ValueError, TypeError):
        return None


def _read(workspace: Workspace, folder: Path, number: int) -> RoundMap:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    if {len(array) for array in arrays.values()} != {index["items"]}:
        raise ValueError("arrays of different lengths")
    ids = tuple(arrays.pop("ids").tolist())
    embeddings = {
        name: Embedding(name, np.load(folder / f"{name}.npy", mmap_mode="r"), **told)
        for name, told in index["embeddings"].items()
    }
    task = workspace.ledger.task
    return RoundMap(
        round=number,
        model_id=index["model_id"],
        findings=task.findings,
        exclusive=task.exclusive,
        tta=index["tta"],
        ids=ids,
        uncertainty_of=index["uncertainty_of"],
        embeddings=embeddings,
        failed=index["failed"],
        place={item_id: row for row, item_id in enumerate(ids)},
        **arrays,
    )


def _why_not(workspace: Workspace, number: int) -> str:
    end = json.loads(workspace.ledger.round_end(number) or "{}")
    failed = end.get("map", {}).get("failed")
    return f" ({'; '.join(failed.values())})" if failed else ""


def digest_of(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as `.npy`."""
    replace(path, lambda file: np.save(file, array, allow_pickle=False))


def replace(path: Path, write: Callable[[Any], object]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            write(file)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)  # a full disk is not to be kept full
