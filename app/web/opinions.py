"""What the models of a round say of one image: probabilities, features, activation maps."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import streamlit as st

from app.web import shell
from ssl_core.config import Config, validated
from ssl_core.pictures.activation import class_activation
from ssl_core.recipes import plan
from ssl_core.records import Model
from ssl_core.student import operating_point
from ssl_core.training.models import Classifier
from ssl_core.training.predict import Device, Prediction, Tta, choose_device, predict
from ssl_core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model says of it: `heat` (C, h, w) in units of logits."""

    model: Model
    probabilities: npt.NDArray[np.float32]
    thresholds: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    heat: npt.NDArray[np.float32]


@st.cache_resource(show_spinner=False, max_entries=8)
def _network(_ws: Workspace, root: str, model: Model) -> Classifier:
    return _ws.load(model)


@st.cache_data(show_spinner=False, max_entries=8)
def _view(_ws: Workspace, number: int, version: tuple[str, int]) -> tuple[Tta, list[Model]]:
    """How the round's models look at an image, and those models that were measured."""
    opened = next(r for r in _ws.ledger.rounds() if r.number == number)
    config = validated(Config, json.loads(opened.config), f"round {number}")
    return plan(config.recipe).tta, [model for _, model in _ws.ledger.models(number)]


def opinions_of(ws: Workspace, number: int, pixels: npt.NDArray[np.uint8]) -> list[Opinion]:
    """What each measured model of a round says of one image `(1, C_in, H, W)`, oldest first."""
    tta, models = _view(ws, number, shell.version(ws))
    compute = ws.config.compute
    device = Device(choose_device(compute.device), 8, compute.autocast)
    found = []
    for model in models:
        network = _network(ws, str(ws.root), model).to(device.name)
        said: Prediction = predict(
            network,
            pixels,
            np.arange(1),
            exclusive=ws.ledger.task.exclusive,
            device=device,
            tta=tta,
        )
        heat = class_activation(network, pixels, device=device).maps[0]
        limits = np.asarray(operating_point(ws, number, model.stage), dtype=np.float64)
        found.append(
            Opinion(model, said.probabilities[0], limits, np.asarray(said.features[0]), heat)
        )
    return found
