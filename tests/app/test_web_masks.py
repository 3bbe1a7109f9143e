"""Every page where masks are drawn: before the first round, after one, after several."""

from __future__ import annotations

import re
import shutil
import sqlite3
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest
import streamlit as st
from PIL import Image

from app.report.build import report
from ssl_core.auditing.pseudo_masks import iterations
from ssl_core.config import save_config
from ssl_core.drawings import overlap
from ssl_core.probabilities import labeled, stage_model
from ssl_core.records import Assignment
from ssl_core.workspace import CONFIG_FILE, open_workspace
from tests import mask_workspaces, toy, web
from tests.mask_workspaces import NEWEST

WHEN = datetime(2026, 11, 2, tzinfo=UTC)
MODELS = ("teacher 0a", "teacher 0b", "student")
pytestmark = pytest.mark.usefixtures("no_label_studio")


@pytest.fixture(scope="module")
def ws(drawn):
    return open_workspace(drawn)


@pytest.fixture
def copy(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "w")


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """Before the first round, and after a cold one."""
    folder = tmp_path_factory.mktemp("early")
    return {
        "empty": mask_workspaces.empty(folder / "empty"),
        "asked": mask_workspaces.asked(folder / "asked"),
    }


def read_case(ws) -> str:
    """A training item that shows both findings, as the reader says."""
    items = labeled(ws, "train")
    return items.ids[int(np.flatnonzero((items.labels == 1).all(axis=1))[0])]


@pytest.mark.parametrize("page", web.PAGES)
@pytest.mark.parametrize("state", ["empty", "asked"])
def test_every_page_opens_before_anything_is_trained(early, state, page):
    at = web.shown(early[state], page)
    assert not at.error
    assert "AUROC" not in web.text(at)
    if page == "audit":
        assert "No model that draws masks has been measured yet." in web.text(at)
    if page == "overview":
        assert "A round trains once the labels hold a mask" in web.text(at)


@pytest.mark.parametrize("page", web.PAGES)
@pytest.mark.parametrize("role", ["reader", "engineer"])
def test_every_page_opens_after_rounds_and_speaks_of_dice(drawn, page, role):
    at = web.shown(drawn, page, role=role)
    assert not at.error
    assert "AUROC" not in web.text(at)
    assert not any("AUROC" in str(c) for d in at.dataframe for c in d.value.columns)


def test_overview_shows_the_dice_that_was_measured(drawn, ws):
    at = web.shown(drawn, "overview")
    shown = float(web.metrics(at)["Dice on the vault"])
    measured = {
        round(m.value, 3)
        for _, m in ws.ledger.measurements()
        if (m.split, m.finding, m.name) == ("vault", "macro", "dice")
    }
    assert shown in measured
    assert "training labels, Dice on the vault is" in web.text(at)


def test_rounds_offers_what_fits_and_compares_by_dice(drawn):
    at = web.page(drawn, "rounds").run()
    recipes = at.selectbox(key="r-from").options
    assert any("fixmatch_masks" in name for name in recipes)
    assert not any("teacher_student" in name for name in recipes)
    strategies = at.selectbox(key="r-strategy").options
    assert "foreground_random" in strategies
    assert "margin" not in strategies
    assert "vault Dice [95 %]" in at.dataframe[0].value.columns
    next(b for b in at.button if b.label == "Compare").click()
    web.checked(at.run())
    assert not at.error
    assert "Dice on the same validation items" in web.text(at)
    assert any("Dice 0." in caption or "Dice 1." in caption for caption in web.captions(at))
    next(b for b in at.button if b.label.startswith("Hold it against")).click()
    web.checked(at.run())
    verdict = [*at.success, *at.warning][0].value
    assert "paired by patient): Dice " in web.plain(verdict)


# The case -----------------------------------------------------------------------------------------


def images(at) -> list[str]:
    """The captions of all pictures, "" for none."""
    return [web.plain(p.caption) for e in at.get("image") for p in e.proto.imgs]


