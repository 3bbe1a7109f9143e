"""The Case page: one image through every model of a round, with maps and nearest labeled cases."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st
from fastapi import HTTPException
from PIL import Image

from app.api_upload import NAME, decoded
from app.web import case_masks, shell
from app.web.access import Person
from app.web.blind import hidden, waiting
from app.web.opinions import Opinion, opinions_of
from app.web.pictures import grid
from app.web.points import METHODS, coloured, known_of, map_of, shapes_of, without
from app.web.scatter import Points, scatter
from connectors.folder import FolderSource
from ssl_core.errors import ReadloopError
from ssl_core.history.truth import label_matrix
from ssl_core.images import fit_image
from ssl_core.pictures.activation import over_image
from ssl_core.pictures.map_files import RoundMap, mapped_rounds
from ssl_core.pictures.neighbours import Labeled, labeled_items, nearest, star
from ssl_core.pictures.thumbnails import windowed
from ssl_core.workspace import Workspace

SIDE = 420  # pixels an image is shown at
HEAT = np.array([230, 159, 0], np.float32)  # orange of Okabe and Ito, seen on grey by everybody
NEAREST = 6


@dataclass(frozen=True, slots=True)
class Subject:
    """The image that is looked at: RGB (H, W, 3), and the item's id unless it was uploaded."""

    rgb: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.uint8]
    item_id: str
    name: str


def page(ws: Workspace, person: Person) -> None:
    """Show the page."""
    shell.heading(
        "Case", "One image through every model of a round, and the labeled cases like it."
    )
    # A round that is still running has models, but no operating points yet.
    rounds = sorted({number for number, _ in ws.ledger.measurements()})
    if not rounds:
        shell.empty(
            "No model has been trained yet.",
            "A round trains models once there are labels to learn from.",
            f"readloop round {ws.root}",
        )
        return
    pick, which = st.columns([4, 1], vertical_alignment="bottom")
    with pick:
        subject = _subject(ws)
    number = which.selectbox("Round", rounds, index=len(rounds) - 1, key="k-round")
    if subject is None:
        return
    if _is_sealed(ws, person, subject.item_id):
        return
    opinions = opinions_of(ws, number, subject.pixels)
    if ws.ledger.task.kind == "segmentation":
        split = _ids(ws, str(ws.root)).get(subject.item_id, "")
        case_masks.show(ws, subject.rgb, subject.name, subject.item_id, split, opinions)
    else:
        finding, opacity, centre, width = _controls(ws)
        _pictures(ws, subject, opinions, finding, opacity, (centre, width))
        _table(ws, opinions)
    if label := _truth(ws, subject):
        st.markdown(label)
    st.caption(
        "The first model learned from labels alone: it is the supervised baseline of this budget. "
        "One trained on every label exists only in a replay (`readloop simulate`)."
    )
    _like_it(ws, number, subject, opinions[-1], hidden(ws, person))


def _is_sealed(ws: Workspace, person: Person, item_id: str) -> bool:
    """Whether the case waits to be read, so that what the models say would colour the read."""
    if item_id not in waiting(ws, shell.version(ws)):
        return False
    st.info(
        "This case waits to be read: what the models say of it is shown once it was.",
        icon=":material/visibility_off:",
    )
    if person.role == "reader":
        return True
    return not st.toggle("Show it all the same: I do not read it", key=f"k-seal-{item_id}")


# The image ----------------------------------------------------------------------------------------


