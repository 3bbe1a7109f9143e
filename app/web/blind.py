"""What readers must not see yet: the model's opinion, and labels, of cases that wait to be read."""

from __future__ import annotations

import streamlit as st

from app.web import shell
from app.web.access import Person
from ssl_core.assignment import open_assignments
from ssl_core.reading import panel_in
from ssl_core.workspace import Workspace


def hidden(ws: Workspace, person: Person) -> frozenset[str]:
    """The items that wait, to somebody who reads; nothing is hidden from the other roles."""
    return waiting(ws, shell.version(ws)) if person.role == "reader" else frozenset()


@st.cache_data(show_spinner=False, max_entries=4)
def waiting(_ws: Workspace, version: tuple[str, int]) -> frozenset[str]:
    """The items that somebody still has to read, whether or not they were put in a queue yet."""
    ledger, log = _ws.ledger, _ws.ledger.reading
    assignments = log.assignments()
    open_ = open_assignments(assignments, log.reads(), panel_in(_ws.config))
    asked = {selection.item_id for _, selection in ledger.selected()}
    undealt = asked - {a.item_id for a in assignments} - ledger.labeled_items()
    return frozenset(undealt | {a.item_id for a in open_})