def test_a_case_shows_reader_teacher_and_student_with_their_dice(drawn, ws):
    item_id = read_case(ws)
    at = web.shown(drawn, "case", item=item_id)
    overlay, *panels = images(at)
    assert overlay.startswith(f"item {item_id[:12]} (train")
    assert panels[0] == "simulated reader"
    items = labeled(ws, "train")
    place = items.ids.index(item_id)
    for model, panel in zip(MODELS, panels[1:], strict=True):
        expected = overlap(ws, NEWEST, stage_model(ws, NEWEST, model), items)[place, 0]
        assert panel.startswith(f"{model}: Dice {expected:.3f}")
    table = at.dataframe[0].value.set_index("finding")
    assert table.loc["Bar", "readers, area"] == f"{1 / 16:.1%}"  # one row of 16
    assert table.loc["Spot", "readers, area"] == f"{16 / 256:.1%}"
    assert "Readers say: Spot **present**, Bar **present**." in web.text(at)
    assert len(web.linked(at)) == 6


def overlaid(at) -> str:
    """The address of the picture that all layers lie over: another picture has another."""
    return at.get("image")[0].proto.imgs[0].url


def test_layers_are_toggled_filled_and_faded(drawn, ws):
    at = web.page(drawn, "case", item=read_case(ws)).run()
    first = overlaid(web.checked(at))
    assert [t.value for t in at.toggle][:4] == [True, True, False, True]
    for place in (0, 1, 3):
        at.toggle(key=f"k-on-{place}").set_value(False)
    bare = overlaid(web.checked(at.run()))
    assert bare != first
    contour = overlaid(web.checked(at.toggle(key="k-on-0").set_value(True).run()))
    filled = web.checked(at.segmented_control(key="k-style-0").set_value("Fill").run())
    fill = overlaid(filled)
    faded = overlaid(web.checked(at.slider(key="k-opacity-0-Fill").set_value(0).run()))
    assert len({first, bare, contour, fill}) == 4
    assert faded == bare
    web.checked(at.selectbox(key="k-finding").set_value("Bar").run())
    assert not at.error


def put_before_ana(root, item_id: str) -> None:
    """From here on people read, and ana has this case in front of her."""
    ws = open_workspace(root)
    people = ws.config.changed(reading={"room": "label_studio", "readers": ["ana"]})
    save_config(people, root / CONFIG_FILE)
    ws.ledger.reading.assign([Assignment(item_id, "ana", 0, 0)])
    ws.ledger.close()


def test_a_case_that_waits_shows_a_reader_no_mask(copy, ws):
    item_id = ws.ledger.selections(NEWEST)[0].item_id
    put_before_ana(copy, item_id)
    at = web.shown(copy, "case", role="reader", item=item_id)
    assert "This case waits to be read" in at.info[0].value
    assert not at.get("image")
    assert not at.dataframe
    at = web.shown(copy, "case", item=item_id)
    web.checked(at.toggle(key=f"k-seal-{item_id}").set_value(True).run())
    assert images(at)[1].startswith("teacher 0a")  # nobody has drawn it


def test_a_vault_case_shows_no_readers_mask_and_no_dice(drawn, ws):
    at = web.shown(drawn, "case", item=ws.ledger.items("vault")[0].id)
    assert "A vault item: its labels are sealed." in web.text(at)
    assert [caption.split(",")[0] for caption in images(at)[1:]] == list(MODELS)
    assert not any("Dice" in caption for caption in images(at))
    assert set(at.dataframe[0].value["readers, area"]) == {"–"}


def test_two_readers_who_disagree_are_shown_apart_and_together(copy):
    """The second reader says that nothing is there: no pixel has a majority."""
    ws = open_workspace(copy)
    item_id = read_case(ws)
    (mine,) = [x for x in ws.ledger.labels() if (x.item_id, x.finding) == (item_id, "Spot")]
    other = type(mine)(item_id, "Spot", 0.0, "ben", "label_studio", "by hand")
    ws.ledger.add_labels([other])
    at = web.shown(copy, "case", item=item_id)
    assert [c.split(":")[0] for c in images(at)[1:4]] == [
        "readers together, draws nothing",
        "simulated reader",
        "ben, draws nothing",
    ]


def test_an_uploaded_image_is_drawn_by_every_model(drawn):
    at = web.page(drawn, "case").run()
    web.checked(at.segmented_control(key="k-way").set_value("Upload").run())
    file = BytesIO()
    Image.fromarray(toy.picture(np.random.default_rng(1), True, False)).save(file, "PNG")
    at.file_uploader(key="k-file").set_value(("one.png", file.getvalue(), "image/png"))
    web.checked(at.run())
    assert not at.error
    assert len(images(at)) == 1 + len(MODELS)
    assert "Readers say" not in web.text(at)


# The audit ----------------------------------------------------------------------------------------


