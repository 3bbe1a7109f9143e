"""What the models of a round say of one image: probabilities, features, maps."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import streamlit as st

from app.web import shell
from ssl_core.config import Config, validated
from ssl_core.masks.networks import Segmenter
from ssl_core.masks.predict import predict_masks
from ssl_core.pictures.activation import class_activation
from ssl_core.recipes import plan
from ssl_core.records import Model
from ssl_core.student import operating_point
from ssl_core.training.models import Classifier, Network
from ssl_core.training.predict import Device, Tta, predict
from ssl_core.workspace import Workspace

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model says of it.

    `heat` (C, h, w) is the evidence in units of logits; where masks are drawn, the map that is cut
    at one half, in [0, 1].
    """

    model: Model
    probabilities: Floats
    thresholds: npt.NDArray[np.float64]
    features: Floats
    heat: Floats


@st.cache_resource(show_spinner=False, max_entries=8)
def _network(_ws: Workspace, root: str, model: Model) -> Network:
    return _ws.network(model)


@st.cache_data(show_spinner=False, max_entries=8)
def _view(_ws: Workspace, number: int, version: tuple[str, int]) -> tuple[Tta, list[Model]]:
    """How the round's models look at an image, and those models that were measured."""
    opened = next(r for r in _ws.ledger.rounds() if r.number == number)
    config = validated(Config, json.loads(opened.config), f"round {number}")
    return plan(config.recipe).tta, [model for _, model in _ws.ledger.models(number)]


def opinions_of(ws: Workspace, number: int, pixels: npt.NDArray[np.uint8]) -> list[Opinion]:
    """What each measured model of a round says of one image `(1, C_in, H, W)`, oldest first."""
    tta, models = _view(ws, number, shell.version(ws))
    device = replace(ws.device, batch_size=8)
    found = []
    for model in models:
        network = _network(ws, str(ws.root), model)
        look = _drawn if isinstance(network, Segmenter) else _seen
        probabilities, features, heat = look(ws, network, pixels, device, tta)
        limits = np.asarray(operating_point(ws, number, model.stage), dtype=np.float64)
        found.append(Opinion(model, probabilities, limits, features, heat))
    return found


_Said = tuple[Floats, Floats, Floats]


def _seen(
    ws: Workspace, network: Classifier, pixels: npt.NDArray[np.uint8], device: Device, tta: Tta
) -> _Said:
    network = network.to(device.name)
    exclusive = ws.ledger.task.exclusive
    said = predict(network, pixels, np.arange(1), exclusive=exclusive, device=device, tta=tta)
    heat = class_activation(network, pixels, device=device).maps[0]
    return said.probabilities[0], np.asarray(said.features[0]), heat


def _drawn(
    ws: Workspace, network: Segmenter, pixels: npt.NDArray[np.uint8], device: Device, tta: Tta
) -> _Said:
    found = predict_masks(
        network,
        pixels,
        np.arange(1),
        lambda _, made: {"p": made.classes, "f": made.features, "m": made.maps},
        device=device,
        tta=tta,
    )
    return found["p"][0], found["f"][0], found["m"][0]
