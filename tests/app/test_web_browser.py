"""The app end to end: a real server, a real browser, a round that is started and watched."""

from __future__ import annotations

import re
import shutil
import time
from urllib.parse import urlsplit

import pytest

from app.cli import run
from ssl_core.workspace import open_workspace
from tests import served, web_workspaces
from tests.served import Seen, go, settled, window

NAMES = ("Overview", "Reading", "Rounds", "Map", "Case", "Audit")


@pytest.fixture(scope="module")
def app(read, tmp_path_factory):
    """A served workspace after three rounds."""
    folder = tmp_path_factory.mktemp("served")
    root = shutil.copytree(read, folder / "w")
    unset = {"LABEL_STUDIO_URL": ""}
    with served.serve(root, folder / "log", **unset) as found:
        yield found
        complaints(found)


@pytest.fixture(scope="module")
def browser():
    with served.chrome() as found:
        yield found


@pytest.fixture
def seen():
    found = Seen()
    yield found
    assert found.faults == []
    assert found.strangers == []


def complaints(app) -> None:
    """Fail where the server's log holds more than that it serves."""
    said = app.said()
    assert "Traceback" not in said, said
    assert not re.search(r"error|exception", said, re.IGNORECASE), said


def opened(browser, seen, app):
    page = window(browser, seen)
    page.goto(f"{app.url}/")
    page.locator("h1.rl-title").wait_for()
    settled(page)
    return page


def over(app, job: int, seconds: float = 60):
    """The job once it does not live any more."""
    ledger = open_workspace(app.root).ledger
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ledger.jobs.newest()
        if found is not None and found.job.id == job and not found.lives:
            return found
        time.sleep(0.2)
    raise AssertionError(f"job {job} did not end within {seconds} s")


def test_every_page_is_a_click_away_and_nothing_complains(app, browser, seen):
    page = opened(browser, seen, app)
    for name in (*NAMES[1:], NAMES[0]):
        go(page, name)
        assert urlsplit(page.url).path.strip("/") == name.lower()
        assert page.get_by_test_id("stException").count() == 0
        assert page.get_by_test_id("stAlertContentError").count() == 0
    page.context.close()
    complaints(app)


def test_a_round_is_refused_then_started_watched_and_finished(app, browser, seen):
    page = opened(browser, seen, app)
    go(page, "Rounds")
    number = len(open_workspace(app.root).ledger.rounds()) + 1
    page.get_by_text(f"Round {number} · settings of this round alone").wait_for()
    page.get_by_label("Seed").fill("99999999999")
    page.get_by_role("button", name="Start the round").click()
    page.get_by_text("seed = 99999999999 cannot be used").wait_for()
    assert open_workspace(app.root).ledger.jobs.history() == []
    page.get_by_label("Seed").fill("5")
    page.get_by_label("Cases to ask for").fill("3")
    page.get_by_role("button", name="Start the round").click()
    page.locator(".st-key-job").wait_for()
    assert page.get_by_role("button", name="Start the round").count() == 0
    page.locator(".st-key-job", has_text="Running").wait_for()
    page.get_by_text(f"Round {number + 1} · settings of this round alone").wait_for()
    settled(page)
    job = open_workspace(app.root).ledger.jobs.newest()
    assert (job.state, job.round, job.job.by) == ("finished", number, "this machine")
    opened_as = open_workspace(app.root).ledger.rounds()[-1]
    assert (opened_as.number, opened_as.query_size) == (number, 3)
    assert job.job.options == {"selection": {"query_size": 3}, "seed": 5}
    assert len(open_workspace(app.root).ledger.selections(number)) == 3
    history = page.get_by_test_id("stDataFrame").first
    deadline = time.monotonic() + 20  # the table is drawn after its text is there
    while True:
        cells = history.locator("[role=gridcell]").all_inner_texts()
        if cells[:1] == [str(number)] or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert cells[:2] == [str(number), "finished"], cells
    page.context.close()
    complaints(app)


def test_a_round_outlives_the_browser(app, browser, seen):
    page = opened(browser, seen, app)
    go(page, "Rounds")
    rounds = len(open_workspace(app.root).ledger.rounds())
    before = open_workspace(app.root).ledger.jobs.newest()
    page.get_by_role("button", name="Start the round").click()
    page.locator(".st-key-job").wait_for()
    page.context.close()
    job = over(app, (before.job.id if before else 0) + 1)
    assert (job.state, job.round) == ("finished", rounds + 1)
    page = opened(browser, seen, app)
    go(page, "Rounds")
    page.get_by_text(f"Round {rounds + 2} · settings of this round alone").wait_for()
    page.context.close()


def test_a_thumbnail_leads_to_its_case(app, browser, seen):
    page = opened(browser, seen, app)
    go(page, "Rounds")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare").click()
    picture = page.locator(".rl-grid a").first
    picture.wait_for()
    item_id = re.search(r"item=(\w+)", picture.get_attribute("href"))[1]
    picture.click()
    page.locator("h1.rl-title", has_text="Case").wait_for()
    page.get_by_text(f"item {item_id[:12]}").first.wait_for()
    page.get_by_role("heading", name="Labeled cases like it").wait_for()
    settled(page)
    assert page.get_by_test_id("stImage").count() == 4
    assert page.get_by_test_id("stException").count() == 0
    page.context.close()
    complaints(app)


def test_points_that_are_selected_on_the_map_show_their_images(app, browser, seen):
    page = opened(browser, seen, app)
    go(page, "Map")
    box = page.locator("canvas.over").bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.get_by_text("72 selected, 24 shown").wait_for()
    page.locator(".rl-grid figcaption").nth(23).wait_for()
    captions = page.locator(".rl-grid figcaption").all_inner_texts()
    assert len(captions) == 24
    sealed = [caption for caption in captions if caption.startswith("vault")]
    assert set(sealed) == {"vault\nlabel sealed"}
    page.context.close()


def test_the_next_case_is_a_click_away(tmp_path, label_studio, browser, seen, monkeypatch):
    where = {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": label_studio.token,
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(label_studio.media),
    }
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    root = web_workspaces.empty(tmp_path / "w")
    assert run(["queue", str(root)]) == 0
    with served.serve(root, tmp_path / "log") as app:
        page = opened(browser, seen, app)
        go(page, "Reading")
        links = page.get_by_role("link", name="Next case")
        links.first.wait_for()
        assert links.count() == 2  # the adjudicator has none before something is in dispute
        with page.context.expect_page() as another:
            links.first.click()
        tab = another.value
        tab.fill("#email", label_studio.username)
        tab.fill("#password", label_studio.password)
        tab.click("button[type=submit]")
        tab.wait_for_url(lambda url: "login" not in url)
        tab.goto(links.first.get_attribute("href"))
        tab.get_by_test_id("bottombar-submit-button").wait_for()
        tab.locator(".rl-panel input[type=checkbox]").first.wait_for()
        assert tab.url.startswith(label_studio.url)
        page.context.close()
        complaints(app)
        assert label_studio.token not in app.said()
