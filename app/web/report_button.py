"""The Overview page's button for the report, made when it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from app.report.build import report
from ssl_core.workspace import Workspace


def show(ws: Workspace) -> None:
    """Offer the report as one HTML file, with or without names."""
    with st.popover("Report", icon=":material/description:"):
        st.caption("Curve, claims, data card, audit, readers and lineage in one file to forward.")
        anonymous = st.checkbox("Number the readers instead of naming them", key="o-anonymous")
        st.download_button(
            "Download report",
            lambda: report(ws, datetime.now(UTC), anonymous=anonymous),
            file_name=f"{ws.root.resolve().name}-report.html",
            mime="text/html",
            on_click="ignore",
            key="o-report",
        )
