"""The Reading page: what waits, who reads, where to go on, and how well readers agree."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app.reading_room import label_studio_room
from app.reading_tables import readers_of
from app.rooms import is_archive
from app.web import shell
from app.web.access import Person
from app.web.charts import INK
from app.web.pictures import grid
from connectors.label_studio.room import LabelStudioRoom, Place
from ssl_core import reading
from ssl_core.assignment import DONE, open_assignments, skipped_by_all
from ssl_core.errors import ReadloopError
from ssl_core.reading import panel_in
from ssl_core.records import Assignment, HeldRead, Selection
from ssl_core.workspace import Workspace

PAGE = 24  # thumbnails at a time
LINKS_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Desk:
    """The reading room as the ledger knows it."""

    assignments: list[Assignment]
    waiting: list[Assignment]
    reads: list[HeldRead]
    selections: dict[str, Selection]
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
        _figures(desk)
        _readers(ws, desk)
    queue, agreement, adjudication = st.tabs(["Queue", "Agreement", "Adjudication"])
    with queue:
        _queue(ws, desk)
    with agreement:
        _agreement(ws)
    with adjudication:
        _adjudication(ws, desk)


@st.cache_data(show_spinner=False, max_entries=4)
def _desk(_ws: Workspace, version: tuple[str, int]) -> Desk:
    log, panel = _ws.ledger.reading, panel_in(_ws.config)
    assignments, reads = log.assignments(), log.reads()
    rounds = _ws.ledger.rounds()
    newest = _ws.ledger.selections(rounds[-1].number) if rounds else []
    return Desk(
        assignments=assignments,
        waiting=open_assignments(assignments, reads, panel),
        reads=reads,
        selections={s.item_id: s for s in newest},
        disputed=log.disagreements(),
        unusable=len(log.unusable()),
        skipped=len(skipped_by_all(assignments, reads, panel)),
    )


def _figures(desk: Desk) -> None:
    figures = {
        "Cases waiting": len({a.item_id for a in desk.waiting}),
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
        st.warning(fault, icon=":material/cloud_off:")
    panel, pace = panel_in(ws.config), {p["reader"]: p for p in _found(ws)["pace"]}
    for reader in (*panel.readers, *([panel.adjudicator] if panel.adjudicator else [])):
        name, bar, speed, go = st.columns([2, 5, 2, 2], vertical_alignment="center")
        done, of = desk.of(reader)
        role = " · adjudicator" if reader == panel.adjudicator else ""
        name.markdown(f"**{_plain(reader)}**{role}")
        bar.progress(done / of if of else 0.0, text=f"{done:,} of {of:,} own cases read")
        seconds = pace.get(reader, {}).get("median_seconds")
        speed.markdown(f"{seconds:.0f} s a read (median)" if seconds else "no timed read yet")
        place = next((p for p in places if p.reader == reader), None)
        if place is not None:
            go.link_button("Next case", place.link, icon=":material/open_in_new:", width="stretch")
    if st.button("Take in what was read", icon=":material/sync:", disabled=bool(fault)):
        _sync(ws)


def _sync(ws: Workspace) -> None:
    """What `readloop sync` does."""
    with st.status("Asking Label Studio…") as status:
        came = reading.sync(ws, label_studio_room(ws))
        for one in came.rejections:
            st.write(f"Not taken: {one.place}: {one.reason}.")
        told = f"{came.reads:,} new reads"
        if came.adjudications:
            told += f", {came.adjudications:,} cases sent to the adjudicator"
        status.update(
            label=f"{told}.", state="complete", expanded=bool(came.rejections or came.adjudications)
        )
    _found.clear()


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


_found.clear = _figures_of_readers.clear  # type: ignore[attr-defined]


# The queue ----------------------------------------------------------------------------------------


def _queue(ws: Workspace, desk: Desk) -> None:
    asked = [s.item_id for s in sorted(desk.selections.values(), key=lambda s: s.rank)]
    if not asked:
        shell.empty(
            "No round has asked for cases yet.", "The first one does.", f"readloop round {ws.root}"
        )
        return
    show, centre, width = st.columns(3)
    which = show.segmented_control("Show", ["All", "To read", "Read"], default="All", key="q-show")
    level = centre.slider("Window centre", 0, 255, 128, key="q-centre")
    span = width.slider("Window width", 1, 255, 255, key="q-width")
    done = {r.item_id: r for r in desk.reads if r.outcome in DONE}
    # One whom another reader still has to read is not answered: the reason would colour that read.
    answered = (done.keys() | _labeled(ws, shell.version(ws))) - {a.item_id for a in desk.waiting}
    chosen = [i for i in asked if which in (None, "All") or (i in answered) == (which == "Read")]
    if not chosen:
        st.caption("None of the newest batch.")
        return
    pages = -(-len(chosen) // PAGE)
    number = st.pagination(pages, key="q-page") if pages > 1 else 1
    here = chosen[(number - 1) * PAGE : number * PAGE]
    captions = [_caption(desk.selections[i], i in answered, done.get(i)) for i in here]
    grid(ws.images, here, captions, centre=level, width=span)
    st.caption(
        f"{len(chosen):,} of {len(asked):,} cases of the newest batch, in the order of asking. Why "
        "a case was chosen is shown once it was read, so that it cannot colour the read."
    )


@st.cache_data(show_spinner=False, max_entries=4)
def _labeled(_ws: Workspace, version: tuple[str, int]) -> frozenset[str]:
    return frozenset(_ws.ledger.labeled_items())


def _caption(selection: Selection, answered: bool, read: HeldRead | None) -> str:
    number = f"<b>{selection.rank + 1}</b> "
    if not answered:
        return number + "to read"
    what = "unusable" if read is not None and read.outcome == "unusable" else "read"
    return f"{number}{what}<br>{escape(selection.reason)}"


# Agreement and adjudication -----------------------------------------------------------------------


def _agreement(ws: Workspace) -> None:
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


def _adjudication(ws: Workspace, desk: Desk) -> None:
    if not desk.disputed:
        shell.empty(
            "No case is in dispute.",
            "A case on which two readers contradict each other comes here.",
        )
        return
    adjudicator = ws.config.reading.adjudicator
    who = (
        f"The adjudicator is {_plain(adjudicator)}."
        if adjudicator
        else ("Nobody decides: name an `adjudicator` under `[reading]` in readloop.toml.")
    )
    count = "1 case" if len(desk.disputed) == 1 else f"{len(desk.disputed):,} cases"
    st.markdown(f"**{count}** on which readers contradict each other. {who}")
    readers = {i: sorted({r.reader for r in desk.reads if r.item_id == i}) for i in desk.disputed}
    here = desk.disputed[:PAGE]
    grid(ws.images, here, [escape(" and ".join(readers[i])) for i in here])


def _plain(text: str) -> str:
    """A name as text in Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>$~:" else c for c in text)
