"""The points of a map, and what the ledger says of them: for the pages Map and Case."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import streamlit as st

from app.web.scatter import LABELED, POOL, QUEUE, VALIDATION, VAULT
from ssl_core.history.truth import label_matrix
from ssl_core.pictures.map_files import FOLDER, INDEX, RoundMap, load_map
from ssl_core.records import SPLITS
from ssl_core.workspace import Workspace

UNKNOWN = "not labeled"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A5A44", "#7F3C8D")
GREY = "#9AA3AB"
METHODS = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}


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


def map_of(ws: Workspace, number: int, version: tuple[str, int]) -> RoundMap:
    """The map of a round, opened anew when a method was added to it."""
    index = ws.round_folder(number) / FOLDER / INDEX
    written = index.stat().st_mtime_ns if index.is_file() else 0
    return _opened_map(ws, number, version, written)


@st.cache_resource(show_spinner=False, max_entries=4)
def _opened_map(_ws: Workspace, number: int, version: tuple[str, int], written: int) -> RoundMap:
    return load_map(_ws, number)


@st.cache_resource(show_spinner=False, max_entries=4)
def known_of(_ws: Workspace, number: int, version: tuple[str, int]) -> Known:
    """What is known of the items of a round's map today."""
    ledger, found = _ws.ledger, map_of(_ws, number, version)
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


def without(found: RoundMap, known: Known, out: frozenset[str]) -> tuple[RoundMap, Known]:
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


def shapes_of(found: RoundMap, known: Known) -> npt.NDArray[np.uint8]:
    """(N,) labeled, queue, pool, validation or vault, as `scatter` names them."""
    shapes = np.full(len(found.ids), POOL, np.uint8)
    shapes[known.labeled] = LABELED
    shapes[known.waiting] = QUEUE
    shapes[found.splits == SPLITS.index("validation")] = VALIDATION
    shapes[found.splits == SPLITS.index("vault")] = VAULT
    return shapes


def coloured(found: RoundMap, known: Known, colour: str, finding: int) -> dict[str, object]:
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