def _subject(ws: Workspace) -> Subject | None:
    way = st.segmented_control(
        "Image", ["From the workspace", "Upload"], default="From the workspace", key="k-way"
    )
    if way == "Upload":
        file = st.file_uploader(
            "PNG, JPEG or DICOM; it is looked at and not kept",
            type=["png", "jpg", "jpeg", "dcm", "dicom"],
            key="k-file",
        )
        return _uploaded(ws, file.getvalue(), file.name) if file else None
    items = _ids(ws, str(ws.root))
    asked = st.query_params.get("item", "")
    typed = st.text_input("Item (the beginning of its id)", asked, key="k-item").strip().lower()
    if not re.fullmatch("[0-9a-f]{0,32}", typed):
        raise ReadloopError("An item's id has the digits 0-9 and a-f: copy one from another page.")
    fitting = [i for i in items if i.startswith(typed)] if typed else _some(ws)
    if not fitting:
        raise ReadloopError(f"No item's id begins with {typed}: copy one from another page.")
    item_id = fitting[0]
    pixels = ws.images.pixels([item_id])[0]
    rgb, how = _original(ws, shell.version(ws)[0], item_id), ""
    if rgb is None:
        rgb, how = np.moveaxis(pixels, 0, -1), f", as the model sees it ({ws.images.size} px)"
        rgb = np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb
    return Subject(rgb, pixels[None], item_id, f"item {item_id[:12]} ({items[item_id]}{how})")


@st.cache_data(show_spinner=False, max_entries=32)
def _original(_ws: Workspace, settings: str, item_id: str) -> npt.NDArray[np.uint8] | None:
    """The file that an item was imported from, if it is still there."""
    path = next(item.path for item in _ws.ledger.items() if item.id == item_id)
    try:
        return FolderSource(Path(_ws.config.images.folder)).read(path)
    except (ReadloopError, OSError):
        return None


@st.cache_resource(show_spinner=False, max_entries=2)
def _ids(_ws: Workspace, root: str) -> dict[str, str]:
    return {item.id: item.split for item in _ws.ledger.items()}


def _some(ws: Workspace) -> list[str]:
    """The case that was read last; before any, the first item that nobody is to read."""
    unread, items = waiting(ws, shell.version(ws)), _ids(ws, str(ws.root))
    read = [r.item_id for r in ws.ledger.reading.reads() if items[r.item_id] != "vault"]
    return [i for i in (*reversed(read), *items) if i not in unread][:1]


def _uploaded(ws: Workspace, data: bytes, name: str) -> Subject:
    try:
        rgb = decoded(data).rgb
    except HTTPException as error:
        detail = str(error.detail).replace(f"{NAME!r} ", "it ").replace("send", "choose")
        raise ReadloopError(f"{name}: {detail[:1].lower()}{detail[1:]}") from None
    store = ws.images
    return Subject(rgb, fit_image(rgb, store.size, store.fit, store.channels)[None], "", name)


def _controls(ws: Workspace) -> tuple[int, float, float, float]:
    first, second, third, fourth = st.columns(4)
    findings = ws.ledger.task.findings
    finding = first.selectbox("Evidence for", findings, key="k-finding")
    opacity = second.slider("Opacity of the map", 0, 100, 45, format="%d %%", key="k-opacity")
    centre = third.slider("Window centre", 0, 255, 128, key="k-centre")
    width = fourth.slider("Window width", 1, 255, 255, key="k-width")
    return findings.index(finding), opacity / 100, float(centre), float(width)


def _pictures(
    ws: Workspace,
    subject: Subject,
    opinions: list[Opinion],
    finding: int,
    opacity: float,
    window: tuple[float, float],
) -> None:
    plain = _scaled(windowed(subject.rgb, *window))
    columns = st.columns(len(opinions) + 1)
    columns[0].image(plain, caption=shell.plain(subject.name), width="stretch")
    ceiling = max(float(o.heat[finding].max()) for o in opinions)
    for column, opinion in zip(columns[1:], opinions, strict=True):
        shown = over_image(
            opinion.heat[finding],
            *plain.shape[:2],
            fit=ws.images.fit,
            ceiling=ceiling if ceiling > 0 else None,
        )
        weight = (shown * opacity)[..., None]
        mixed = (plain * (1 - weight) + HEAT * weight).round().astype(np.uint8)
        said = f"{shell.plain(opinion.model.stage)}: {opinion.probabilities[finding]:.0%}"
        column.image(mixed, caption=said, width="stretch")
    st.caption(
        "Orange: what speaks for the finding, in closed form from the last feature maps; one scale "
        f"for all models (full at {max(ceiling, 0):.1f} logits)."
    )


