"""The model that the prediction API serves: found in the ledger, kept loaded, exchanged alone."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from app import api_answers as answers
from app.api_upload import Upload
from ssl_core.claims.promotion import find_in_use
from ssl_core.config import Config, load_config, validated
from ssl_core.drawings import drawn_masks
from ssl_core.errors import ConfigError, ReadloopError, WorkspaceError
from ssl_core.images import fit_image
from ssl_core.masks.files import unfit_mask
from ssl_core.masks.networks import Segmenter
from ssl_core.masks.predict import predict_masks
from ssl_core.pictures.activation import class_activation, over_image
from ssl_core.recipes import plan
from ssl_core.records import Model
from ssl_core.student import operating_point, present
from ssl_core.training.models import Classifier
from ssl_core.training.predict import Device, Tta, predict
from ssl_core.workspace import CONFIG_FILE, Workspace

Choose = Callable[[Workspace], tuple[int, Model] | None]
"""Which model is in use: its round and itself, or None. The one place to change that."""

CHECK_SECONDS = 3.0  # a newer model is seen this long after its round ended, at the latest
MAP_SIDE = 1024  # the longest side of a map's picture, in pixels
MAP_COLOUR = (230, 159, 0)  # orange of Okabe and Ito: seen by colour-blind people, on grey

log = logging.getLogger("readloop.api")


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model with everything that a prediction needs besides the image."""

    round: int
    model: Model
    network: Classifier | Segmenter
    thresholds: tuple[float, ...]
    tta: Tta
    device: Device

    @property
    def described(self) -> answers.ModelInUse:
        """Which model this is, for an answer."""
        card = f"/models/{self.model.id}/card"
        return answers.ModelInUse(
            id=self.model.id, round=self.round, stage=self.model.stage, card=card
        )


class ModelKeeper:
    """The model in use, looked up in the ledger every `every` seconds at most. Safe in threads."""

    def __init__(
        self, ws: Workspace, choose: Choose = find_in_use, every: float = CHECK_SECONDS
    ) -> None:
        self._ws, self._choose, self._every = ws, choose, every
        self._lock = threading.Lock()
        self._served: Served | None = None
        self._fault = ""
        self._looked = -np.inf

    def current(self) -> Served:
        """The model in use; a model that was served goes on while a newer one cannot be loaded.

        Raises:
            WorkspaceError: there is none yet, or it cannot be loaded; one sentence that names no
                place of the machine.
        """
        with self._lock:
            if time.monotonic() - self._looked >= self._every:
                self._look()
                self._looked = time.monotonic()
            if self._served is None:
                raise WorkspaceError(self._fault)
            return self._served

    def _look(self) -> None:
        try:
            self._ws = _with_today_s_config(self._ws)
            found = self._choose(self._ws)
            if found is None:
                self._served = None
                self._fault = (
                    "There is no trained model yet: run `readloop round` until a round has made "
                    "one; it is then served without a restart."
                )
            elif self._served is None or found != (self._served.round, self._served.model):
                self._served = _load(self._ws, *found)
                self._fault = ""
        except (ReadloopError, OSError) as error:
            if str(error) != self._fault:
                log.warning("%s", error)
            self._fault = str(error)
            if self._served is None:
                self._fault = "The model in use cannot be loaded: the server's log says why."


def _with_today_s_config(ws: Workspace) -> Workspace:
    """The recipe names the stage that makes the student, and may be edited between rounds."""
    try:
        return replace(ws, config=load_config(ws.root / CONFIG_FILE))
    except ConfigError:  # half-way through an edit
        return ws


def _load(ws: Workspace, number: int, model: Model) -> Served:
    device = ws.device
    opened = next(r for r in ws.ledger.rounds() if r.number == number)
    config = validated(Config, json.loads(opened.config), f"round {number}")
    masks = ws.ledger.task.kind == "segmentation"
    network = ws.load_segmenter(model) if masks else ws.load(model)
    return Served(
        number,
        model,
        network.to(device.name),
        () if masks else tuple(operating_point(ws, number, model.stage)),
        plan(config.recipe).tta,  # the thresholds were chosen with it
        device,
    )


