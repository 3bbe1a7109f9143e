"""The Audit page where masks are drawn: the worst cases first, and how good pseudo-masks were."""

from __future__ import annotations

import math
from html import escape

import altair as alt
import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from app.web import shell
from app.web.case_masks import READERS, STUDENT, rgb
from app.web.charts import INK
from app.web.pictures import SIDE, grid_of
from app.web.points import PALETTE
from ssl_core import tell
from ssl_core.auditing.pseudo_masks import Iteration, fall_sentence, falls, iterations
from ssl_core.drawings import drawings, overlap
from ssl_core.evidence import Estimate
from ssl_core.masks.truth import mask_truth
from ssl_core.pictures.overlays import Layer, outlined
from ssl_core.pictures.thumbnails import encoded
from ssl_core.probabilities import labeled, stage_model
from ssl_core.records import CONTROL, Split
from ssl_core.workspace import Workspace

SPLITS: dict[str, Split] = {"validation": "validation", "training labels": "train"}
PAGE = 24
NUMBERS = {
    "dice": "mean Dice",
    "iou": "mean IoU",
    "sensitivity": "images rightly called present",
    "specificity": "images rightly called absent",
    "d-auc": "D-AUC",
    "surface distance": "surface distance, px",
    "surface distance 95": "surface distance, 95th percentile, px",
}


