"""The Overview page: what a lead tells the sponsor, and the label-cost curve behind it."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app.claim_words import beside, by_chance, name_of, of_chance
from app.web import report_button, shell
from app.web.access import Person
from app.web.charts import COLOURS, DASHES, INK
from ssl_core.claims.claim import Claim, claim
from ssl_core.claims.cost import Cost
from ssl_core.claims.curve import MACRO, Curve, Line, label_cost
from ssl_core.claims.promotion import find_in_use
from ssl_core.claims.proof import Proof, outlook_sentences, proof, replay_sentences
from ssl_core.tell import ratio
from ssl_core.workspace import Workspace

AXES = {"labels": "Training labels", "hours": "Reader-hours", "money": "Money"}


def page(ws: Workspace, person: Person) -> None:
    """Show the page."""
    shell.heading("Overview", "What the labels bought, beside what chance would have bought.")
    curve, told, proven = _evidence(ws, shell.version(ws), _replayed(ws))
    measured = told.text.partition(" Not known:")[0] + beside(curve, told)
    st.html(f'<p class="rl-claim">{escape(measured)}</p>')
    report_button.show(ws)
    if told.point is not None and told.unknown:
        st.caption("Not known: " + "; ".join(told.unknown) + ".")
    if told.point is None:
        _start(ws)
        return
    _figures(told, proven, curve.metric)
    _tested(proven)
    _plot(curve)
    _spent(curve)


@st.cache_resource(show_spinner=False, max_entries=4)
def _evidence(
    _ws: Workspace, version: tuple[str, int], replayed: int
) -> tuple[Curve, Claim, Proof]:
    curve, used = label_cost(_ws), find_in_use(_ws)
    told = claim(curve, None if used is None else (used[0], used[1].stage))
    return curve, told, proof(_ws, curve=curve)


def _replayed(ws: Workspace) -> int:
    """When a replay was last written to; its arms have ledgers of their own."""
    parts = ("*/*/ledger.db*", "*/*/rounds/*/evidence.npz")
    written = (path for part in parts for path in (ws.root / "simulations").glob(part))
    return max((path.stat().st_mtime_ns for path in written), default=0)


def _start(ws: Workspace) -> None:
    shell.empty(
        "No model has been measured yet.",
        f"A round trains once the labels hold {_lesson(ws)}, and is measured on validation "
        "and vault. Start one on the page Rounds, or:",
        f"readloop round {ws.root}",
    )


def _lesson(ws: Workspace) -> str:
    return "a mask" if ws.ledger.task.kind == "segmentation" else "two sides of a finding"


MARKS = {"better": "success", "worse": "error", "broken": "error", "not told": "info"}


def _tested(proven: Proof) -> None:
    """The verdict, then forecast and stop advice, of the own rounds and of each replay."""
    shell.section("Held against chance")
    said = dict.fromkeys([proven.verdict, *(one.verdict for one in proven.replayed)])
    for one in said:
        getattr(st, MARKS[one.state])(shell.plain(one.sentence))
    if proven.own is not None:
        _list(outlook_sentences(proven.own, proven.metric))
    for replayed in proven.replayed:
        _list(replay_sentences(replayed, proven.currency, proven.metric)[1:])
    if not proven.replayed:
        st.caption("On an archive, `readloop replay` measures what selection saved.")


def _list(sentences: list[str]) -> None:
    st.html("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>")


def _figures(told: Claim, proven: Proof, metric: str) -> None:
    point, at = told.point, told.evaluation
    assert point is not None
    auroc, columns = point.auroc, st.columns(4)
    columns[0].metric(
        f"{metric} on the vault",
        _number(auroc.value),
        help=f"95 % interval over patients, {auroc.n:,} items",
        border=True,
        delta=f"{_number(auroc.low)} to {_number(auroc.high)}",
        delta_color="off",
        delta_arrow="off",
    )
    evaluation = sum(c.labels for c in at.evaluation) if at else None
    columns[1].metric(
        "Training labels",
        f"{point.labels:,}",
        delta=f"+{evaluation:,} to measure" if evaluation is not None else "a replay",
        delta_color="off",
        delta_arrow="off",
        border=True,
    )
    hours = at.train.hours if at else point.hours
    columns[2].metric(
        "Reader-hours",
        f"{hours:,.1f} h" if hours is not None else "not known",
        delta="no timed reads" if hours is None else "for training",
        help=at.train.reason if at and hours is None else None,
        delta_color="off",
        delta_arrow="off",
        border=True,
    )
    of = [one for one in proven.replayed if told.line and one.strategy == told.line.strategy]
    if told.origin == "replay" and of:
        columns[3].metric(
            f"Labels, of {of[0].saved.control:,.0f} by chance",
            ratio(of[0].saved.labels, of[0].saved.control).partition(" [")[0],
            help=f"Labels for the {metric} that the random control has with its largest budget, "
            "divided by that budget; 95 % over seeds and test cases.",
            delta=ratio(of[0].saved.labels, of[0].saved.control).partition(" [")[2].rstrip("]"),
            delta_color="off",
            delta_arrow="off",
            border=True,
        )
        return
    columns[3].metric(
        "Chance would need",
        by_chance(told),
        help=f"Training labels with which the {of_chance(told)} reached the same {metric}.",
        delta="labels" if told.control else "no control yet",
        delta_color="off",
        delta_arrow="off",
        border=True,
    )


# The curve ----------------------------------------------------------------------------------------


def _plot(curve: Curve) -> None:
    rows = pd.DataFrame([row for line in curve.lines for row in _rows(line)])
    if rows.empty:
        return
    of, along, source = st.columns([2, 3, 2])
    finding = of.selectbox("Finding", curve.findings, format_func=_finding, key="o-finding")
    known = [axis for axis in AXES if rows[axis].notna().any()]
    axis = along.segmented_control(
        "Along", known, default=known[0], format_func=AXES.get, key="o-axis"
    )
    origins = sorted(rows["origin"].unique(), reverse=True)
    origin = source.segmented_control(
        "Of", origins, default=origins[0], format_func=_origin, key="o-origin"
    )
    axis, origin = axis or known[0], origin or origins[0]
    # Both controls stand beside the workspace's own rounds.
    shown = (rows["origin"] == origin) | (rows["role"] == "control")
    here = rows[(rows["finding"] == finding) & shown].dropna(subset=[axis])
    if here.empty:
        st.caption("Nothing is known along this axis: a replay has labels, but nobody's time.")
        return
    st.altair_chart(_chart(here, axis, curve), width="stretch", height=380)
    if known == ["labels"]:
        priced = "and money appear" if curve.currency else "appear"
        money = "" if curve.currency else "; money once `[cost] per_hour` is set in readloop.toml"
        st.caption(f"Reader-hours {priced} once reads carry a time{money}.")


def _rows(line: Line) -> list[dict[str, Any]]:
    return [
        {
            "finding": line.finding,
            "origin": line.origin,
            "line": name_of(line),
            "role": line.role,
            "labels": p.labels,
            "hours": p.hours,
            "money": p.money,
            "value": p.auroc.value,
            "low": p.auroc.low,
            "high": p.auroc.high,
            "round": p.round,
        }
        for p in line.points
    ]


def _chart(rows: pd.DataFrame, axis: str, curve: Curve) -> alt.LayerChart:
    title = AXES[axis] + (f", {curve.currency}" if axis == "money" and curve.currency else "")
    names = list(dict.fromkeys(rows["line"]))
    roles = [rows.loc[rows["line"] == name, "role"].iloc[0] for name in names]
    colour = alt.Color(
        "line:N",
        title=None,
        scale=alt.Scale(domain=names, range=[COLOURS[r] for r in roles]),
        legend=alt.Legend(
            orient="top",
            labelLimit=300,
            symbolType="stroke",
            symbolOpacity=1,
            symbolSize=400,
            symbolStrokeWidth=2.5,
        ),
    )
    dashes = alt.Scale(domain=names, range=[DASHES.get(r, [1, 0]) for r in roles])
    dash = alt.StrokeDash("line:N", scale=dashes, title=None)
    low = float(rows["low"].fillna(rows["value"]).min())
    scale = alt.Scale(domain=[max(0.0, math.floor(low * 20) / 20), 1.0], clamp=True)
    ticks = alt.Axis(tickCount=8, format=",.1f" if axis == "hours" else ",.0f")
    x = alt.X(f"{axis}:Q", title=title, scale=alt.Scale(zero=False, padding=18), axis=ticks)
    base = alt.Chart(rows).encode(x=x, color=colour)
    y = alt.Y("value:Q", title=f"{curve.metric} on the vault, 95 % interval", scale=scale)
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    path = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash, order="round:Q")
    tips = [
        alt.Tooltip("line:N", title="model"),
        alt.Tooltip(f"{axis}:Q", title=title, format=",.1f"),
        alt.Tooltip("value:Q", title=curve.metric, format=".3f"),
        *(alt.Tooltip(f"{c}:Q", format=".3f") for c in ("low", "high")),
        alt.Tooltip("round:Q"),
    ]
    dots = base.mark_point(filled=True, size=55, opacity=1).encode(y=y, tooltip=tips)
    bars = base.mark_rule(opacity=0.45).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    return (band + bars + path + dots).configure_axis(gridColor=INK, gridOpacity=0.18)


def _finding(name: str) -> str:
    return "all findings (macro)" if name == MACRO else name


def _origin(origin: str) -> str:
    return {"rounds": "this workspace", "replay": "the replay"}[origin]


# What it cost -------------------------------------------------------------------------------------


def _spent(curve: Curve) -> None:
    shell.section("Spent so far")
    now = curve.now
    parts = {"train": now.train, "validation": now.validation, "vault": now.vault}
    rows = [{"part": name, **_cells(cost, curve.currency)} for name, cost in parts.items()]
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    if untimed := sum(c.untimed for c in parts.values()):
        assumed = next((c.assumed for c in parts.values() if c.assumed), None)
        taken = f", and count as {assumed:.0f} s each, the mean of the others" if assumed else ""
        st.caption(f"{untimed:,} reads came without a time{taken}.")


def _cells(cost: Cost, currency: str | None) -> dict[str, str]:
    cells = {
        "labeled items": f"{cost.labels:,}",
        "of them imported": f"{cost.imported:,}",
        "reads": f"{cost.reads:,}",
        "reader-hours": f"{cost.hours:,.2f} h" if cost.hours is not None else "–",
    }
    if currency:
        cells["money"] = f"{cost.money:,.0f} {currency}" if cost.money is not None else "–"
    return cells


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