def pixels_of(ws: Workspace, upload: Upload) -> npt.NDArray[np.uint8]:
    """The upload as the image store would keep it: `(1, channels, size, size)` uint8."""
    store = ws.images
    return fit_image(upload.rgb, store.size, store.fit, store.channels)[None]


def prediction(
    ws: Workspace,
    served: Served,
    upload: Upload,
    pixels: npt.NDArray[np.uint8],
    finding: str | None = None,
) -> answers.Prediction:
    """Score one upload, and draw its masks, or the map of one finding if it is named."""
    network, task = served.network, ws.ledger.task
    height, width = upload.rgb.shape[:2]
    map_ = None
    if isinstance(network, Segmenter):
        found = _drawn(ws, served, network, pixels, (height, width))
    else:
        found = _scored(ws, served, network, pixels)
        map_ = finding and _map(ws, served, network, upload, pixels, finding)
    return answers.Prediction(
        model=served.described,
        task=task.kind,
        findings=found,
        image=answers.UploadedImage(format=upload.format, height=height, width=width),
        map=map_ or None,
    )


def _scored(
    ws: Workspace, served: Served, network: Classifier, pixels: npt.NDArray[np.uint8]
) -> list[answers.FindingResult]:
    task, asked = ws.ledger.task, np.arange(1)
    told = predict(
        network,
        pixels,
        asked,
        exclusive=task.exclusive,
        device=served.device,
        tta=served.tta,
    )
    row: list[float] = told.probabilities[0].tolist()
    holds = present(row, served.thresholds, task.exclusive)
    return [
        answers.FindingResult(
            finding=name,
            probability=p,
            threshold=None if task.exclusive else threshold,
            present=yes,
        )
        for name, p, threshold, yes in zip(
            task.findings, row, served.thresholds, holds, strict=True
        )
    ]


def _drawn(
    ws: Workspace,
    served: Served,
    network: Segmenter,
    pixels: npt.NDArray[np.uint8],
    size: tuple[int, int],
) -> list[answers.FindingResult]:
    """What a model that draws says, its masks at the picture's own size `(H, W)`."""
    told = predict_masks(
        network,
        pixels,
        np.arange(1),
        lambda _, made: {"p": made.classes, "masks": drawn_masks(made.maps)},
        device=served.device,
        tta=served.tta,
    )
    fit = ws.images.fit
    found = []
    for name, p, mask in zip(
        ws.ledger.task.findings, told["p"][0].tolist(), told["masks"][0], strict=True
    ):
        own = _png(Image.fromarray(unfit_mask(mask, size, fit))) if mask.any() else None
        found.append(
            answers.FindingResult(
                finding=name, probability=p, threshold=None, present=bool(mask.any()), mask=own
            )
        )
    return found


def _png(picture: Image.Image) -> str:
    """Base64 of the picture as a PNG."""
    file = BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _map(
    ws: Workspace,
    served: Served,
    network: Classifier,
    upload: Upload,
    pixels: npt.NDArray[np.uint8],
    finding: str,
) -> answers.ActivationMap:
    found = class_activation(network, pixels, device=served.device)
    one = found.maps[0, ws.ledger.task.findings.index(finding)]
    height, width = upload.rgb.shape[:2]
    shrink = min(1.0, MAP_SIDE / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    shown = over_image(one, height, width, fit=ws.images.fit)
    rgba = np.empty((height, width, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = MAP_COLOUR, np.rint(shown * 255)
    return answers.ActivationMap(
        finding=finding,
        png=_png(Image.fromarray(rgba)),
        height=height,
        width=width,
        peak=float(one.max()),
    )
