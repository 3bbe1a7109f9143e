"""The Map page: every item where the model sees it, and the images of those that are selected."""

from __future__ import annotations

import math
from html import escape

import streamlit as st

from app.web import shell
from app.web.access import Person
from app.web.blind import hidden
from app.web.pictures import grid
from app.web.points import METHODS, Known, coloured, known_of, map_of, shapes_of, without
from app.web.scatter import Points, scatter
from ssl_core.errors import MapError
from ssl_core.pictures.map_files import RoundMap, mapped_rounds
from ssl_core.workspace import Workspace

SHOWN = 24  # images of a selection


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
    found = map_of(ws, number, shell.version(ws))
    methods = list(found.embeddings)
    if not methods:
        raise MapError("; ".join(found.failed.values()) or "This map has no coordinates.")
    method = second.selectbox("Method", methods, format_func=METHODS.get, key="f-method")
    colours = ["label", "score", "uncertainty", "split", "round", "reader"]
    colour = third.selectbox("Colour", colours, key="f-colour")
    findings = list(found.findings)
    finding = fourth.selectbox(
        "Finding", findings, disabled=colour not in ("label", "score"), key="f-finding"
    )
    known = known_of(ws, number, shell.version(ws))
    found, known = without(found, known, hidden(ws, person))
    embedding = found.embeddings[method]
    points = Points(
        x=embedding.coordinates[:, 0],
        y=embedding.coordinates[:, 1],
        shape=shapes_of(found, known),
        **coloured(found, known, colour, findings.index(finding)),
    )
    chosen = scatter(points, key=f"map-{number}-{method}")
    settings = ", ".join(f"{k} {v}" for k, v in embedding.parameters.items())
    note = f" {embedding.note}" if embedding.note else ""
    st.caption(f"{METHODS[method]}: {settings}; seed {embedding.seed}.{note}")
    _selected(ws, found, known, chosen.indices, chosen.count)


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
    if known.waiting[row]:
        return f"{split}, in the queue<br>to be read blind"
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
