"""The Audit page's table of what a round kept, and how the teachers' scores fit the reads."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from app.web import shell
from app.web.charts import COLOURS, INK
from app.web.words import interval, percent
from ssl_core.auditing import audit
from ssl_core.auditing.calibration import Reliability
from ssl_core.evidence import Estimate
from ssl_core.workspace import Workspace


@st.cache_data(show_spinner="Judging the pseudo-labels…", max_entries=16)
def _kept_rows(_ws: Workspace, number: int, version: tuple[str, int]) -> pd.DataFrame:
    rows = audit.kept(_ws, number)
    so_far = audit.precision_so_far(_ws)
    return pd.DataFrame(
        [
            {
                "finding": row.finding,
                "sign": row.sign,
                "kept": row.kept,
                "of the pool": row.kept / row.pool if row.pool else None,
                "share": row.share,
                "prior": row.prior,
                "precision": row.precision.value,
                "low": row.precision.low,
                "high": row.precision.high,
                "reads": row.precision.n,
                "precision told": interval(row.precision),
                "recall told": interval(row.recall),
                "all rounds": _estimate(so_far[row.finding, row.sign]),
            }
            for row in rows
        ]
    )


def show(ws: Workspace, number: int) -> None:
    """What the round kept, of what, and how right it was."""
    rows = _kept_rows(ws, number, shell.version(ws))
    judged = rows.dropna(subset=["precision"])
    if judged.empty:
        st.info(
            "No blind read judges a pseudo-label of this round yet: precision appears when its "
            "random slice has been read.",
            icon=":material/hourglass_empty:",
        )
    else:
        st.altair_chart(_precision(judged), width="stretch")
    shown = pd.DataFrame(
        {
            "finding": rows["finding"],
            "sign": rows["sign"],
            "kept": rows["kept"],
            "of the pool": rows["of the pool"].map(percent),
            "share of the kept": rows["share"].map(percent),
            "expected": rows["prior"].map(percent),
            "precision [95 %]": rows["precision told"],
            "recall [95 %]": rows["recall told"],
            "reads": rows["reads"],
            "slices of all rounds": rows["all rounds"],
        }
    )
    st.dataframe(shown, hide_index=True, width="stretch")
    st.caption(
        "Precision: of what was kept, how much is right. Recall: of what truly is so, how much was "
        "kept as such. Both speak of the pool that the round scored: blind reads of this round and "
        "later ones, each with its inclusion weight. The last column adds up each round's own "
        "random slice, unweighted."
    )


def _estimate(found: Estimate) -> str:
    return f"{interval(found)} of {found.n}" if found.n else "–"


def _precision(rows: pd.DataFrame) -> alt.LayerChart:
    colour = alt.Color(
        "sign:N",
        title=None,
        scale=alt.Scale(
            domain=["present", "absent"], range=[COLOURS["supervised"], COLOURS["student"]]
        ),
        legend=alt.Legend(orient="top"),
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("finding:N", title=None, sort=None), yOffset="sign:N", color=colour
    )
    scale = alt.Scale(domain=[0, 1])
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X(
            "low:Q",
            title="Precision over the pool, 95 %",
            scale=scale,
            axis=alt.Axis(format="%"),
        ),
        x2="high:Q",
    )
    tips = ["finding", "sign", "kept", "reads", alt.Tooltip("precision:Q", format=".1%")]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x="precision:Q", tooltip=tips)
    return (bars + dots).configure_axis(gridColor=INK, gridOpacity=0.18)


# Calibration --------------------------------------------------------------------------------------


@st.cache_data(show_spinner="Holding scores against reads…", max_entries=4)
def _reliability(
    _ws: Workspace, numbers: tuple[int, ...], version: tuple[str, int]
) -> list[Reliability]:
    return audit.calibration(_ws, numbers)


def calibration(ws: Workspace, numbers: list[int]) -> None:
    """Do the teachers' scores mean what they say, on the slices of all rounds."""
    shell.section("Do the scores mean what they say")
    if not st.toggle("Hold the teachers' scores against the slices", key="a-calibration"):
        st.caption("Where a round did not put its scores by, its slice is scored again.")
        return
    found = _reliability(ws, tuple(numbers), shell.version(ws))
    if not any(one.n for one in found):
        st.info("No slice has been read blind yet.", icon=":material/hourglass_empty:")
        return
    shown = [
        {
            "finding": one.finding,
            "reads": one.n,
            "mean score": percent(one.score),
            "present": percent(one.present),
            "calibration error [95 %]": interval(one.error),
            "p": f"{one.p:.3f}",
            "says": "scores do not fit the reads" if one.p < 0.05 else "no misfit seen",
        }
        for one in found
        if one.n
    ]
    st.dataframe(pd.DataFrame(shown), hide_index=True, width="stretch")
    st.caption(
        "p: how often true probabilities would fit as badly (Spiegelhalter's test, reads taken as "
        "independent). One finding in twenty falls below .05 by chance."
    )
    names = [one.finding for one in found if one.bins]
    chosen = st.selectbox("Finding", names, key="a-reliability")
    st.altair_chart(_curve(next(one for one in found if one.finding == chosen)), height=300)


def _curve(one: Reliability) -> alt.LayerChart:
    rows = pd.DataFrame(
        [
            {
                "score": b.score,
                "present": b.present.value,
                "low": b.present.low,
                "high": b.present.high,
                "reads": b.present.n,
            }
            for b in one.bins
        ]
    )
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(format="%")
    diagonal = alt.Chart(pd.DataFrame({"score": [0.0, 1.0], "present": [0.0, 1.0]}))
    line = diagonal.mark_line(color=INK, strokeDash=[4, 4]).encode(x="score:Q", y="present:Q")
    base = alt.Chart(rows).encode(x=alt.X("score:Q", title="Score", scale=scale, axis=axis))
    bars = base.mark_rule(strokeWidth=2, color=COLOURS["student"]).encode(
        y=alt.Y("low:Q", title="Present, 95 %", scale=scale, axis=axis), y2="high:Q"
    )
    tips = ["reads", *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("score", "present"))]
    dots = base.mark_point(filled=True, size=70, opacity=1, color=COLOURS["student"]).encode(
        y="present:Q", tooltip=tips
    )
    return (line + bars + dots).configure_axis(gridColor=INK, gridOpacity=0.18)
