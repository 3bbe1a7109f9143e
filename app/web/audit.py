"""The Audit page: how right the pseudo-labels are, on blind reads."""

from __future__ import annotations

from html import escape

import altair as alt
import pandas as pd
import streamlit as st

from app.web import alarms, audit_kept, audit_masks, audit_pool, shell
from app.web.access import Person
from app.web.blind import hidden
from app.web.charts import COLOURS, INK
from app.web.pictures import grid
from ssl_core.auditing import audit
from ssl_core.claims.promotion import find_in_use
from ssl_core.masks.overlap import SAME
from ssl_core.readers.contradictions import Contradiction, contradictions
from ssl_core.workspace import Workspace

LEADS = (
    "Pseudo-labels against blind reads, each weighted by the chance that it had to be asked.",
    "What models draw against what readers drew: worst cases first.",
)


def page(ws: Workspace, person: Person) -> None:
    """Show the page."""
    shell.heading("Audit", LEADS[ws.ledger.task.kind == "segmentation"])
    if ws.ledger.task.kind == "segmentation":
        _of_masks(ws, hidden(ws, person))
        return
    rounds = _rounds(ws, shell.version(ws))
    if not rounds:
        shell.empty(
            "No round has made pseudo-labels yet.",
            "A round does once it trains, with a recipe that pseudo-labels the pool.",
            f"readloop round {ws.root}",
        )
        return
    alarms.show(ws)
    number = st.selectbox("Round", rounds, index=len(rounds) - 1, key="a-round")
    names = ["Kept", "Over the rounds", "The pool", "At the borders", "Readers against the model"]
    kept, over, pool, edges, against = st.tabs(names)
    with kept:
        audit_kept.show(ws, number)
        _sweep(ws, number)
    with over:
        alarms.trends(ws)
        audit_kept.calibration(ws, rounds)
    with pool:
        audit_pool.show(ws)
    with edges:
        _borders(ws, number, hidden(ws, person))
    with against:
        _contradictions(ws, hidden(ws, person))


def _of_masks(ws: Workspace, out: frozenset[str]) -> None:
    """The page where masks are drawn."""
    measured = sorted({number for number, _ in ws.ledger.measurements()})
    if not measured:
        shell.empty(
            "No model that draws masks has been measured yet.",
            "A round trains one once readers have drawn a mask.",
            f"readloop round {ws.root}",
        )
        return
    rounds = _rounds(ws, shell.version(ws))
    if rounds:
        alarms.show(ws)
    names = ["Worst cases", "Pseudo-masks", "The pool", "Readers against the model"]
    worst, drawn, pool, against = st.tabs(names)
    with worst:
        audit_masks.worst(ws, measured, out)
    with drawn:
        audit_masks.pseudo_masks(ws)
        if rounds:
            _on_blind_reads(ws, rounds)
    with pool:
        audit_pool.show(ws)
    with against:
        _contradictions(ws, out)


def _on_blind_reads(ws: Workspace, rounds: list[int]) -> None:
    shell.section("On blind reads")
    number = st.selectbox("Pseudo-masks of round", rounds, index=len(rounds) - 1, key="a-kept")
    audit_kept.show(ws, number)
    st.caption(f"A mask is right where a blind reader's overlaps it with a Dice of {SAME} or more.")
    alarms.trends(ws)


@st.cache_data(show_spinner=False, max_entries=4)
def _rounds(_ws: Workspace, version: tuple[str, int]) -> list[int]:
    return [r.number for r in _ws.ledger.rounds() if _has(_ws, r.number)]


def _has(ws: Workspace, number: int) -> bool:
    return any(stage.kind == "pseudo-label" for stage in ws.ledger.stages(number))


# The sweep over the keep fraction -----------------------------------------------------------------


@st.cache_data(show_spinner="Scoring validation with the teacher…", max_entries=8)
def _sweep_rows(_ws: Workspace, number: int, version: tuple[str, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "κ": s.keep_fraction,
                "finding": s.finding,
                "sign": s.sign,
                "kept": s.kept,
                "precision": s.precision.value,
                "low": s.precision.low,
                "high": s.precision.high,
                "n": s.precision.n,
            }
            for s in audit.sweep(_ws, number)
        ]
    )


