"""The Reading page: what waits, who reads, where to go on, and how well readers agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app.reading_room import label_studio_room
from app.reading_tables import readers_of
from app.rooms import is_archive
from app.web import mask_agreement, reader_evidence, shell
from app.web.access import Person
from app.web.blind import asked_of, waiting
from app.web.charts import INK
from app.web.pictures import grid
from connectors.label_studio.room import LabelStudioRoom, Place
from ssl_core.errors import ReadloopError
from ssl_core.history.truth import unusable_items
from ssl_core.readers import reading
from ssl_core.readers.agreement import pace
from ssl_core.readers.assignment import DONE, skipped_by_all
from ssl_core.readers.reading import panel_in
from ssl_core.records import AGAIN, Assignment, HeldRead, Selection
from ssl_core.workspace import Workspace

PAGE = 24  # thumbnails at a time
LINKS_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Desk:
    """The reading room as the ledger knows it; `selections` are newest first, with their round."""

    assignments: list[Assignment]
    waiting: list[Assignment]
    reads: list[HeldRead]
    selections: dict[str, tuple[int, Selection]]
    disputed: list[str]
    unusable: int
    skipped: int

    def of(self, reader: str) -> tuple[int, int]:
        """How many of a reader's own cases are done, and how many there are."""
        own = {a.item_id for a in self.assignments if a.reader == reader and a.primary}
        open_ = {a.item_id for a in self.waiting if a.reader == reader}
        return len(own - open_), len(own)


def page(ws: Workspace, person: Person) -> None:
    """Show the page."""
    shell.heading("Reading", "Cases that wait for a radiologist, and what readers made of them.")
    desk = _desk(ws, shell.version(ws))
    if is_archive(ws):
        st.info(
            "A simulated reader answers in this workspace, from labels that the import hid. Nobody "
            "has to read.",
            icon=":material/smart_toy:",
        )
    elif not desk.assignments:
        shell.empty(
            "Nothing was put in front of readers yet.",
            "Validation and vault come first, then what each round asks for.",
            f"readloop label-studio up {ws.root}\nreadloop queue {ws.root}",
        )
    else:
        _figures(ws, desk)
        _readers(ws, desk)
    tabs = {
        "Queue": _queue,
        "Agreement": _agreement,
        "Adjudication": _adjudication,
        "Time": reader_evidence.time,
        "Hints": reader_evidence.hints,
        "Second reads": reader_evidence.second_reads,
    }
    for tab, show in zip(
        st.tabs(list(tabs), key="r-tabs", on_change="rerun"), tabs.values(), strict=True
    ):
        if tab.open:  # agreement takes seconds where there are many reads
            with tab:
                show(ws, desk)


@st.cache_resource(show_spinner=False, max_entries=4)
def _desk(_ws: Workspace, version: tuple[str, int]) -> Desk:
    log, asked = _ws.ledger.reading, asked_of(_ws, version)
    selected = sorted(_ws.ledger.selected(), key=lambda one: (-one[0], one[1].rank))
    return Desk(
        assignments=asked.assignments,
        waiting=asked.open,
        reads=asked.reads,
        selections={s.item_id: (number, s) for number, s in selected},
        disputed=log.disagreements(),
        unusable=len(unusable_items(asked.reads)),
        skipped=len(skipped_by_all(asked.assignments, asked.reads, panel_in(_ws.config))),
    )


def _figures(ws: Workspace, desk: Desk) -> None:
    figures = {
        "With readers": len({a.item_id for a in desk.waiting}),
        "Not dealt yet": len(_undealt(ws, desk)),
        "Reads done": sum(r.outcome in DONE for r in desk.reads),
        "In dispute": len(desk.disputed),
        "Unusable": desk.unusable,
        "Skipped by all": desk.skipped,
    }
    for column, (name, value) in zip(st.columns(len(figures)), figures.items(), strict=True):
        column.metric(name, f"{value:,}", border=True)


