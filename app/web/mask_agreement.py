"""How far readers' masks agree, on the pages: beside kappa, which asks whether both see it."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from app.mask_agreement import MEANING, mask_agreement_of
from app.web import shell
from ssl_core.evidence import Estimate
from ssl_core.readers.mask_agreement import MaskAgreement
from ssl_core.workspace import Workspace


def show(ws: Workspace, *, weighted: bool = False) -> None:
    """A table of Dice by pair of readers; nothing where nothing is drawn in this workspace."""
    if ws.ledger.task.kind != "segmentation":
        return
    shell.section("How far their masks agree")
    found = _found(ws, shell.version(ws), weighted)
    if not found:
        st.caption("No two readers have drawn on the same case blind yet.")
        return
    st.dataframe(pd.DataFrame([_row(one) for one in found]), hide_index=True, width="stretch")
    st.caption(MEANING + (" Weighted to speak of the pool." if weighted else ""))


@st.cache_data(show_spinner="Comparing masks…", max_entries=4)
def _found(_ws: Workspace, version: tuple[str, int], weighted: bool) -> list[MaskAgreement]:
    return mask_agreement_of(_ws, weighted=weighted)


def _row(one: MaskAgreement) -> dict[str, object]:
    return {
        "finding": one.finding,
        "readers": " and ".join(one.readers),
        "Dice [95 %]": _said(one.dice),
        "items": one.dice.n,
        "Dice where drawn [95 %]": _said(one.drawn),
        "drawn": one.drawn.n,
        "both absent": one.both_absent,
        "could not tell": one.unsure,
    }


def _said(found: Estimate) -> str:
    if math.isnan(found.value):
        return "–"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