def dice_shown(at) -> list[float]:
    found = (re.search(r"<b>Dice (\d\.\d+)</b>", caption) for caption in web.captions(at))
    return [float(one[1]) for one in found if one]


def test_the_audit_begins_with_the_worst_cases(drawn, ws):
    at = web.shown(drawn, "audit")
    items = labeled(ws, "validation")
    student = stage_model(ws, NEWEST)
    expected = np.sort(overlap(ws, NEWEST, student, items)[:, 0])
    np.testing.assert_allclose(dice_shown(at), expected, atol=6e-4)
    assert set(web.linked(at)) == set(items.ids)
    web.checked(at.selectbox(key="a-split").set_value("training labels").run())
    web.checked(at.selectbox(key="a-finding").set_value("Bar").run())
    train = labeled(ws, "train")
    expected = np.sort(overlap(ws, NEWEST, student, train)[:, 1])
    np.testing.assert_allclose(dice_shown(at), expected[:24], atol=6e-4)
    vault = {i.id for i in ws.ledger.items("vault")}
    assert not vault & set(web.linked(at))
    web.checked(at.selectbox(key=f"a-stage-{NEWEST}").set_value("teacher 0a").run())
    web.checked(at.toggle(key="a-against").set_value(True).run())
    assert not at.error


def test_the_audit_keeps_cases_that_wait_from_readers(copy, ws):
    again = labeled(ws, "validation").ids[0]
    put_before_ana(copy, again)
    assert again in web.linked(web.shown(copy, "audit"))
    assert again not in web.linked(web.shown(copy, "audit", role="reader"))


def test_the_audit_tells_pseudo_masks_stage_by_stage(drawn, ws):
    at = web.shown(drawn, "audit")
    table = next(d.value for d in at.dataframe if "rightly drawn" in d.value.columns)
    found = iterations(ws)
    assert list(table["stage"]) == ["pseudo-masks 1"] * len(found)
    for row, one in zip(table.to_dict("records"), found, strict=True):
        assert (row["drawn"], row["absent"]) == (one.drawn, one.absent)
        assert row["left out"] == one.pool - one.drawn - one.absent
    assert "overlaps it with a Dice of 0.5 or more" in web.text(at)
    kept = next(d.value for d in at.dataframe if "precision [95 %]" in d.value.columns)
    assert list(zip(kept["finding"], kept["sign"], strict=True)) == [
        (finding, sign) for finding in ("Spot", "Bar") for sign in ("present", "absent")
    ]


# The vault ----------------------------------------------------------------------------------------


def everything(root, pages=web.PAGES) -> dict[str, list[bytes]]:
    """All that a lead's browser is sent, with everything opened."""
    st.cache_data.clear()
    st.cache_resource.clear()
    vault = open_workspace(root).ledger.items("vault")[0].id
    sent = {}
    for name in pages:
        at = web.page(root, name, role="lead", item=vault if name == "case" else "").run()
        for toggle in [t.key for t in at.toggle]:
            at.toggle(key=toggle).set_value(True)
        web.checked(at.run())
        assert not at.error
        sent[name] = web.picture_of(at)
    sent["report"] = [report(open_workspace(root), WHEN).encode()]
    return sent


def drawn_otherwise(root, split: str) -> None:
    """Give every label of a split another one's mask, or take it away, behind the ledger's back."""
    file = sqlite3.connect(root / "ledger.db")
    for (name,) in file.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'labels'"
    ).fetchall():
        file.execute(f"DROP TRIGGER {name}")
    (mask,) = file.execute("SELECT mask FROM labels WHERE mask IS NOT NULL LIMIT 1").fetchone()
    mine = "item_id IN (SELECT id FROM items WHERE split = ?)"
    file.execute(
        f"UPDATE labels SET value = 1 - value, mask = iif(value = 1, NULL, ?) WHERE {mine}",
        (mask, split),
    )
    assert file.total_changes > 20
    file.commit()
    file.close()


def test_no_page_depends_on_masks_of_the_vault(copy):
    before = everything(copy)
    drawn_otherwise(copy, "vault")
    after = everything(copy)
    assert {name: sent == after[name] for name, sent in before.items()} == dict.fromkeys(
        before, True
    )
    drawn_otherwise(copy, "validation")  # of those the pages do tell: the comparison can fail
    assert before["audit"] != everything(copy, ["audit"])["audit"]
