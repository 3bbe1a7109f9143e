"""A scatter plot of up to 50,000 points that stays fluid: a 2-D canvas, typed arrays, no library.

The points cross to the browser once, as bytes: a length, a JSON header, then the columns. Reruns
that change nothing send nothing: equal bytes make an equal message, and Streamlit keeps those.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import streamlit as st

POOL, QUEUE, LABELED, VALIDATION, VAULT = range(5)
"""What a point stands for: `Points.shape` holds these."""

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#a6761d")
"""Colours that people with any colour vision tell apart on light and dark (Okabe & Ito 2008,
without the yellow that white swallows)."""

MOST = 500  # indices that come back; a page cannot show more
NO_VALUE = 65535
JS = ("scatter_points.js", "scatter_draw.js", "scatter_legend.js", "scatter_input.js", "scatter.js")


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """What is drawn; N points, in the order that `Selection.indices` speaks of.

    `x`, `y` (N,) float: a place; points whose place is not finite are left out and counted.
    `colour` (N,): integers are indices into `palette` (hex colours, at most 255) with the names
    `legend`; floats are values in [0, 1] on a viridis ramp, NaN is "no value", and `ramp` holds
    the numbers that 0 and 1 stand for. `title` names what the colour means. `shape` (N,) uint8 of
    POOL, QUEUE, LABELED, VALIDATION, VAULT; None: all pool. `star` (x, y) is drawn on top.
    `ids` (N,) short texts to show on hover; without them the point's number is shown.

    Raises ValueError where lengths or ranges do not fit.
    """

    x: np.ndarray
    y: np.ndarray
    colour: np.ndarray
    palette: Sequence[str] = ()
    legend: Sequence[str] = ()
    title: str = ""
    ramp: tuple[float, float] = (0.0, 1.0)
    shape: np.ndarray | None = None
    star: tuple[float, float] | None = None
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        _same_length(self)
        _in_range(self)

    @property
    def continuous(self) -> bool:
        """Whether `colour` holds values on a ramp."""
        return bool(np.issubdtype(np.asarray(self.colour).dtype, np.floating))


@dataclass(frozen=True, slots=True)
class Selection:
    """What the reader of the plot selected: sorted `indices` and the `count` of all.

    Where more than 500 are selected, `indices` holds 500 that are spread evenly over them.
    """

    indices: tuple[int, ...] = ()
    count: int = 0


def scatter(
    points: Points, *, key: str, height: int = 560, selected: Sequence[int] = ()
) -> Selection:
    """Draw the points in a box of `height` pixels and return what is selected in it.

    `selected` is the page's wish: it is shown when it changes and stays until the reader selects
    otherwise. Passing back the last `Selection.indices` changes nothing and sends nothing.
    Pan, zoom, hidden groups and the selection outlive reruns and visits to other pages.
    """
    place = _digest(_column(points.x, "<f4"), _column(points.y, "<f4"))
    wish = tuple(sorted({int(i) for i in selected if 0 <= i < len(points.x)}))
    turn, given = _given(key, place, wish)
    result = _component(
        key=key,
        data=encode(points, key=key, height=height, turn=turn, selected=given),
        height=height,
        on_selection_change=lambda: None,
    )
    own = _reported(result, place, turn)
    return own if own is not None else Selection(given, len(given))


def encode(
    points: Points, *, key: str = "", height: int = 560, turn: int = 0, selected: Sequence[int] = ()
) -> bytes:
    """The message to the browser: uint32 header length, JSON header, columns (little-endian).

    Columns: x and y float32, colour uint8 (or uint16 of a value's 65,535ths), shape uint8, ids as
    UTF-8 lines. The digests tell the browser what changed: `place` (x, y), `look` (all but them).
    """
    x, y = _column(points.x, "<f4"), _column(points.y, "<f4")
    rest = [_colours(points), _shapes(points), "\n".join(points.ids).encode()]
    head = {
        "n": len(points.x),
        "key": key,
        "height": height,
        "kind": "ramp" if points.continuous else "groups",
        "palette": list(points.palette),
        "legend": list(points.legend),
        "title": points.title,
        "ramp": [float(end) for end in points.ramp],
        "ids": bool(points.ids),
    }
    look = _digest(json.dumps(head, sort_keys=True).encode(), *rest)
    star = [float(v) for v in points.star] if points.star is not None else []
    head |= {"place": _digest(x, y), "look": look}
    head |= {"star": star if star and np.all(np.isfinite(star)) else None}
    head |= {"turn": turn, "selected": [int(i) for i in selected]}
    header = json.dumps(head, sort_keys=True).encode()
    return b"".join([len(header).to_bytes(4, "little"), header, x, y, *rest])


def decode(message: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the columns (x, y, colour, shape, ids) of `encode`; what the browser reads."""
    start = 4 + int.from_bytes(message[:4], "little")
    header: dict[str, Any] = json.loads(message[4:start])
    columns: dict[str, Any] = {}
    wide = "<u2" if header["kind"] == "ramp" else "u1"
    for name, kind in (("x", "<f4"), ("y", "<f4"), ("colour", wide), ("shape", "u1")):
        columns[name] = np.frombuffer(message, kind, header["n"], start)
        start += columns[name].nbytes
    columns["ids"] = message[start:].decode().split("\n") if header["ids"] else []
    return header, columns


def _given(key: str, place: str, wish: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The number and the content of the last selection that the page, not the reader, made."""
    memory = f"{key}:given"
    turn, given, last = st.session_state.get(memory, (0, (), ()))
    own = _reported(st.session_state.get(key), place, turn)
    shown = own.indices if own is not None else given
    # An unchanged wish does not undo what the reader selected; a plot that begins anew hears it.
    if wish != shown and (wish != last or own is None):
        turn, given = turn + 1, wish
    st.session_state[memory] = (turn, given, wish)
    return turn, given


def _reported(state: Any, place: str, turn: int) -> Selection | None:
    """What the browser said last; None where it spoke of other points or an older wish."""
    said = (state or {}).get("selection")
    if not said or said["place"] != place or said["turn"] != turn:
        return None
    return Selection(tuple(int(i) for i in said["indices"]), int(said["count"]))


def _colours(points: Points) -> bytes:
    if not points.continuous:
        return _column(points.colour, "u1")
    values = np.asarray(points.colour, np.float64)
    steps = np.rint(np.clip(values, 0, 1) * (NO_VALUE - 1))
    return _column(np.where(np.isnan(values), NO_VALUE, steps), "<u2")


def _shapes(points: Points) -> bytes:
    shape = points.shape
    return bytes(len(points.x)) if shape is None else _column(shape, "u1")


def _column(values: np.ndarray, kind: str) -> bytes:
    with np.errstate(over="ignore"):  # beyond float32 is not finite, and is left out as such
        return np.ascontiguousarray(np.asarray(values).astype(kind)).tobytes()


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _same_length(points: Points) -> None:
    n = len(points.x)
    named = {"y": points.y, "colour": points.colour, "shape": points.shape}
    for name, column in named.items():
        if column is not None and np.shape(column) != (n,):
            raise ValueError(f"{name} has shape {np.shape(column)}, x has {n} points")
    if len(points.ids) not in (0, n):
        raise ValueError(f"{len(points.ids)} ids for {n} points")
    if any("\n" in text for text in points.ids):
        raise ValueError("an id holds a line break")
    if len(points.palette) != len(points.legend):
        raise ValueError(f"{len(points.palette)} colours for {len(points.legend)} names")


def _in_range(points: Points) -> None:
    colour = np.asarray(points.colour)
    if not len(colour):
        return
    if points.continuous:
        if not np.all(np.isfinite(points.ramp)):
            raise ValueError(f"the ramp's ends are {points.ramp}")
        if np.any((colour < 0) | (colour > 1)):
            raise ValueError("a colour value lies outside [0, 1]")
    elif colour.min() < 0 or colour.max() >= min(len(points.palette), 255):
        raise ValueError(f"a colour is no index into a palette of {len(points.palette)}")
    if points.shape is not None and np.any(np.asarray(points.shape) > VAULT):
        raise ValueError("a shape is none of POOL, QUEUE, LABELED, VALIDATION, VAULT")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_component = st.components.v2.component(
    "readloop_scatter",
    html=_asset("scatter.html"),
    css=_asset("scatter.css"),
    js="\n".join(map(_asset, JS)),
)