def _sweep(ws: Workspace, number: int) -> None:
    shell.section("Had another share been kept")
    if not st.toggle("Show the sweep of κ on validation", key=f"a-sweep-{number}"):
        st.caption("It scores validation with the round's teacher: seconds, once.")
        return
    rows = _sweep_rows(ws, number, shell.version(ws))
    finding = st.selectbox("Finding", list(dict.fromkeys(rows["finding"])), key="a-finding")
    here = rows[rows["finding"] == finding].dropna(subset=["precision"])
    base = alt.Chart(here).encode(
        x=alt.X("κ:Q", title="Keep fraction κ", axis=alt.Axis(tickCount=10)),
        color=alt.Color(
            "sign:N",
            title=None,
            scale=alt.Scale(
                domain=["present", "absent"], range=[COLOURS["supervised"], COLOURS["student"]]
            ),
            legend=alt.Legend(orient="top"),
        ),
    )
    scale = alt.Scale(zero=False)
    y = alt.Y("precision:Q", title="Precision on validation, 95 %", scale=scale)
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    tips = ["κ", "sign", "kept", "n", alt.Tooltip("precision:Q", format=".1%")]
    line = base.mark_line(point=True).encode(y=y, tooltip=tips)
    chart = (band + line).configure_axis(gridColor=INK, gridOpacity=0.18)
    st.altair_chart(chart, width="stretch", height=260)
    st.caption(
        "The teacher's epoch was chosen on validation, so this is a little kind; the random slice "
        "above is the fair judge."
    )


# Items --------------------------------------------------------------------------------------------


@st.cache_data(show_spinner="Scoring the pool with the teacher…", max_entries=8)
def _border_rows(_ws: Workspace, root: str, number: int) -> list[audit.Border]:
    return audit.borders(_ws, number)


def _borders(ws: Workspace, number: int, out: frozenset[str]) -> None:
    st.caption("The least confident that was kept, and the most confident that was dropped.")
    if not st.toggle("Look at the borders", key=f"a-borders-{number}"):
        st.caption("Where the round did not keep what its teacher said, the pool is scored again.")
        return
    found = _border_rows(ws, str(ws.root), number)
    names = [f"{b.finding}, {b.sign}" for b in found]
    one = found[names.index(st.selectbox("Finding and sign", names, key="a-border"))]
    for title, all_ in (("Kept, just", one.kept), ("Dropped, just", one.dropped)):
        items = [(i, p) for i, p in all_ if i not in out]
        st.markdown(f"**{title}**")
        if items:
            captions = [f"probability {p:.3f}" for _, p in items]
            grid(ws.images, [i for i, _ in items], captions, link=True)
        else:
            st.caption("None.")


@st.cache_data(show_spinner="Asking the model about labeled items…", max_entries=8)
def _contradicted(
    _ws: Workspace, number: int, stage: str, version: tuple[str, int]
) -> list[Contradiction]:
    return contradictions(_ws, number, stage, most=48)


def _contradictions(ws: Workspace, out: frozenset[str]) -> None:
    newest = find_in_use(ws)
    if newest is None:
        st.info("No round has a student yet: run a round that trains.")
        return
    st.caption(
        "Readers and a confident model say the opposite. Of train and validation: the vault is not "
        "looked at."
    )
    if not st.toggle("Look for contradictions", key="a-against"):
        return
    found = _contradicted(ws, newest[0], newest[1].stage, shell.version(ws))
    found = [c for c in found if c.item_id not in out]
    if not found:
        st.caption("None at a confidence of 80 % or more.")
        return
    grid(ws.images, [c.item_id for c in found], [_against(c) for c in found], link=True)


def _against(one: Contradiction) -> str:
    said = ", ".join(sorted({reader for reader, _ in one.readers})) or "import"
    label = "present" if one.label else "absent"
    learned = ", which learned from it" if one.trained_on else ""
    return (
        f"<b>{escape(one.finding)}</b> {label} ({escape(said)})<br>model: {one.probability:.0%}"
        f"{learned}"
    )
