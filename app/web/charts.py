"""Colours that colour-blind people can tell apart (Okabe and Ito), the same on every page."""

from __future__ import annotations

import altair as alt
import pandas as pd

INK = "#8A939C"  # rules and grids, on light and dark ground alike
COLOURS = {
    "student": "#0072B2",
    "intermediate": "#56B4E9",
    "supervised": "#D55E00",
    "control": "#8A8A8A",
}
"""By a line's role (see `ssl_core.claims.curve`)."""

DASHES = {"control": [6, 4], "supervised": [2, 2], "intermediate": [1, 3]}
"""Lines differ by more than colour."""


def forest(rows: pd.DataFrame, value: str, title: str) -> alt.LayerChart:
    """A value with its interval (`low`, `high`) a `finding`, beside the line of no effect."""
    base = alt.Chart(rows).encode(
        y=alt.Y("finding:N", title=None, sort=None, axis=alt.Axis(labelLimit=320))
    )
    colour = COLOURS["student"]
    bars = base.mark_rule(strokeWidth=2, color=colour).encode(
        x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=8)), x2="high:Q"
    )
    tips = ["finding", *(alt.Tooltip(f"{c}:Q", format=".3f") for c in (value, "low", "high"))]
    dots = base.mark_point(filled=True, size=70, opacity=1, color=colour).encode(
        x=f"{value}:Q", tooltip=tips
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(color=INK, strokeDash=[4, 4])
    return (zero.encode(x="x:Q") + bars + dots).configure_axis(gridColor=INK, gridOpacity=0.18)
