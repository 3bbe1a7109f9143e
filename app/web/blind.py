"""What readers must not see yet: the model's opinion, and labels, of cases that wait to be read."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app.web import shell
from app.web.access import Person
from ssl_core.readers.assignment import open_assignments
from ssl_core.readers.reading import panel_in
from ssl_core.records import Assignment, HeldRead
from ssl_core.workspace import Workspace


def hidden(ws: Workspace, person: Person) -> frozenset[str]:
    """The items that wait, to somebody who reads; nothing is hidden from the other roles."""
    return waiting(ws, shell.version(ws)) if person.role == "reader" else frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked, what they did, and what is still open, as the ledger has it."""

    assignments: list[Assignment]
    reads: list[HeldRead]
    open: list[Assignment]


@st.cache_resource(show_spinner=False, max_entries=4)  # as a resource: nothing is copied
def asked_of(_ws: Workspace, version: tuple[str, int]) -> Asked:
    """The reading room's side of the ledger, read once for a version of it."""
    log = _ws.ledger.reading
    assignments, reads = log.assignments(), log.reads()
    return Asked(assignments, reads, open_assignments(assignments, reads, panel_in(_ws.config)))


@st.cache_resource(show_spinner=False, max_entries=4)
def waiting(_ws: Workspace, version: tuple[str, int]) -> frozenset[str]:
    """The items that somebody still has to read, whether or not they were put in a queue yet."""
    ledger, asked = _ws.ledger, asked_of(_ws, version)
    selected = {selection.item_id for _, selection in ledger.selected()}
    undealt = selected - {a.item_id for a in asked.assignments} - ledger.labeled_items()
    return frozenset(undealt | {a.item_id for a in asked.open})
