"""Features learned without labels: computed once for a pool, shared by rounds, seeds and arms.

Pretraining looks at no label, so nothing about it changes from round to round. What it gives is
kept beside the pixels, named by everything that it depends on: the images of the pool, the first
weights, and the stage with its views and schedule. Change one and another is computed; the round's
seed is not among them.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.errors import ConfigError
from ssl_core.recipes.stages import Pretrain
from ssl_core.training.distributed import barrier, is_main
from ssl_core.training.feed import Examples, Unlabeled
from ssl_core.training.models import Classifier, load_model, save_model
from ssl_core.training.seeds import derived_seed
from ssl_core.training.train import fit
from ssl_core.turn import Turn
from ssl_core.workspace import one_process


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A network of the artefact `name`; `losses` are the means of its epochs, of `items` images."""

    name: str
    network: Classifier
    items: int
    losses: list[float]


def pretrained(turn: Turn, stage: Pretrain) -> Pretrained:
    """The network of a stage, trained now or whenever it was first wanted.

    A training that is killed goes on from its checkpoint at the next call, of whatever round.

    Raises:
        WorkspaceError: another process computes the same just now.
    """
    seed = derived_seed("pretrain", stage.name) % 2**31
    network = turn.network(stage.outputs, seed, neck=stage.layers)
    name = _digest(turn, stage, network)
    place = turn.workspace.images.folder / f"pretrained-{name}"
    found = _read(place, name, network)
    if found is None:
        if is_main():
            place.mkdir(parents=True, exist_ok=True)
        with one_process(place, "pretraining in") if is_main() else nullcontext():
            _train(turn, stage, network, place)
            barrier()
        found = _read(place, name, network)
    assert found is not None
    return found


def _train(turn: Turn, stage: Pretrain, network: Classifier, place: Path) -> None:
    rows, checkpoint = turn.train.rows, place / "fit.pt"
    result = fit(
        network,
        turn.inputs(network),
        None,
        Examples(np.empty(0, np.int64), np.empty((0, stage.outputs))),
        stage.schedule,
        spec=turn.plan.augmentation,
        seed=derived_seed("pretrain", place.name) % 2**31,
        exclusive=False,
        findings=(),
        device=turn.device,
        objective=stage.objective,
        unlabeled=Unlabeled(rows, stage.views),
        banks=turn.banks(network),
        checkpoint=checkpoint,
        checkpoint_seconds=turn.config.compute.checkpoint_seconds,
        report=turn.report,
        stage=stage.name,
    )
    if is_main():
        losses = [epoch.loss for epoch in result.history]
        told = {"model": save_model(network, place), "items": len(rows), "losses": losses}
        scratch = place / f".done.{os.getpid()}.tmp"
        scratch.write_text(json.dumps(told))
        scratch.replace(place / "done.json")  # the last thing: with it, the artefact is whole
        checkpoint.unlink(missing_ok=True)


def _read(place: Path, name: str, like: Classifier) -> Pretrained | None:
    """What is kept; None where it is not whole, so that it is computed again."""
    try:
        told = json.loads((place / "done.json").read_text())
        path = place / f"{told['model']}.safetensors"
        network = load_model(path, like.backbone, like.head.out_features)
        return Pretrained(name, network, told["items"], told["losses"])
    except (OSError, ValueError, KeyError, ConfigError):
        return None


def _digest(turn: Turn, stage: Pretrain, network: Classifier) -> str:
    images, rows = turn.workspace.images, turn.train.rows
    told: list[object] = [turn.train.ids, images.array.shape, network.backbone, repr(stage)]
    if turn.plan.stem_blocks:
        told.append(turn.plan.stem_views)
    digest = hashlib.sha256(repr(tuple(told)).encode())
    for row in rows[:: max(1, len(rows) // 64)]:
        digest.update(images.array[row].tobytes())
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