def _readers(ws: Workspace, desk: Desk) -> None:
    places, fault = _places(ws, str(ws.root))
    if fault:
        st.warning(shell.said(fault), icon=":material/cloud_off:")
    panel, paces = panel_in(ws.config), _paces(ws, shell.version(ws))
    for reader in panel.desks:
        done, of = desk.of(reader)
        if reader.endswith(AGAIN) and not of:
            continue
        name, bar, speed, go = st.columns([2, 5, 2, 2], vertical_alignment="center")
        role = " · adjudicator" if reader == panel.adjudicator else ""
        name.markdown(f"**{shell.plain(reader)}**{role}")
        bar.progress(done / of if of else 0.0, text=f"{done:,} of {of:,} own cases read")
        seconds = paces.get(reader, math.nan)
        timed = not math.isnan(seconds)
        speed.markdown(f"{seconds:.0f} s a read (median)" if timed else "no timed read yet")
        place = next((p for p in places if p.reader == reader), None)
        if place is not None:
            go.link_button("Next case", place.link, icon=":material/open_in_new:", width="stretch")
    take, deal, _ = st.columns([2, 2, 5])
    if take.button(
        "Take in what was read", icon=":material/sync:", disabled=bool(fault), width="stretch"
    ):
        _sync(ws)
    if _undealt(ws, desk) and deal.button(
        "Deal out new cases", icon=":material/playlist_add:", disabled=bool(fault), width="stretch"
    ):
        _deal(ws)


def _undealt(ws: Workspace, desk: Desk) -> set[str]:
    """What rounds asked for and nobody was given yet."""
    dealt = {a.item_id for a in desk.assignments}
    return {i for i in waiting(ws, shell.version(ws)) if i in desk.selections and i not in dealt}


def _deal(ws: Workspace) -> None:
    """What `readloop queue` does."""
    with st.status("Bringing the queues up to date…") as status:
        done = reading.queue(ws, label_studio_room(ws))
        told = ", ".join(f"{shell.plain(r)} {n:,}" for r, n in done.waiting.items())
        status.update(label=f"Waiting now: {told}.", state="complete")
    st.rerun()


def _sync(ws: Workspace) -> None:
    """What `readloop sync` does."""
    with st.status("Asking Label Studio…") as status:
        came = reading.sync(ws, label_studio_room(ws))
        for one in came.rejections:
            st.write(shell.plain(f"Not taken: {one.place}: {one.reason}."))
        told = f"{came.reads:,} new reads"
        if came.adjudications:
            told += f", {came.adjudications:,} cases sent to the adjudicator"
        status.update(
            label=f"{told}.", state="complete", expanded=bool(came.rejections or came.adjudications)
        )


@st.cache_data(show_spinner=False, max_entries=4)
def _paces(_ws: Workspace, version: tuple[str, int]) -> dict[str, float]:
    """Median seconds a read, by reader; NaN where no read has a time."""
    found = pace(asked_of(_ws, version).reads, _ws.config.reading.idle_cut_seconds)
    return {one.reader: one.median_seconds for one in found}


@st.cache_data(show_spinner=False, ttl=LINKS_SECONDS, max_entries=4)
def _places(_ws: Workspace, root: str) -> tuple[list[Place], str]:
    """Each reader's link, or the sentence that says why there is none."""
    try:
        room: LabelStudioRoom = label_studio_room(_ws)
        return room.places(), ""
    except ReadloopError as error:
        return [], str(error)


def _found(ws: Workspace) -> dict[str, Any]:
    return _figures_of_readers(ws, shell.version(ws))


@st.cache_data(show_spinner=False, max_entries=4)
def _figures_of_readers(_ws: Workspace, version: tuple[str, int]) -> dict[str, Any]:
    return readers_of(_ws)


# The queue ----------------------------------------------------------------------------------------


