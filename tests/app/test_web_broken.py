"""Workspaces that are not whole: every page says what is wrong in a sentence, and what to do."""

from __future__ import annotations

import json
import shutil

import pytest

from ssl_core.workspace import CONFIG_FILE, open_workspace
from tests import web
from tests.web_workspaces import NEWEST, batch

pytestmark = pytest.mark.usefixtures("no_label_studio")


def lose(root, *names: str) -> None:
    for name in names:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def damage(path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def edit(root, old: str, new: str) -> None:
    toml = root / CONFIG_FILE
    assert old in toml.read_text()
    toml.write_text(toml.read_text().replace(old, new))


NOT_WHOLE = {
    "no images": (lambda root: lose(root, "images"), "images"),
    "half the pixels": (lambda root: damage(root / "images" / "pixels.u8"), "images"),
    "no ledger": (lambda root: lose(root, "ledger.db"), "ledger.db"),
    "a ledger of zeros": (lambda root: (root / "ledger.db").write_bytes(bytes(9999)), "ledger.db"),
    "no settings": (lambda root: lose(root, CONFIG_FILE), "is not a workspace"),
    "no folder": (lambda root: shutil.rmtree(root), "is not a workspace"),
    "no TOML": (lambda root: (root / CONFIG_FILE).write_text("["), "is not valid TOML"),
    "a typo": (lambda root: edit(root, "query_size", "query_sise"), "did you mean query_size"),
    "another size": (lambda root: edit(root, "size = 16", "size = 32"), "size = 16"),
}


@pytest.mark.parametrize("fault", NOT_WHOLE)
def test_a_workspace_that_cannot_be_opened_is_one_sentence(copy, fault):
    breaks, words = NOT_WHOLE[fault]
    (copy / "ledger.db-wal").unlink(missing_ok=True)
    (copy / "ledger.db-shm").unlink(missing_ok=True)
    breaks(copy)
    at = web.app(copy)
    (error,) = web.errors(at)
    assert words.replace("'", "") in error.replace("'", "")
    assert len(error.strip().splitlines()) == 1
    assert not at.metric


@pytest.mark.parametrize("page", web.PAGES)
def test_settings_that_are_broken_while_the_app_runs(copy, page):
    web.shown(copy, page)
    edit(copy, "query_size", "query_sise")
    at = web.shown(copy, page)
    assert not at.error  # it goes on with what was set before
    assert any("query_sise" in web.plain(w.value) for w in at.warning)
    edit(copy, "query_sise", "query_size")
    assert not web.shown(copy, page).error


@pytest.mark.parametrize("page", web.PAGES)
def test_a_ledger_that_goes_while_the_app_runs(copy, page):
    web.shown(copy, page)
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (copy / name).unlink(missing_ok=True)
    web.shown(copy, page)  # no traceback; a system may still hold the file
    shutil.rmtree(copy)
    (error,) = web.errors(web.shown(copy, page))
    assert "is not a workspace" in error


def test_without_model_files_what_needs_them_says_so(copy, ws):
    lose(copy, "models", "probabilities")
    gone = "The model file "
    (error,) = web.errors(web.shown(copy, "case", item=batch(ws)[0].item_id))
    assert error.startswith(gone)
    assert "missing, damaged or of another version" in error
    at = web.page(copy, "rounds").run()
    assert not at.error
    next(b for b in at.button if b.label == "Compare").click()
    (error,) = web.errors(web.checked(at.run()))
    assert error.startswith(gone)
    at = web.page(copy, "audit").run()
    assert not at.error
    (error,) = web.errors(web.checked(at.toggle(key="a-against").set_value(True).run()))
    assert error.startswith(gone)
    for page in ("overview", "reading", "map"):
        assert not web.shown(copy, page).error


@pytest.mark.parametrize("name", ["features.npy", "pca.npy", "ids.npy", "map.json"])
def test_a_damaged_map_is_one_sentence(copy, ws, name):
    folder = copy / "rounds" / f"{NEWEST:04d}" / "map"
    damage(folder / name)
    (error,) = web.errors(web.shown(copy, "map"))
    assert error.startswith(f"The map in {folder} is damaged: ")
    case = web.shown(copy, "case", item=batch(ws)[0].item_id)
    assert len(case.dataframe) == 1  # what the models say is still there
    assert web.errors(case) == [error]
    at = web.page(copy, "map").run()
    web.checked(at.selectbox(key="f-round").set_value(1).run())
    assert not at.error


def test_a_map_without_coordinates_says_why(copy):
    index = copy / "rounds" / f"{NEWEST:04d}" / "map" / "map.json"
    told = json.loads(index.read_text())
    index.write_text(json.dumps({**told, "embeddings": {}, "failed": {"pca": "Out of memory."}}))
    assert web.errors(web.shown(copy, "map")) == ["Out of memory."]
    assert not web.shown(copy, "case").error


def test_without_maps_the_case_page_does_without(copy, ws):
    for folder in (copy / "rounds").glob("*/map"):
        shutil.rmtree(folder)
    assert "No round has a map yet." in web.text(web.shown(copy, "map"))
    at = web.shown(copy, "case", item=batch(ws)[0].item_id)
    assert "This round has no map" in web.text(at)
    assert len(at.dataframe) == 1


def test_a_file_where_the_rounds_should_be(copy):
    shutil.rmtree(copy / "rounds")
    (copy / "rounds").write_text("in the way")
    for page in web.PAGES:
        web.shown(copy, page)


def test_label_studio_that_is_down_is_a_warning_and_the_page_goes_on(copy, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret-of-mine")
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(copy))
    at = web.shown(copy, "reading")
    assert "http://127.0.0.1:9 does not answer" in web.plain(at.warning[0].value)
    assert "secret-of-mine" not in web.text(at)
    assert web.captions(at)
    assert not at.error


def test_a_round_whose_recipe_is_not_known_any_more(copy):
    ledger = open_workspace(copy).ledger
    config = json.loads(ledger.rounds()[-1].config)
    assert config["recipe"]["name"] == "teacher_student"
    edit(copy, 'name = "teacher_student"', 'name = "magic"')
    for page in web.PAGES:
        web.shown(copy, page)