def worst(ws: Workspace, rounds: list[int], out: frozenset[str]) -> None:
    """Labeled items by a model's Dice, lowest first, with contours; `out` are not shown."""
    first, second, third, fourth = st.columns(4)
    number = first.selectbox("Round", rounds, index=len(rounds) - 1, key="a-round")
    stages = [model.stage for _, model in ws.ledger.models(number)]
    stage = second.selectbox("Model", stages, index=len(stages) - 1, key=f"a-stage-{number}")
    split = SPLITS[third.selectbox("Cases of", list(SPLITS), key="a-split")]
    findings = ws.ledger.task.findings
    finding = fourth.selectbox("Finding", findings, key="a-finding")
    ids, found = _dice(ws, number, stage, split, shell.version(ws))
    values = found[:, findings.index(finding)]
    order = [i for i in np.argsort(values, kind="stable") if values[i] == values[i]]
    order = [i for i in order if ids[i] not in out]
    if not order:
        st.caption("Readers have drawn none of these cases yet.")
        return
    _summary(values[order], split)
    pages = -(-len(order) // PAGE)
    page = st.pagination(pages, key="a-page") if pages > 1 else 1
    some = order[(page - 1) * PAGE : page * PAGE]
    chosen = [ids[i] for i in some]
    pictures, captions = _shown(ws, number, stage, chosen, findings.index(finding))
    told = [f"<b>Dice {values[i]:.3f}</b><br>{c}" for i, c in zip(some, captions, strict=True)]
    grid_of(chosen, pictures, told, link=True)
    _numbers(ws, number, stage, finding)


@st.cache_data(show_spinner="Holding the model's masks against the readers'…", max_entries=16)
def _dice(
    _ws: Workspace, number: int, stage: str, split: Split, version: tuple[str, int]
) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    items = labeled(_ws, split)
    return items.ids, overlap(_ws, number, stage_model(_ws, number, stage), items)


def _summary(values: npt.NDArray[np.float64], split: Split) -> None:
    readers, model = (
        f'<span class="rl-swatch" style="background:{colour}"></span>'
        for colour in (READERS[0], STUDENT)
    )
    learned = " The model has learned from those that were read before its round."
    st.html(
        f'<p class="rl-quiet">{readers} readers {model} the model · {len(values):,} cases, '
        f"worst first; {(values < 0.5).sum():,} below a Dice of one half, median "
        f"{np.median(values):.3f}.{learned if split == 'train' else ''}</p>"
    )


def _shown(
    ws: Workspace, number: int, stage: str, ids: list[str], finding: int
) -> tuple[list[bytes], list[str]]:
    """Thumbnails with both contours, and what there is to say of each beside its Dice."""
    truth = mask_truth(ids, ws.ledger.labels(), ws.ledger.task.findings, ws.masks)
    told = truth.at(range(len(ids)))[:, finding] == 1
    drawn = drawings(ws, number, stage_model(ws, number, stage), ids)[:, finding]
    pictures, captions = [], []
    for pixels, ours, theirs in zip(ws.images.pixels(ids), told, drawn, strict=True):
        layers = [Layer(ours, rgb(READERS[0])), Layer(theirs, rgb(STUDENT))]
        pictures.append(encoded(outlined(pixels, layers, 2 * SIDE, width=4)))
        captions.append(_compared(ours, theirs))
    return pictures, captions


def _compared(ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> str:
    if not ours.any() or not theirs.any():
        who = [name for name, mask in (("readers", ours), ("the model", theirs)) if mask.any()]
        return f"drawn by {who[0]} alone" if who else "both say absent"
    missed, added = (ours & ~theirs).sum() / ours.sum(), (theirs & ~ours).sum() / ours.sum()
    return f"{missed:.0%} missed, {added:.0%} too much"


def _numbers(ws: Workspace, number: int, stage: str, finding: str) -> None:
    """What the round measured of this model on validation."""
    rows = [
        {
            "on validation": NUMBERS[m.name],
            "value [95 %]": tell.interval(Estimate(m.value, m.low, m.high, m.n)),
            "cases": m.n,
        }
        for _, m in ws.ledger.measurements(number)
        if (m.stage, m.split, m.finding) == (stage, "validation", finding) and m.name in NUMBERS
    ]
    if rows and stage != CONTROL:
        shell.section("The same in numbers")
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
        st.caption(f"{escape(stage)} of round {number}, {escape(finding)}, as that round measured.")


# Pseudo-masks -------------------------------------------------------------------------------------


def pseudo_masks(ws: Workspace) -> None:
    """How good the masks were that teachers drew for students, iteration by iteration."""
    found = iterations(ws)
    if not found:
        st.info(
            "No round has drawn pseudo-masks: the recipe `self_training` does, the others let "
            "student and teacher agree on images that nobody has read.",
            icon=":material/info:",
        )
        return
    for before, after in falls(found):
        st.warning(shell.said(fall_sentence(before, after)), icon=":material/trending_down:")
    rows = pd.DataFrame([_row(one) for one in found])
    judged = rows.dropna(subset=["dice"])
    if not judged.empty:
        st.altair_chart(_chart(judged), width="stretch", height=280)
    shown = ["round", "stage", "finding", "teachers", "drawn", "absent", "left out"]
    right = ["Dice [95 %]", "rightly drawn", "rightly absent"]
    st.dataframe(rows[[*shown, *right]], hide_index=True, width="stretch")
    st.caption(
        "Drawn, absent and left out count items of the pool. Dice, and what is right, are of "
        "validation, where the same teachers decide in the same way and readers have drawn. An "
        "iteration that draws more cases may have a lower Dice and be no worse: a warning stands "
        "above where it draws the same ones worse, since students learn their teachers' errors."
    )


def _row(one: Iteration) -> dict[str, object]:
    return {
        "round": one.round,
        "stage": one.stage,
        "where": f"{one.round}: {one.stage}",
        "finding": one.finding,
        "teachers": ", ".join(one.teachers),
        "drawn": one.drawn,
        "absent": one.absent,
        "left out": one.pool - one.drawn - one.absent,
        "dice": None if math.isnan(one.dice.value) else one.dice.value,
        "low": one.dice.low,
        "high": one.dice.high,
        "Dice [95 %]": tell.interval(one.dice),
        "rightly drawn": f"{one.right} of {one.of}" if one.of else "–",
        "rightly absent": f"{one.absent_right} of {one.absent_of}" if one.absent_of else "–",
    }


def _chart(rows: pd.DataFrame) -> alt.LayerChart:
    names = list(dict.fromkeys(rows["finding"]))
    scale = alt.Scale(domain=names, range=[PALETTE[i % len(PALETTE)] for i in range(len(names))])
    x = alt.X("where:N", sort=None, title="Round and iteration", axis=alt.Axis(labelAngle=0))
    base = alt.Chart(rows).encode(
        x=x,
        xOffset=alt.XOffset("finding:N"),
        color=alt.Color("finding:N", title=None, scale=scale, legend=alt.Legend(orient="top")),
    )
    lowest = float(rows["low"].fillna(rows["dice"]).min())
    y = alt.Scale(domain=[max(0.0, math.floor(lowest * 10 - 0.5) / 10), 1], clamp=True)
    bars = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", scale=y, title="Dice on validation, 95 %"), y2="high:Q"
    )
    tips = ["where", "finding", "drawn", "rightly drawn", alt.Tooltip("dice:Q", format=".3f")]
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=alt.Y("dice:Q", scale=y), tooltip=tips
    )
    return (bars + dots).configure_axis(gridColor=INK, gridOpacity=0.18)
