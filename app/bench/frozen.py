"""Frozen features of a data set: what a network without training sees, computed once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.bench.datasets import workspace_of
from ssl_core.history.truth import label_matrix
from ssl_core.progress import Report, silent
from ssl_core.records import Item, Label
from ssl_core.training.models import build_model
from ssl_core.training.predict import Device, choose_device, predict
from ssl_core.workspace import Workspace

BACKBONE = "mobilenet_v2"
SIZE = 224  # pixels, as the network was trained
COMPONENTS = 128


@dataclass(frozen=True, slots=True)
class Some:
    """n items: features `(n, D)` float32, labels `(n, C)` of 1 / 0 / NaN, and their patients."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float64]
    groups: npt.NDArray[np.str_]

    def at(self, rows: npt.NDArray[np.int64]) -> Some:
        """The items at these positions."""
        return Some(self.features[rows], self.labels[rows], self.groups[rows])


@dataclass(frozen=True, slots=True)
class Frozen:
    """A data set and split as a benchmark of selection needs it: the train pool and the vault."""

    data: str
    split: str
    findings: tuple[str, ...]
    exclusive: bool
    train: Some
    vault: Some


def frozen(
    name: str, split: str, data: Path, weights: str, out: Path, report: Report = silent
) -> Frozen:
    """Features of `BACKBONE` at `SIZE` pixels, mean of image and mirror, and the hidden answers.

    They are standardised by the train pool, whose pixels are known without a label, and brought to
    its first `COMPONENTS` principal components: many seeds then take minutes. The workspace
    and the features are kept under `out`, and only read at the next call: all splits and labels of
    the same images share them. Validation items take no part: nothing is chosen on them.

    Raises:
        ReadloopError: whatever is wrong with the data or the weights.
    """
    workspace = workspace_of(name, split, data, out, "fast", SIZE, report)
    with workspace.ledger as ledger:
        items = sorted(ledger.items(), key=lambda item: item.id)
        ids = np.array([item.id for item in items])
        found = _features(workspace, ids, weights, out, report)
        labels = _answers(workspace, items)
        groups = np.array([item.group for item in items])
        inside = {part: {item.id for item in ledger.items(part)} for part in ("train", "vault")}
        task = ledger.task
    rows = {part: np.flatnonzero([i in some for i in ids]) for part, some in inside.items()}
    mean, spread = found[rows["train"]].mean(axis=0), found[rows["train"]].std(axis=0)
    standard = (found - mean) / np.where(spread > 0, spread, 1.0)
    everything = Some(_components(standard, rows["train"]), labels, groups)
    parts = (everything.at(rows["train"]), everything.at(rows["vault"]))
    return Frozen(name, split, task.findings, task.exclusive, *parts)


def _components(
    features: npt.NDArray[np.float32], pool: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Principal components `(n, COMPONENTS)` of the pool's, whose mean is 0."""
    some = features[pool].astype(np.float64)
    axes = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :COMPONENTS]
    return np.asarray(features @ axes, dtype=np.float32)


def _features(
    workspace: Workspace, ids: npt.NDArray[np.str_], weights: str, out: Path, report: Report
) -> npt.NDArray[np.float32]:
    """Features `(n, D)` of the items with these ids, kept in a file named by ids and weights."""
    file = Path(weights)
    told = hashlib.sha256(file.read_bytes() if file.is_file() else weights.encode())
    told.update("".join(ids.tolist()).encode())
    path = out / "features" / f"{BACKBONE}-{SIZE}px-flip-{told.hexdigest()[:16]}.npy"
    if not path.is_file():
        found = predict(
            build_model(BACKBONE, 1, weights=weights),
            workspace.images.array,
            workspace.images.positions(ids.tolist()),
            exclusive=False,
            device=Device(choose_device("auto")),
            tta="flip",
            report=report,
            stage="features",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp.npy")
        np.save(scratch, found.features)
        scratch.replace(path)
    return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)


def _answers(workspace: Workspace, items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """What the simulated reader would say of them, `(n, C)`."""
    ids = [item.id for item in items]
    known = [
        Label(a.item_id, a.finding, a.value, "archive", "import", f"{a.item_id}:{a.finding}")
        for a in workspace.ledger.answers(ids)
    ]
    return label_matrix(ids, known, workspace.ledger.task.findings)