def _queue(ws: Workspace, desk: Desk) -> None:
    if not desk.selections:
        shell.empty(
            "No round has asked for cases yet.", "The first one does.", f"readloop round {ws.root}"
        )
        return
    show, centre, width = st.columns(3)
    which = show.segmented_control(
        "Show", ["To read", "Read"], default="To read", required=True, key="q-show"
    )
    level = centre.slider("Window centre", 0, 255, 128, key="q-centre")
    span = width.slider("Window width", 1, 255, 255, key="q-width")
    unread = waiting(ws, shell.version(ws))
    chosen = [i for i in desk.selections if (i in unread) == (which == "To read")]
    if not chosen:
        st.caption("All that rounds have asked for is read." if which == "To read" else "None yet.")
        return
    pages = -(-len(chosen) // PAGE)
    number = st.pagination(pages, key="q-page") if pages > 1 else 1
    here = chosen[(number - 1) * PAGE : number * PAGE]
    done = {r.item_id: r for r in desk.reads if r.outcome in DONE}
    captions = [_caption(*desk.selections[i], i not in unread, done.get(i)) for i in here]
    grid(ws.images, here, captions, centre=level, width=span, link=which == "Read")
    st.caption(
        f"{len(chosen):,} cases that rounds asked for, newest round first, in the order of asking. "
        "Why a case was chosen is shown once it was read, so that it cannot colour the read. "
        f"Pictures are as the model sees them ({ws.images.size} px); readers see the originals."
    )


def _caption(round_: int, selection: Selection, answered: bool, read: HeldRead | None) -> str:
    number = f"<b>{round_}.{selection.rank + 1}</b> "
    if not answered:
        return number + "to read"
    if read is None:
        return number + "skipped by all"
    what = "unusable" if read.outcome == "unusable" else "read"
    return f"{number}{what}<br>{escape(selection.reason)}"


# Agreement and adjudication -----------------------------------------------------------------------


def _agreement(ws: Workspace, desk: Desk) -> None:
    found = _found(ws)
    if not found["agreement"]:
        shell.empty(
            "No two readers have read the same case yet.",
            "A share of the cases goes to two readers (`overlap_share` under `[reading]`); "
            "agreement is of blind reads outside the vault.",
        )
        return
    table = pd.DataFrame(found["agreement"])
    table["pair"] = [" and ".join(pair) for pair in table["readers"]]
    base = alt.Chart(table).encode(y=alt.Y("finding:N", title=None), color=alt.Color("pair:N"))
    scale = alt.Scale(domain=[min(0.0, float(table["low"].min())), 1.0])
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="Cohen's kappa, 95 % interval", scale=scale), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("kappa:Q", scale=scale),
        tooltip=["finding", "pair", "kappa", "low", "high", "agreed", "n", "unsure"],
    )
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color=INK, opacity=0.3).encode(x="x:Q")
    st.altair_chart(zero + bars + points, width="stretch")
    shown = table[["finding", "pair", "kappa", "low", "high", "agreed", "n", "unsure"]]
    st.dataframe(
        shown,
        hide_index=True,
        column_config={
            "kappa": st.column_config.NumberColumn(format="%.2f"),
            "low": st.column_config.NumberColumn("95 % from", format="%.2f"),
            "high": st.column_config.NumberColumn("to", format="%.2f"),
            "agreed": st.column_config.NumberColumn("agreed on", format="percent"),
            "n": "items",
        },
    )
    st.caption(found["truth"])
    mask_agreement.show(ws)


def _adjudication(ws: Workspace, desk: Desk) -> None:
    if not desk.disputed:
        shell.empty(
            "No case is in dispute.",
            "A case on which two readers contradict each other comes here.",
        )
        return
    adjudicator = ws.config.reading.adjudicator
    who = (
        f"The adjudicator is {shell.plain(adjudicator)}."
        if adjudicator
        else ("Nobody decides: name an `adjudicator` under `[reading]` in readloop.toml.")
    )
    count = "1 case" if len(desk.disputed) == 1 else f"{len(desk.disputed):,} cases"
    st.markdown(f"**{count}** on which readers contradict each other. {who}")
    readers = {i: sorted({r.reader for r in desk.reads if r.item_id == i}) for i in desk.disputed}
    here = desk.disputed[:PAGE]
    grid(ws.images, here, [escape(" and ".join(readers[i])) for i in here])