def _scaled(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = SIDE / max(rgb.shape[:2])
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    return np.asarray(Image.fromarray(rgb).resize((size[0], size[1]), Image.Resampling.BICUBIC))


def _table(ws: Workspace, opinions: list[Opinion]) -> None:
    findings, exclusive = ws.ledger.task.findings, ws.ledger.task.exclusive
    rows = []
    for c, finding in enumerate(findings):
        row: dict[str, object] = {"finding": finding}
        for o in opinions:
            row[o.model.stage] = float(o.probabilities[c])
            if not exclusive:
                row[f"{o.model.stage} from"] = f"{o.thresholds[c]:.0%}"
        rows.append(row)
    bar = {
        o.model.stage: st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
        for o in opinions
    }
    st.dataframe(pd.DataFrame(rows).round(3), hide_index=True, width="stretch", column_config=bar)
    if not exclusive:
        st.caption("“from”: that model's operating point, chosen on validation.")


def _truth(ws: Workspace, subject: Subject) -> str:
    """What readers say of the item, in words; nothing for the vault's, whose labels are sealed."""
    if not subject.item_id:
        return ""
    if _ids(ws, str(ws.root))[subject.item_id] == "vault":
        return "A vault item: its labels are sealed."
    findings = ws.ledger.task.findings
    mine = [label for label in ws.ledger.labels() if label.item_id == subject.item_id]
    row = label_matrix([subject.item_id], mine, findings)[0]
    said = [
        f"{shell.plain(f)} **{'present' if v else 'absent'}**"
        for f, v in zip(findings, row.tolist(), strict=True)
        if not math.isnan(v)
    ]
    return f"Readers say: {', '.join(said)}." if said else "Nobody has labeled it yet."


# Cases like it ------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False, max_entries=2)
def _labeled(_ws: Workspace, number: int, version: tuple[str, int]) -> Labeled:
    return labeled_items(_ws, map_of(_ws, number, version))


def _like_it(
    ws: Workspace, number: int, subject: Subject, student: Opinion, out: frozenset[str]
) -> None:
    shell.section("Labeled cases like it")
    if number not in mapped_rounds(ws):
        st.caption("This round has no map, so nothing is known to be near.")
        return
    version = shell.version(ws)
    found = map_of(ws, number, version)
    features = student.features
    own = subject.item_id or None
    near = nearest(_labeled(ws, number, version), features, NEAREST + len(out), exclude=own)
    few = [n for n in near if n.item_id not in out][:NEAREST]
    captions = [_neighbour(ws, n.labels, n.similarity) for n in few]
    grid(ws.images, [n.item_id for n in few], captions, link=True)
    _place(ws, found, features, own, number, out)


def _neighbour(ws: Workspace, labels: tuple[float, ...], similarity: float) -> str:
    named = list(zip(ws.ledger.task.findings, labels, strict=True))
    held = [escape(f) for f, v in named if v == 1.0]
    unknown = any(math.isnan(v) for _, v in named)
    nothing = "none known; some not labeled" if unknown else "none of the findings"
    return f"<b>{', '.join(held) or nothing}</b><br>cosine {similarity:.3f}"


def _place(
    ws: Workspace,
    found: RoundMap,
    features: npt.NDArray[np.float32],
    own: str | None,
    number: int,
    out: frozenset[str],
) -> None:
    if not found.embeddings:
        return
    method = next(iter(found.embeddings))
    landed = star(found, features, method)
    if landed is None:
        return
    found, known = without(found, known_of(ws, number, shell.version(ws)), out)
    coordinates = found.embeddings[method].coordinates
    points = Points(
        x=coordinates[:, 0],
        y=coordinates[:, 1],
        shape=shapes_of(found, known),
        star=(landed.x, landed.y),
        **coloured(found, known, "label", 0),
    )
    scatter(points, key=f"case-{number}-{method}", height=380)
    st.caption(f"The star is where this image lands ({METHODS[method]}, from its nearest points).")
