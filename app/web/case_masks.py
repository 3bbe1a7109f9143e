"""The Case page where masks are drawn: readers, teacher and student over the image, and apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st
from PIL import Image

from app.web import shell
from app.web.opinions import Opinion
from ssl_core.drawings import drawn_masks
from ssl_core.masks.files import load
from ssl_core.masks.overlap import Bools, as_truth, dice
from ssl_core.masks.truth import mask_truth
from ssl_core.pictures.overlays import Layer, over, painted, resized
from ssl_core.pictures.thumbnails import windowed
from ssl_core.records import Label
from ssl_core.workspace import Workspace

SIDE = 720  # pixels of the picture that all layers lie over
TOGETHER = "readers together"
READERS = ("#F0E442", "#009E73")
MODELS = ("#D55E00", "#E69F00", "#CC79A7")
STUDENT = "#56B4E9"
"""Okabe and Ito's colours, the light ones first: they are seen on dark images."""
WHO = {"import": "the import", "archive": "simulated reader"}
"""Who drew it, by a label's source, where that is no person."""
STYLES = ("Contour", "Fill")
OPACITY = {"Contour": 90, "Fill": 35}  # %, at first
PANELS = 4  # in a row


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One mask of the image as it is shown: who drew it, `(H, W)`, and how near it is to readers.

    `area` is its share of the image; `dice` is NaN where readers say nothing, or drew it.
    """

    name: str
    mask: Bools
    colour: str
    area: float
    dice: float = math.nan
    model: bool = False


def show(
    ws: Workspace,
    image: npt.NDArray[np.uint8],
    name: str,
    item_id: str,
    split: str,
    opinions: list[Opinion],
) -> None:
    """Overlays with their settings, the same side by side, and the numbers.

    `name` is what to call the image; `item_id` is "" for an upload. Labels of the vault, split
    "vault", are not looked at.
    """
    findings = ws.ledger.task.findings
    first, second, third = st.columns([2, 2, 2])
    finding = findings.index(first.selectbox("Finding", findings, key="k-finding"))
    centre = second.slider("Window centre", 0, 255, 128, key="k-centre")
    width = third.slider("Window width", 1, 255, 255, key="k-width")
    picture = windowed(_scaled(image), float(centre), float(width))
    labels = _labels(ws, item_id, split)
    drawings = [
        *_by_readers(ws, item_id, labels, finding, picture.shape[:2]),
        *_by_models(ws, item_id, labels, opinions, finding, picture.shape[:2]),
    ]
    left, right = st.columns([3, 2])
    with right:
        layers = _settings(drawings)
    left.image(painted(picture, layers), caption=shell.plain(name), width="stretch")
    _side_by_side(picture, drawings)
    _table(ws, item_id, labels, opinions)


def _labels(ws: Workspace, item_id: str, split: str) -> list[Label]:
    """What readers, or the import, said of the item; nothing of an upload or a vault item."""
    if not item_id or split == "vault":
        return []
    return [label for label in ws.ledger.labels() if label.item_id == item_id]


def _scaled(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = SIDE / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


# Who drew what ------------------------------------------------------------------------------------


def _by_readers(
    ws: Workspace, item_id: str, labels: list[Label], finding: int, size: tuple[int, int]
) -> Iterator[Drawing]:
    """Each reader's own mask, and what holds of them together where they are several."""
    name = ws.ledger.task.findings[finding]
    said = [x for x in labels if x.finding == name and not math.isnan(x.value)]
    told = _truth(ws, item_id, labels)[finding]
    if len(said) > 1:
        mask = over(told == 1, *size, ws.images.fit)
        yield Drawing(TOGETHER, mask, "#FFFFFF", float(np.mean(told == 1)))
    for place, label in enumerate(said):
        mask = np.zeros(size, bool)
        if label.mask is not None:
            mask = _kept(ws, label.mask, size)
        reader = WHO.get(label.source, label.reader)
        yield Drawing(reader, mask, READERS[place % len(READERS)], float(mask.mean()))


def _kept(ws: Workspace, digest: str, size: tuple[int, int]) -> Bools:
    """A reader's mask as it was drawn; as the model sees it where it is of another shape."""
    own = load(ws.masks_folder, digest)
    height, width = size
    if abs(own.shape[0] / own.shape[1] - height / width) < 2 / min(own.shape):
        return resized(own, height, width)
    return over(ws.masks.at([digest])[0], height, width, ws.images.fit)


