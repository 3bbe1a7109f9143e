"""A reader at the screen: Chromium, signed in to Label Studio, pressing keys."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


def chromium() -> str:
    """The browser's path; skips where there is none, unless `CI` is set."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def reading(label_studio, link: str) -> Iterator[Reader]:
    """Open a reader's link, signed in, with the first case on the screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(link)
            page.fill("#email", label_studio.username)
            page.fill("#password", label_studio.password)
            page.click("button[type=submit]")
            page.wait_for_url(lambda url: "login" not in url)
            page.goto(link)
            reader = Reader(page)
            reader.wait_for_case()
            yield reader
        finally:
            browser.close()


class Reader:
    """What a reader does, by keyboard."""

    def __init__(self, page) -> None:
        self.page = page

    def wait_for_case(self) -> None:
        """Until the case can be answered: its image is there and the page listens to keys."""
        self.page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
        self.page.locator(".rl-panel input[type=checkbox]").first.wait_for(timeout=60_000)
        self.page.wait_for_timeout(1200)  # a key pressed while the page still loads is lost

    def answer(self, *keys: str, done: str = "Control+Enter") -> None:
        """Press the findings' keys, submit, and wait for the next case."""
        for key in keys:
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(60)
        with self.page.expect_response(lambda r: "next_task" in r.url, timeout=60_000):
            self.page.keyboard.press(done)
        self.wait_for_case()

    def ticked(self) -> set[str]:
        """The names of the choices that are ticked."""
        query = ".rl-panel input[type=checkbox]:checked"
        return set(self.page.eval_on_selector_all(query, "found => found.map(e => e.name)"))

    def skip(self) -> None:
        """Skip the case."""
        self.answer(done="Control+Space")
