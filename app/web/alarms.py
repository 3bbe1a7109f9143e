"""The Audit page's alarms: what is paused and why, and the numbers over the rounds."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from app.web import shell
from app.web.charts import COLOURS, INK
from app.web.words import percent
from ssl_core.auditing import pauses
from ssl_core.auditing.alarm import RoundAudit, Watch, sentence
from ssl_core.workspace import Workspace


def show(ws: Workspace) -> None:
    """What is paused or doubted, in words; a line when nothing is."""
    rules, found = ws.config.alarm, _watches(ws, shell.version(ws))
    unknown = [f for f in rules.ignore if f not in ws.ledger.task.findings]
    if unknown:
        names = ", ".join(unknown)
        st.warning(
            shell.plain(
                f"The table alarm in readloop.toml ignores {names}, which is no finding here: "
                "mend the name."
            ),
            icon=":material/edit:",
        )
    standing = [one for one in found if one.alarm is not None]
    for one in standing:
        _one(ws, one)
    past = [(a, one) for one in found for a in one.history if a is not one.alarm]
    if past:
        told = ", ".join(f"{shell.plain(a.finding)} (round {a.round})" for a, _ in past)
        st.caption(f"Alarms that are over: {told}.")
    if not standing:
        st.caption(
            "No alarm on pseudo-labels. A finding whose claims hold raises one, in all its rounds "
            f"together, with a chance of {rules.false_alarm:.0%} at the most."
        )


def _one(ws: Workspace, one: Watch) -> None:
    if one.alarm is None:
        return
    rules, paused = ws.config.alarm, pauses.is_paused(one, ws.config.alarm)
    after = (
        f"The next round keeps no pseudo-labels of it. The pause ends by itself once "
        f"{rules.recovery_reads} or more blind reads of what would have been kept are no worse "
        f"than allowed; to end it now, add it to `ignore` under `[alarm]` in readloop.toml."
        if paused
        else "It is not paused: `[alarm]` in readloop.toml says so."
    )
    head = f"**{shell.plain(one.finding)}: {'paused' if paused else 'alarm, not paused'}.** "
    box = st.error if paused else st.warning
    box(
        f"{head}{shell.plain(sentence(one.alarm))} {after}",
        icon=":material/pause_circle:" if paused else ":material/warning:",
    )


def trends(ws: Workspace) -> None:
    """Confidence against precision by round, and the class ratio of what was kept."""
    found = _audits(ws, shell.version(ws))
    rows = pd.DataFrame([_row(f, a) for f, audits in found.items() for a in audits])
    shell.section("Confidence and precision")
    st.caption(
        "The teacher's mean confidence in what it kept, and the share of it that blind reads of "
        "the rounds' own slices, added up from the first round on, found right."
    )
    finding = st.selectbox("Finding", list(found), key="a-trend")
    here = rows[rows["finding"] == finding]
    sides = ["present", "absent"] if here["confident absent"].notna().any() else ["present"]
    for column, sign in zip(st.columns(2), sides, strict=False):
        column.altair_chart(_lines(here, sign), width="stretch", height=240)
    shown = pd.DataFrame(
        {
            "round": here["round"],
            "confidence, present": here["confident present"].map(percent),
            "right, present": here["right present"],
            "confidence, absent": here["confident absent"].map(percent),
            "right, absent": here["right absent"],
            "present among the kept": here["share"].map(percent),
            "present in the slice": here["slice"],
        }
    )
    st.dataframe(shown, hide_index=True, width="stretch")


def _row(finding: str, a: RoundAudit) -> dict[str, object]:
    right = [f"{n - w} of {n}" if n else "–" for n, w in zip(a.judged, a.wrong, strict=True)]
    return {
        "finding": finding,
        "round": a.round,
        "confident present": a.confidence[0],
        "confident absent": a.confidence[1],
        "judged present": a.judged[0],
        "judged absent": a.judged[1],
        "wrong present": a.wrong[0],
        "wrong absent": a.wrong[1],
        "right present": right[0],
        "right absent": right[1],
        "share": a.share,
        "slice": f"{a.positives} of {a.reads}" if a.reads else "–",
    }


def _lines(rows: pd.DataFrame, sign: str) -> alt.Chart:
    judged = rows[f"judged {sign}"].cumsum()
    right = 1 - rows[f"wrong {sign}"].cumsum() / judged.where(judged > 0)
    told = [("confidence", rows[f"confident {sign}"]), ("right so far", right)]
    long = pd.concat(
        [pd.DataFrame({"round": rows["round"], "what": name, "value": v}) for name, v in told]
    ).dropna()
    colour = alt.Color(
        "what:N",
        title=f"kept as {sign}",
        scale=alt.Scale(
            domain=[name for name, _ in told], range=[COLOURS["supervised"], COLOURS["student"]]
        ),
        legend=alt.Legend(orient="top", symbolDash=[1, 0]),
    )
    return (
        alt.Chart(long)
        .mark_line(point=True)
        .encode(
            x=alt.X("round:O", title="Round", axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                "value:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")
            ),
            color=colour,
            strokeDash=alt.StrokeDash("what:N", legend=None),
            tooltip=["round", "what", alt.Tooltip("value:Q", format=".1%")],
        )
        .configure_axis(gridColor=INK, gridOpacity=0.18)
    )


@st.cache_data(show_spinner="Looking for alarms…", max_entries=4)
def _watches(_ws: Workspace, version: tuple[str, int]) -> list[Watch]:
    return pauses.watches(_ws, _ws.config.alarm)


@st.cache_data(show_spinner=False, max_entries=4)
def _audits(_ws: Workspace, version: tuple[str, int]) -> dict[str, list[RoundAudit]]:
    return pauses.audits(_ws)
