"""The Map page: every item where the model sees it, and the images of those that are selected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import numpy.typing as npt
import streamlit as st

from app.web import shell
from app.web.access import Person
from app.web.blind import hidden
from app.web.pictures import grid
from app.web.scatter import LABELED, POOL, QUEUE, VALIDATION, VAULT, Points, scatter
from ssl_core.errors import MapError
from ssl_core.map_files import RoundMap, load_map, mapped_rounds
from ssl_core.records import SPLITS
from ssl_core.truth import label_matrix
from ssl_core.workspace import Workspace

SHOWN = 24  # images of a selection
UNKNOWN = "not labeled"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A5A44", "#7F3C8D")
GREY = "#9AA3AB"


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the ledger says of the items of a map, in its order; nothing of vault labels.

    `labels` (N, C), `asked` (N,) the round that asked for an item (0: none), `readers` (N,) the
    reader of each item's newest read ("" if nobody's), `waiting` (N,) whether it is in the queue.
    """

    labels: npt.NDArray[np.float64]
    asked: npt.NDArray[np.int64]
    readers: npt.NDArray[np.str_]
    waiting: npt.NDArray[np.bool_]

    @property
    def labeled(self) -> npt.NDArray[np.bool_]:
        """(N,) whether anything is known of an item."""
        return np.asarray(~np.isnan(self.labels).all(axis=1))


def page(ws: Workspace, person: Person) -> None:
    """Show the page."""
    shell.heading(
        "Map", "Every item where the round's model sees it: near means alike to the model."
    )
    rounds = mapped_rounds(ws)
    if not rounds:
        shell.empty(
            "No round has a map yet.",
            "A round that looks at images makes one in its job, unless `[map] methods` is empty.",
            f"readloop round {ws.root}",
        )
        return
    first, second, third, fourth = st.columns(4)
    number = first.selectbox("Round", rounds, index=len(rounds) - 1, key="f-round")
    found = _map(ws, number, shell.version(ws))
    methods = list(found.embeddings)
    if not methods:
        raise MapError("; ".join(found.failed.values()) or "This map has no coordinates.")
    method = second.selectbox("Method", methods, format_func=str.upper, key="f-method")
    colours = ["label", "score", "uncertainty", "split", "round", "reader"]
    colour = third.selectbox("Colour", colours, key="f-colour")
    findings = list(found.findings)
    finding = fourth.selectbox(
        "Finding", findings, disabled=colour not in ("label", "score"), key="f-finding"
    )
    known = _known(ws, number, shell.version(ws))
    found, known = _without(found, known, hidden(ws, person))
    embedding = found.embeddings[method]
    points = Points(
        x=embedding.coordinates[:, 0],
        y=embedding.coordinates[:, 1],
        shape=_shapes(found, known),
        **_coloured(found, known, colour, findings.index(finding)),
    )
    chosen = scatter(points, key=f"map-{number}-{method}")
    settings = ", ".join(f"{k} {v}" for k, v in embedding.parameters.items())
    note = f" {embedding.note}" if embedding.note else ""
    st.caption(f"{method.upper()}: {settings}; seed {embedding.seed}.{note}")
    _selected(ws, found, known, chosen.indices, chosen.count)


@st.cache_resource(show_spinner=False, max_entries=4)
def _map(_ws: Workspace, number: int, version: tuple[str, int]) -> RoundMap:
    return load_map(_ws, number)


@st.cache_resource(show_spinner=False, max_entries=4)
def _known(_ws: Workspace, number: int, version: tuple[str, int]) -> Known:
    ledger, found = _ws.ledger, _map(_ws, number, version)
    n = len(found.ids)
    labels = label_matrix(found.ids, ledger.labels(), found.findings)
    labels[found.splits == SPLITS.index("vault")] = np.nan
    asked, readers = np.zeros(n, np.int64), np.full(n, "", dtype=object)
    for round_, selection in ledger.selected():
        if selection.item_id in found.place:
            asked[found.place[selection.item_id]] = round_
    read = set()
    for one in ledger.reading.reads():
        if one.item_id in found.place and one.outcome in ("read", "unusable"):
            readers[found.place[one.item_id]] = one.reader
            read.add(found.place[one.item_id])
    waiting = asked > 0
    waiting[list(read)] = False
    waiting &= np.isnan(labels).all(axis=1)
    return Known(labels, asked, readers.astype(np.str_), waiting)


