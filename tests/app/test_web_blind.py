"""What pages keep to themselves: the model's opinion from readers, the vault's labels from all."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest
import streamlit as st

from app.report.build import report
from ssl_core.pictures.map_files import load_map
from ssl_core.pictures.neighbours import features_of, labeled_items, nearest
from ssl_core.workspace import open_workspace
from tests import web, web_workspaces
from tests.web_workspaces import batch, waits

WHEN = datetime(2026, 11, 2, tzinfo=UTC)
NEWEST = web_workspaces.NEWEST
pytestmark = pytest.mark.usefixtures("no_label_studio")


def test_a_reader_sees_no_opinion_of_a_case_that_waits(read, ws):
    for item_id in (waits(ws), web_workspaces.read_by_one(ws)):
        at = web.shown(read, "case", role="reader", item=item_id)
        assert "This case waits to be read" in at.info[0].value
        assert not at.dataframe
        assert not at.get("image")
        assert not web.captions(at)
        at = web.shown(read, "case", role="engineer", item=item_id)
        assert not at.dataframe  # who starts rounds may read too
        web.checked(at.toggle(key=f"k-seal-{item_id}").set_value(True).run())
        assert len(at.dataframe) == 1
    done = web.shown(read, "case", role="reader", item=batch(ws)[0].item_id)
    assert len(done.dataframe) == 1


def test_a_case_that_was_asked_and_not_yet_dealt_out_waits_too(asked, ws, copy):
    web_workspaces.next_round(copy)
    item_id = open_workspace(copy).ledger.selections(4)[0].item_id
    at = web.shown(copy, "case", role="reader", item=item_id)
    assert "This case waits to be read" in at.info[0].value
    assert not at.dataframe


def test_the_case_beside_it_does_not_tell_what_another_reader_said(read, ws):
    half, found = web_workspaces.read_by_one(ws), load_map(ws, NEWEST)
    labeled = labeled_items(ws, found)
    beside = next(
        s.item_id
        for _, s in ws.ledger.selected()
        if s.item_id not in waiting_still(ws)
        and half in near(labeled, features_of(found, s.item_id), s.item_id)
    )
    assert half in web.linked(web.shown(read, "case", item=beside))
    shown = web.linked(web.shown(read, "case", role="reader", item=beside))
    assert len(shown) == 6
    assert half not in shown


def near(labeled, features, item_id: str) -> list[str]:
    return [n.item_id for n in nearest(labeled, features, 6, exclude=item_id)]


def waiting_still(ws) -> set[str]:
    """The newest cases that are to be read, and those that are in dispute."""
    return {s.item_id for s in batch(ws) if s.rank > 3} | set(ws.ledger.reading.disagreements())


@pytest.mark.parametrize("colour", ["score", "uncertainty", "label"])
def test_the_map_keeps_the_opinion_of_a_case_that_waits_from_readers(read, ws, colour):
    place = load_map(ws, NEWEST).place
    known = {}
    for role in ("reader", "engineer"):
        at = web.page(read, "map", role=role).run()
        web.checked(at.selectbox(key="f-colour").set_value(colour).run())
        header, columns = web.plotted(at)
        silent = header["legend"].index("not labeled") if colour == "label" else 65535
        known[role] = columns["colour"] != silent
    rows = [place[waits(ws)], place[web_workspaces.read_by_one(ws)]]
    assert not known["reader"][rows].any()
    assert known["engineer"][rows[1]]  # it has a label and a score
    assert known["reader"][place[batch(ws)[0].item_id]]


def test_the_audit_keeps_it_from_readers_too(read, ws):
    seen = {}
    for role in ("reader", "engineer"):
        at = web.page(read, "audit", role=role).run()
        web.checked(at.toggle(key=f"a-borders-{NEWEST}").set_value(True).run())
        seen[role] = set()
        for name in at.selectbox(key="a-border").options:
            web.checked(at.selectbox(key="a-border").set_value(name).run())
            seen[role] |= set(web.linked(at))
    out = seen["engineer"] - seen["reader"]
    still = waiting_still(ws)
    assert out <= still
    assert seen["reader"].isdisjoint(still)
    assert out


def test_readers_and_leads_can_start_and_promote_nothing(read):
    for role in ("reader", "lead"):
        at = web.page(read, "rounds", role=role).run()
        next(b for b in at.button if b.label.startswith("Hold it against")).click()
        web.checked(at.run())
        labels = {b.label for b in at.button}
        assert not labels & {"Start the round", "Promote", "Roll back to the model before"}
        assert "Starting a round needs the role engineer." in web.text(at)
        assert "Promoting needs the role engineer." in web.text(at)
        assert not at.number_input
        assert not at.text_area


def everything(root) -> dict[str, list[bytes]]:
    """All that a lead's browser is sent, page by page, with everything opened."""
    st.cache_data.clear()
    st.cache_resource.clear()
    vault = open_workspace(root).ledger.items("vault")[0].id
    sent = {}
    for name in web.PAGES:
        at = web.page(root, name, role="lead", item=vault if name == "case" else "").run()
        if name == "rounds":
            next(b for b in at.button if b.label == "Compare").click()
            at.run()
        for toggle in [t.key for t in at.toggle]:
            at.toggle(key=toggle).set_value(True)
            at.run()
        assert not web.checked(at).error
        sent[name] = web.picture_of(at)
    at = web.page(root, "map", role="lead").run()
    for colour in ("score", "reader", "round"):
        at.selectbox(key="f-colour").set_value(colour).run()
        sent[colour] = web.picture_of(web.checked(at))
    sent["report"] = [report(open_workspace(root), WHEN).encode()]
    return sent


def turned(root, split: str) -> None:
    """Turn every label of a split around, behind the ledger's back."""
    file = sqlite3.connect(root / "ledger.db")
    for (name,) in file.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'labels'"
    ).fetchall():
        file.execute(f"DROP TRIGGER {name}")
    file.execute(
        "UPDATE labels SET value = 1 - value WHERE item_id IN "
        "(SELECT id FROM items WHERE split = ?)",
        (split,),
    )
    assert file.total_changes > 20
    file.commit()
    file.close()


def test_no_page_depends_on_vault_labels(copy):
    before = everything(copy)
    turned(copy, "vault")
    after = everything(copy)
    assert {name: sent == after[name] for name, sent in before.items()} == dict.fromkeys(
        before, True
    )
    turned(copy, "train")  # of those the pages do tell: the comparison can fail
    told = everything(copy)
    assert before["map"] != told["map"]
    assert before["audit"] != told["audit"]


def test_the_page_of_a_vault_item_says_that_its_labels_are_sealed(read, ws):
    at = web.shown(read, "case", item=ws.ledger.items("vault")[0].id)
    assert "A vault item: its labels are sealed." in web.text(at)
    assert "Readers say" not in web.text(at)
