"""Every page on workspaces that are empty, asked once, and read by people for three rounds."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from app.status import status_of
from app.web.scatter import QUEUE, VALIDATION, VAULT
from ssl_core.auditing import audit
from ssl_core.claims.cost import spent
from ssl_core.pictures.map_files import load_map
from ssl_core.pictures.maps import make_map
from ssl_core.records import Stage
from ssl_core.workspace import CONFIG_FILE, open_workspace
from tests import toy, web, web_workspaces
from tests.web_workspaces import batch, waits

NEWEST = web_workspaces.NEWEST
pytestmark = pytest.mark.usefixtures("no_label_studio")


# Empty states -------------------------------------------------------------------------------------

NOTHING_YET = {
    "overview": ("No model has been measured yet.", "readloop round"),
    "reading": ("Nothing was put in front of readers yet.", "readloop queue"),
    "rounds": ("No round yet.", "No job yet."),
    "map": ("No round has a map yet.", "readloop round"),
    "case": ("No model has been trained yet.", "readloop round"),
    "audit": ("No round has made pseudo-labels yet.", "readloop round"),
}


@pytest.mark.parametrize("page", web.PAGES)
@pytest.mark.parametrize("role", ["reader", "lead", "engineer"])
def test_an_empty_workspace_says_what_to_do(empty, page, role):
    at = web.shown(empty, page, role=role)
    for words in NOTHING_YET[page]:
        assert words in web.text(at)
    assert not at.error
    assert not web.captions(at)


def test_an_archive_says_that_nobody_has_to_read(tmp_path):
    at = web.shown(toy.make(tmp_path / "w"), "reading")
    assert "A simulated reader answers in this workspace" in at.info[0].value
    assert not at.metric


def test_before_the_first_model_only_questions_are_shown(asked):
    assert "No model has been measured yet." in web.text(web.shown(asked, "overview"))
    assert "No model has been trained yet." in web.text(web.shown(asked, "case"))
    rounds = web.shown(asked, "rounds")
    (row,) = rounds.dataframe[0].value.to_dict("records")
    assert (row["round"], row["cases asked"], row["vault AUROC [95 %]"]) == (1, 8, "–")
    assert "No model yet." in web.text(rounds)
    assert "Two measured rounds are needed." in web.text(rounds)
    expected = [f"<b>1.{k}</b> to read" for k in range(1, 9)]
    assert web.captions(web.shown(asked, "reading")) == expected
    header, _ = web.plotted(web.shown(asked, "map"))
    assert header["n"] == 72
    at = web.page(asked, "map").run()
    web.checked(at.selectbox(key="f-colour").set_value("score").run())
    web.checked(at.selectbox(key="f-colour").set_value("uncertainty").run())  # no model: all NaN


def test_the_app_opens_on_the_first_page_of_the_role(empty, asked):
    assert "What the labels bought" in web.text(web.app(empty))
    assert "What the labels bought" in web.text(web.app(asked))


# What is shown is what the ledger holds -----------------------------------------------------------


def test_overview_shows_the_model_in_use_and_what_it_cost(read, ws):
    at = web.shown(read, "overview")
    (student,) = [
        m
        for number, m in ws.ledger.measurements(2)
        if (m.stage, m.split, m.finding, m.name) == ("student", "vault", "macro", "auroc")
    ]
    shown = web.metrics(at)
    assert shown["AUROC on the vault"] == f"{student.value:.3f}"
    assert shown["Training labels"] == f"{ws.ledger.label_counts(2)['train']}"
    assert shown["Chance would need"] == "over 2"  # the shadow control did not get there
    assert "student of round 2, 24 items" in web.text(at)
    assert "The shadow control, which learned from random labels alone" in web.text(at)
    table = at.dataframe[0].value.set_index("part")
    (now,) = spent(ws.ledger, ws.config, [])
    for part in ("train", "validation", "vault"):
        cost = getattr(now, part)
        assert table.loc[part, "labeled items"] == f"{cost.labels:,}"
        assert table.loc[part, "reads"] == f"{cost.reads:,}"
        assert table.loc[part, "reader-hours"] == f"{cost.hours:,.2f} h"
    # 24 vault items, two readers of 12 s each
    assert table.loc["vault", "reader-hours"] == f"{24 * 2 * web_workspaces.SECONDS / 3600:.2f} h"


def test_reading_counts_what_waits_and_shows_every_reader(read, ws):
    at = web.shown(read, "reading")
    reads = ws.ledger.reading.reads()
    done = [r for r in reads if r.outcome in ("read", "unusable")]
    # Of ten, two were read by both, one called unusable; the skipped one has had both its readers.
    assert web.metrics(at) == {
        "With readers": "7",
        "Not dealt yet": "0",
        "Reads done": f"{len(done)}",
        "In dispute": "1",
        "Unusable": "1",
        "Skipped by all": "1",
    }
    text = web.text(at)
    for reader in ("**ana**", "**ben**", "**chief** · adjudicator"):
        assert reader in text
    assert text.count("12 s a read (median)") == 2
    assert "30 s a read (median)" in text
    assert "No Label Studio runs for" in at.warning[0].value
    assert next(b for b in at.button if b.label == "Take in what was read").disabled
    at = web.page(read, "reading")
    at.session_state["r-tabs"] = "Adjudication"
    text = web.text(web.checked(at.run()))
    assert "**1 case** on which readers contradict each other. The adjudicator is chief." in text
    at.session_state["r-tabs"] = "Agreement"
    table = web.checked(at.run()).dataframe[0].value
    assert {*table["finding"]} == set(toy.TASKS["multi_label"].findings)
    assert set(table["pair"]) == {"ana and ben"}


def test_why_a_case_was_chosen_is_shown_once_it_was_read_by_all_who_are_to(read, ws):
    half = web_workspaces.read_by_one(ws)
    at = web.page(read, "reading").run()
    unread = web.captions(at)
    web.checked(at.segmented_control(key="q-show").set_value("Read").run())
    done = web.captions(at)
    for selection in batch(ws):
        number = f"<b>{NEWEST}.{selection.rank + 1}</b> "
        if selection.rank in (0, 1):
            assert f"{number}read<br>{selection.reason}" in done
        elif selection.rank == 2:
            assert f"{number}unusable<br>{selection.reason}" in done
        elif selection.rank == 3:
            assert f"{number}skipped by all" in done
        else:
            assert f"{number}to read" in unread
            assert not any(caption.startswith(number) for caption in done)
    assert any(s.item_id == half and s.rank > 3 for s in batch(ws))


def test_the_queue_can_be_narrowed(read):
    at = web.page(read, "reading").run()
    web.checked(at.segmented_control(key="q-show").set_value("Read").run())
    assert [c.split("<br>")[0] for c in web.captions(at)][:3] == [
        "<b>3.1</b> read",
        "<b>3.2</b> read",
        "<b>3.3</b> unusable",
    ]
    web.checked(at.segmented_control(key="q-show").set_value("To read").run())
    assert all(c.endswith("to read") for c in web.captions(at)[:7])
    at.slider(key="q-width").set_value(1)
    web.checked(at.slider(key="q-centre").set_value(0).run())


def test_rounds_shows_history_diff_and_who_promoted(read, ws):
    at = web.shown(read, "rounds")
    rows = at.dataframe[0].value.set_index("round")
    for told in status_of(ws)["rounds"]:
        row = rows.loc[told["number"]]
        assert row["training labels"] == told["labels"]["train"]
        assert row["cases asked"] == told["asked"]
        if student := told["auroc"].get("student"):
            ends = f"[{student['low']:.3f}, {student['high']:.3f}]"
            assert f"student {student['value']:.3f} {ends}" in row["vault AUROC [95 %]"]
            assert "teacher" in row["vault AUROC [95 %]"]
    assert "strategy margin → entropy" in rows.loc[NEWEST, "changed"]
    (decided,) = ws.ledger.promotions()
    assert f"the student of round 2, `{decided.model_id[:12]}`" in web.text(at)
    (row,) = at.dataframe[1].value.to_dict("records")
    assert (row["decision"], row["by"], row["why"]) == ("override", "eva", "it is steadier")


def test_two_rounds_are_compared_on_validation(read):
    at = web.page(read, "rounds").run()
    next(b for b in at.button if b.label == "Compare").click()
    web.checked(at.run())
    assert "**Round 3 less round 2**" in web.text(at)
    assert set(at.dataframe[1].value.columns) == {"finding", "difference [95 %]", "p", "items"}
    settings = at.dataframe[2].value.set_index("setting")
    assert settings.loc["round.strategy", "before"] == "margin"
    assert settings.loc["round.strategy", "after"] == "entropy"
    validation = {i.id for i in open_workspace(read).ledger.items("validation")}
    assert {*web.linked(at)} <= validation
    assert len(web.linked(at)) == len(web.captions(at)) == 18


def test_a_promotion_needs_the_gate_or_a_reason_and_can_be_rolled_back(copy):
    at = web.page(copy, "rounds").run()
    next(b for b in at.button if b.label.startswith("Hold it against")).click()
    web.checked(at.run())
    unlearned, verdict = (w.value for w in at.warning)
    assert "round 3 did not learn Rare" in unlearned
    assert "which does not exclude a loss larger than 0.01" in verdict
    promote = next(b for b in at.button if b.label == "Promote")
    assert promote.disabled
    web.checked(at.text_input(key="m-why").set_value("the lead asked").run())
    next(b for b in at.button if b.label == "Promote").click()
    web.checked(at.run())
    ledger = open_workspace(copy).ledger
    assert [(p.kind, p.decided_by, p.why) for p in ledger.promotions()] == [
        ("override", "eva", "it is steadier"),
        ("override", "me", "the lead asked"),
    ]
    next(b for b in at.button if b.label.startswith("Roll back")).click()
    web.checked(at.run())
    assert ledger.promotions()[-1].kind == "rollback"
    assert "the student of round 2" in web.text(at)


def test_rolling_back_too_often_is_one_sentence(copy):
    at = web.page(copy, "rounds").run()
    for _ in range(2):
        next(b for b in at.button if b.label.startswith("Roll back")).click()
        web.checked(at.run())
    assert ["there is nothing to roll back" in e for e in web.errors(at)] == [True]


def test_the_map_tells_splits_and_the_queue_apart(read, ws):
    at = web.page(read, "map").run()
    header, columns = web.plotted(web.checked(at))
    found = load_map(ws, NEWEST)
    items = {i.id: i.split for i in ws.ledger.items()}
    for name, shape in (("validation", VALIDATION), ("vault", VAULT)):
        of = {found.ids[k] for k in np.flatnonzero(columns["shape"] == shape)}
        assert of == {i for i, split in items.items() if split == name}
    queued = {found.ids[k] for k in np.flatnonzero(columns["shape"] == QUEUE)}
    assert waits(ws) in queued
    assert batch(ws)[0].item_id not in queued
    np.testing.assert_allclose(columns["x"], found.embeddings["pca"].coordinates[:, 0])
    assert header["legend"][-1] == "not labeled"
    for colour in ("score", "uncertainty", "split", "round", "reader"):
        web.checked(at.selectbox(key="f-colour").set_value(colour).run())
        header, columns = web.plotted(at)
        assert header["title"].startswith(colour)
        assert header["n"] == len(columns["colour"]) == 72
    assert {"ana", "ben", "nobody"} <= set(header["legend"])


def test_the_case_page_shows_what_every_model_says(read, ws):
    item_id = batch(ws)[0].item_id
    at = web.shown(read, "case", item=item_id)
    table = at.dataframe[0].value.set_index("finding")
    models = ("teacher", "intermediate", "student")
    assert list(table.columns) == [c for name in models for c in (name, f"{name} from")]
    found = load_map(ws, NEWEST)
    expected = found.probabilities[found.place[item_id]]
    np.testing.assert_allclose(table["student"].to_numpy(), expected, atol=6e-4)
    assert "Readers say: " in web.text(at)
    assert len(at.get("image")) == 4
    near = web.linked(at)
    assert item_id not in near
    assert len(near) == 6
    vault = {i.id for i in ws.ledger.items("vault")}
    assert not vault & set(near)
    header, _ = web.plotted(at)
    assert header["star"] is not None


def test_the_case_page_finds_an_item_by_the_beginning_of_its_id(read, ws):
    item_id = batch(ws)[0].item_id
    at = web.page(read, "case").run()
    web.checked(at.text_input(key="k-item").set_value(f" {item_id.upper()} ").run())
    assert "Readers say" in web.text(at)
    web.checked(at.text_input(key="k-item").set_value("zzz").run())
    (error,) = web.errors(at)
    assert "has the digits 0-9 and a-f" in error
    web.checked(at.text_input(key="k-item").set_value("f" * 32).run())
    assert web.errors(at) == [f"No item's id begins with {'f' * 32}: copy one from another page."]
    for strange in ("<script>", "[in](https://evil.example) ![x](https://evil.example/p.png)"):
        at = web.checked(web.page(read, "case", item=strange).run())
        assert "evil" not in web.text(at)
    for round_ in (2, 3):
        at = web.page(read, "case", item=item_id).run()
        web.checked(at.selectbox(key="k-round").set_value(round_).run())
        assert not at.error


def test_an_uploaded_image_is_looked_at_and_anything_else_refused(read):
    at = web.page(read, "case").run()
    web.checked(at.segmented_control(key="k-way").set_value("Upload").run())
    assert not at.dataframe
    file = BytesIO()
    Image.fromarray(toy.picture(np.random.default_rng(1), True, False)).save(file, "PNG")
    at.file_uploader(key="k-file").set_value(("one.png", file.getvalue(), "image/png"))
    web.checked(at.run())
    probabilities = at.dataframe[0].value["student"]
    assert all(0 < p < 1 and not math.isnan(p) for p in probabilities)
    assert "Readers say" not in web.text(at)
    at.file_uploader(key="k-file").set_value(("two.png", b"no image at all", "image/png"))
    web.checked(at.run())
    (error,) = web.errors(at)
    assert error.startswith("two.png: ")


def test_audit_shows_what_was_kept_and_how_right_it_was(read, ws):
    at = web.page(read, "audit").run()
    web.checked(at)
    rows = at.dataframe[0].value.set_index(["finding", "sign"])
    for one in audit.kept(ws, NEWEST):
        row = rows.loc[(one.finding, one.sign)]
        assert (row["kept"], row["reads"]) == (one.kept, one.precision.n)
    for toggle in (f"a-sweep-{NEWEST}", f"a-borders-{NEWEST}", "a-against"):
        web.checked(at.toggle(key=toggle).set_value(True).run())
    assert not at.error
    vault = {i.id for i in ws.ledger.items("vault")}
    assert web.linked(at)
    assert not vault & set(web.linked(at))
    web.checked(at.selectbox(key="a-round").set_value(2).run())
    assert not at.error


def test_what_came_from_outside_is_plain_text():
    from app.web import shell

    assert web.plain(shell.plain("[a](http://x) ![b](c) `d` *e* $f$ <g>")) == (
        "[a](http://x) ![b](c) `d` *e* $f$ <g>"
    )
    assert shell.plain("![a](http://x)").startswith("!\\[a\\](")
    assert shell.said("run `readloop sync [W]` in a_b") == "run `readloop sync [W]` in a\\_b"
    assert "\\[a" in shell.said("one ` and [a](http://x)")


def test_a_round_that_still_runs_is_no_choice_on_the_case_page(copy):
    """Its models are there before they are measured."""
    ws = open_workspace(copy)
    model = ws.ledger.models(NEWEST)[-1][1]
    ws.ledger.open_round(replace(ws.ledger.rounds()[-1], number=NEWEST + 1))
    ws.ledger.add_stage(Stage(NEWEST + 1, 0, "teacher", "fit", "{}", 1.0), models=[model])
    at = web.shown(copy, "case")
    assert at.selectbox(key="k-round").options == ["2", "3"]
    assert not at.error


def test_what_is_set_or_laid_out_while_the_app_runs_is_seen(copy, monkeypatch):
    """Neither is in the ledger, whose version the caches go by."""
    before = web.shown(copy, "overview").dataframe[0].value
    assert not any("CHF" in str(cell) for cell in before.to_numpy().ravel())
    toml = copy / CONFIG_FILE
    price = '[cost]\nper_hour = 99.0\ncurrency = "CHF"\n'
    held = re.sub(r"\[cost\]\n(?:[^\[]+)", "", toml.read_text())
    toml.write_text(f"{held}\n{price}")
    after = web.shown(copy, "overview").dataframe[0].value
    assert any("CHF" in str(cell) for cell in after.to_numpy().ravel())

    ways = web.shown(copy, "map").selectbox(key="f-method").options
    assert "PCA" in ways
    monkeypatch.setattr("ssl_core.pictures.embedding.FEW", 5)  # else so few items stay a PCA
    make_map(open_workspace(copy), NEWEST, ["pca", "tsne"])
    assert web.shown(copy, "map").selectbox(key="f-method").options == ["PCA", "t-SNE"]
