"""The Audit page's view of the whole pool: how common findings are, how far readers agree."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from app.web import mask_agreement, shell
from app.web.words import interval, percent
from ssl_core.auditing.pool_reads import prevalence, weigher
from ssl_core.evidence import Estimate
from ssl_core.history.truth import label_matrix
from ssl_core.metrics import prevalence as plain_prevalence
from ssl_core.readers.agreement import Agreement, agreement
from ssl_core.readers.reader_evidence import fair_reads
from ssl_core.workspace import Workspace


def show(ws: Workspace) -> None:
    """Prevalence and agreement, weighted beside unweighted."""
    shell.section("How common each finding is in the train pool")
    rows = _prevalence(ws, shell.version(ws))
    st.dataframe(rows, hide_index=True, width="stretch")
    st.caption(
        "Weighted: what the strategy asked for counts once, each read of the random slice stands "
        "for the items that nobody asked for. Plain: the share among what was read, which is of "
        "hard cases."
    )
    shell.section("How far readers agree, on the pool")
    agreed = _agreement(ws, shell.version(ws))
    if agreed.empty:
        st.caption("No two readers have read the same case blind yet.")
        return
    st.dataframe(agreed, hide_index=True, width="stretch")
    st.caption(
        "Readers agree less on a queue of hard cases than they would on the pool, train and "
        "validation together, which the weighted numbers speak of. Worth: as many items of equal "
        "weight."
    )
    mask_agreement.show(ws, weighted=True)


@st.cache_data(show_spinner=False, max_entries=4)
def _prevalence(_ws: Workspace, version: tuple[str, int]) -> pd.DataFrame:
    ledger = _ws.ledger
    items = ledger.items("train")
    labels = label_matrix(
        [i.id for i in items], ledger.labels(splits=["train"]), ledger.task.findings
    )
    plain = plain_prevalence(labels, [i.group for i in items]).findings
    found = prevalence(ledger)
    return pd.DataFrame(
        [
            {
                "finding": finding,
                "weighted [95 %]": interval(estimate),
                "plain": percent(raw.estimate.value),
                "labels": raw.estimate.n,
            }
            for (finding, estimate), raw in zip(found.items(), plain, strict=True)
        ]
    )


@st.cache_data(show_spinner=False, max_entries=4)
def _agreement(_ws: Workspace, version: tuple[str, int]) -> pd.DataFrame:
    ledger = _ws.ledger
    blind = fair_reads(ledger.reading.reads(), ledger.reading.rereads())
    groups = {item.id: item.group for item in ledger.items()}
    plain = agreement(ledger.labels(), blind, groups)
    weighted = agreement(ledger.labels(), blind, groups, weigher(ledger))
    return pd.DataFrame([_row(w, p) for w, p in zip(weighted, plain, strict=True)])


def _row(weighted: Agreement, plain: Agreement) -> dict[str, object]:
    agreed = Estimate(weighted.agreed, weighted.agreed_low, weighted.agreed_high, weighted.n)
    return {
        "finding": weighted.finding,
        "readers": " and ".join(weighted.readers),
        "kappa, weighted [95 %]": _kappa(weighted),
        "kappa, plain [95 %]": _kappa(plain),
        "agreed on, weighted [95 %]": interval(agreed),
        "agreed on, plain": percent(plain.agreed),
        "items": plain.n,
        "worth": f"{weighted.worth:.0f}",
    }


def _kappa(one: Agreement) -> str:
    if math.isnan(one.kappa):
        return "–"
    return f"{one.kappa:.2f} [{one.low:.2f}, {one.high:.2f}]"
