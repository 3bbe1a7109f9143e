"""The Reading page's tabs on readers: their time, the pull of hints, second reads and re-reads."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app.reading_tables import EFFECTS, evidence_of
from app.web import shell
from app.web.charts import COLOURS, INK
from ssl_core.workspace import Workspace

WIDE = alt.Axis(labelLimit=360)


def time(ws: Workspace, _desk: object) -> None:
    """What a read takes, what it depends on, what waits, and what an hour of reading brought."""
    found = _evidence(ws, shell.version(ws))
    pace = found["pace"]
    st.markdown(shell.said(pace["sentence"]))
    if pace["readers"]:
        rows = [
            {
                "reader": one["reader"],
                "seconds a read": one["seconds"]["value"],
                "95 % from": one["seconds"]["low"],
                "to": one["seconds"]["high"],
                "reads": one["seconds"]["n"],
                "minutes that wait": pace["queue"].get(one["reader"], {}).get("value"),
            }
            for one in pace["readers"]
        ]
        form = st.column_config.NumberColumn(format="%.0f")
        shown = ("seconds a read", "95 % from", "to", "minutes that wait")
        st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=dict.fromkeys(shown, form))
        effects = [(EFFECTS.get(name, name), times) for name, times in pace["effects"]]
        _intervals(effects, "times as long, 95 % interval", 1.0)
        st.caption(
            "Readers are drawn towards their common mean by as much as their reads leave open. "
            "Seconds are of a blind read of a case drawn at random."
        )
    st.markdown(shell.said(found["steps_sentence"]))
    st.markdown(shell.said(found["per_minute_sentence"]))


def hints(ws: Workspace, _desk: object) -> None:
    """Whether readers follow the model where they see its opinion."""
    found = _evidence(ws, shell.version(ws))
    if not found["anchoring"]:
        st.markdown(shell.said(found["anchoring_sentence"]))
    for one in found["anchoring"]:
        st.markdown(shell.said(one["sentence"]))
    known = [one for one in found["anchoring"] if one["shift"]["value"] is not None]
    if known:
        rows = [(one["reader"] or "all readers", one["shift"]) for one in known]
        _intervals(rows, "answers that are the model's: shown less hidden, 95 % interval", 0.0)
    st.caption(
        "Chance decides which half of the random slice and of the strategy's choice shows a hint. "
        "The meter says how far answers move towards the model, not whether they are right to. "
        "Of several readers, one in twenty looks anchored by chance."
    )


def second_reads(ws: Workspace, _desk: object) -> None:
    """Whether a second read pays, and what re-reading contradictions found."""
    found = _evidence(ws, shell.version(ws))
    st.markdown(shell.said(found["second_read"]["sentence"]))
    st.markdown(shell.said(found["rereads"]["sentence"]))
    result = found["rereads"]
    parts = [
        (f"{name}{whose}", one[part])
        for one, whose in ((result, ""), (result["own"], ", by the same reader"))
        if one and one["contradiction"]["asked"]
        for name, part in (("contradictions", "contradiction"), ("control", "control"))
    ]
    if not parts:
        st.code(f"readloop reread {ws.root}", language="sh")
        return
    _intervals(
        [(name, part["share"]) for name, part in parts if part["share"]["value"] is not None],
        "share answered otherwise, 95 % interval",
        None,
    )
    rows = [
        {"": name, **{key: part[key] for key in ("asked", "read", "changed", "unsure")}}
        | {"minutes": part["seconds"] / 60}
        for name, part in parts
    ]
    form = {"minutes": st.column_config.NumberColumn(format="%.1f")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=form)
    st.caption(
        "A contradiction is an answer that the model denies with confidence. Each goes, blind, to "
        "a reader who has not seen the case (to a lone reader again, who may remember it), beside "
        "a case with the same answer that the model does not deny. What they say is one vote more; "
        "an even vote waits for the adjudicator."
    )


def _intervals(rows: list[tuple[str, dict[str, Any]]], title: str, neutral: float | None) -> None:
    """One line a row: a value with its interval, beside the line of no effect."""
    if not rows:
        return
    table = pd.DataFrame([{"name": name, **one} for name, one in rows])
    base = alt.Chart(table).encode(y=alt.Y("name:N", title=None, sort=None, axis=WIDE))
    colour, scale = COLOURS["student"], alt.Scale(zero=False)
    bars = base.mark_rule(strokeWidth=2, color=colour).encode(
        x=alt.X("low:Q", title=title, scale=scale, axis=alt.Axis(tickCount=8)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=70, opacity=1, color=colour).encode(
        x="value:Q",
        tooltip=["name", *(alt.Tooltip(f"{c}:Q", format=".2f") for c in ("value", "low", "high"))],
    )
    chart = bars + points
    if neutral is not None:
        line = alt.Chart(pd.DataFrame({"x": [neutral]}))
        chart = line.mark_rule(color=INK, strokeDash=[4, 4]).encode(x="x:Q") + chart
    st.altair_chart(chart.properties(height=alt.Step(32)), width="stretch")


@st.cache_data(show_spinner="Looking at what readers did…", max_entries=4)
def _evidence(_ws: Workspace, version: tuple[str, int]) -> dict[str, Any]:
    return evidence_of(_ws)