def _without(found: RoundMap, known: Known, out: frozenset[str]) -> tuple[RoundMap, Known]:
    """The same, with what is known and thought of these items taken out."""
    rows = [found.place[item_id] for item_id in out if item_id in found.place]
    if not rows:
        return found, known
    columns = (found.probabilities, found.uncertainty, known.labels)
    probabilities, uncertainty, labels = (np.array(column) for column in columns)
    for values in (probabilities, uncertainty, labels):
        values[rows] = np.nan
    found = replace(found, probabilities=probabilities, uncertainty=uncertainty)
    return found, replace(known, labels=labels)


def _shapes(found: RoundMap, known: Known) -> npt.NDArray[np.uint8]:
    shapes = np.full(len(found.ids), POOL, np.uint8)
    shapes[known.labeled] = LABELED
    shapes[known.waiting] = QUEUE
    shapes[found.splits == SPLITS.index("validation")] = VALIDATION
    shapes[found.splits == SPLITS.index("vault")] = VAULT
    return shapes


def _coloured(found: RoundMap, known: Known, colour: str, finding: int) -> dict[str, object]:
    """The colour of every point, with its legend."""
    if colour == "score":
        return {"colour": found.probabilities[:, finding].astype(np.float32), "title": "score"}
    if colour == "uncertainty":
        values = found.uncertainty.astype(np.float32)
        top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
        scaled = values / top if top > 0 else values
        title = f"uncertainty ({found.uncertainty_of})"
        return {"colour": scaled, "title": title, "ramp": (0.0, top)}
    names = {
        "label": lambda: _label_names(known.labels[:, finding]),
        "split": lambda: np.array(SPLITS)[found.splits],
        "round": lambda: np.where(known.asked > 0, known.asked.astype(str), "not asked"),
        "reader": lambda: np.where(known.readers == "", "nobody", known.readers),
    }[colour]()
    return _groups(names, colour)


def _label_names(values: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    named = np.where(values == 1.0, "present", "absent")
    return np.where(np.isnan(values), UNKNOWN, named)


def _groups(names: npt.NDArray[np.str_], title: str) -> dict[str, object]:
    quiet = {UNKNOWN, "not asked", "nobody"}
    legend = sorted(set(names.tolist()), key=lambda n: (n in quiet, len(n), n))[:60]
    place = {name: i for i, name in enumerate(legend)}
    palette = [GREY if n in quiet else PALETTE[i % len(PALETTE)] for i, n in enumerate(legend)]
    colour = np.array([place.get(n, 0) for n in names.tolist()], np.uint8)
    return {"colour": colour, "palette": palette, "legend": legend, "title": title}


def _selected(
    ws: Workspace, found: RoundMap, known: Known, indices: tuple[int, ...], count: int
) -> None:
    if not indices:
        st.caption("Select points (shift and drag, or the lasso) to see their images.")
        return
    few = indices[:SHOWN]
    st.markdown(f"**{count:,} selected**" + (f", {len(few)} shown" if count > len(few) else ""))
    captions = [_caption(found, known, row) for row in few]
    grid(ws.images, [found.ids[row] for row in few], captions, link=True)


def _caption(found: RoundMap, known: Known, row: int) -> str:
    split = found.split_of(row)
    if split == "vault":
        return "vault<br>label sealed"
    scores = found.probabilities[row]
    told = [
        f"{escape(finding)} {_word(label)}{_score(score)}"
        for finding, label, score in zip(
            found.findings, known.labels[row], scores.tolist(), strict=True
        )
        if label == 1.0 or (not math.isnan(score) and score >= 0.5)
    ]
    state = "labeled" if known.labeled[row] else "in the queue" if known.waiting[row] else "pool"
    return f"{split}, {state}<br>{'; '.join(told[:3]) or 'nothing likely'}"


def _word(label: float) -> str:
    return "" if math.isnan(label) else "present" if label else "absent"


def _score(score: float) -> str:
    return "" if math.isnan(score) else f" ({score:.0%})"