def _by_models(
    ws: Workspace,
    item_id: str,
    labels: list[Label],
    opinions: list[Opinion],
    finding: int,
    size: tuple[int, int],
) -> Iterator[Drawing]:
    found = _dice(ws, item_id, labels, opinions)
    for place, one in enumerate(opinions):
        last = place == len(opinions) - 1
        colour = STUDENT if last else MODELS[place % len(MODELS)]
        mask = over(one.heat[finding], *size, ws.images.fit)
        area, near = float(mask.mean()), float(found[place, finding])
        yield Drawing(one.model.stage, mask, colour, area, near, model=True)


def _truth(ws: Workspace, item_id: str, labels: list[Label]) -> npt.NDArray[np.float32]:
    """`(C, S, S)`, NaN where nobody says."""
    return mask_truth([item_id], labels, ws.ledger.task.findings, ws.masks).at([0])[0]


def _dice(
    ws: Workspace, item_id: str, labels: list[Label], opinions: list[Opinion]
) -> npt.NDArray[np.float64]:
    """`(models, C)` against what readers drew, at the working size as everywhere."""
    truth = mask_truth([item_id], labels, ws.ledger.task.findings, ws.masks)
    many = [0] * len(opinions)
    inside, sure, known = as_truth(truth.at(many), truth.present[many])
    return dice(drawn_masks(np.stack([one.heat for one in opinions])) & sure, inside, known)


# What is shown ------------------------------------------------------------------------------------


def _settings(drawings: list[Drawing]) -> list[Layer]:
    """A row a layer: whether it is shown, as contour or filled, and how strongly."""
    chosen = []
    for place, one in enumerate(drawings):
        swatch, name, style, strength = st.columns([1, 7, 6, 5], vertical_alignment="center")
        swatch.html(f'<div class="rl-swatch" style="background:{one.colour}"></div>')
        on = name.toggle(shell.plain(one.name), _first_shown(drawings, place), key=f"k-on-{place}")
        how = style.segmented_control(
            f"Style of {one.name}",
            STYLES,
            default=STYLES[0],
            required=True,
            label_visibility="collapsed",
            key=f"k-style-{place}",
        )
        opacity = strength.slider(
            f"Opacity of {one.name}",
            0,
            100,
            OPACITY[how],
            format="%d %%",
            label_visibility="collapsed",
            key=f"k-opacity-{place}-{how}",  # each style has its own
        )
        if on:
            chosen.append(Layer(one.mask, rgb(one.colour), opacity / 100, how == "Fill"))
    return chosen


def _first_shown(drawings: list[Drawing], place: int) -> bool:
    """At first: what readers drew (together, if several), the first model and the last."""
    models = [i for i, one in enumerate(drawings) if one.model]
    return place in {0, *models[:1], *models[-1:]}


def _side_by_side(picture: npt.NDArray[np.uint8], drawings: list[Drawing]) -> None:
    for start in range(0, len(drawings), PANELS):
        some = drawings[start : start + PANELS]
        for column, one in zip(st.columns(max(len(some), 3)), some, strict=False):
            colour = rgb(one.colour)
            layers = [Layer(one.mask, colour, 0.3, filled=True), Layer(one.mask, colour)]
            column.image(painted(picture, layers), caption=_caption(one), width="stretch")


def _caption(one: Drawing) -> str:
    near = "" if math.isnan(one.dice) else f": Dice {one.dice:.3f}"
    empty = "" if one.mask.any() else ", draws nothing"
    return shell.plain(f"{one.name}{near}{empty}")


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour as a layer takes it, from `#RRGGBB`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def _table(ws: Workspace, item_id: str, labels: list[Label], opinions: list[Opinion]) -> None:
    """Of every finding: Dice against readers, and the share of the picture that is drawn."""
    found, told = _dice(ws, item_id, labels, opinions), _truth(ws, item_id, labels)
    rows = []
    for c, finding in enumerate(ws.ledger.task.findings):
        known = not np.isnan(found[:, c]).all()
        row: dict[str, object] = {"finding": finding}
        row["readers, area"] = f"{np.mean(told[c] == 1):.1%}" if known else "–"
        for place, one in enumerate(opinions):
            row[f"{one.model.stage}, area"] = f"{drawn_masks(one.heat[c]).mean():.1%}"
            row[f"{one.model.stage}, Dice"] = f"{found[place, c]:.3f}" if known else "–"
        rows.append(row)
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    st.caption(
        "Dice against what readers drew, at the size that the model sees; area: the share of the "
        "picture as the model sees it. Masks are maps cut at one half."
    )
