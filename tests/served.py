"""The app as people get it: a real `readloop serve`, seen through Chromium."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.browser import FLAGS, chromium
from tests.label_studio import free_port

SECONDS = 60
NETWORK = ("http", "https", "ws", "wss")
OWN_404 = re.compile(r"/\w+/_stcore/(host-config|health)$")
"""Streamlit's browser side looks there when a page is opened by its own address."""


@dataclass(frozen=True, slots=True)
class Served:
    """A workspace that is being served."""

    root: Path
    url: str
    log: Path

    def said(self) -> str:
        """The server's log so far."""
        return self.log.read_text()


@contextmanager
def serve(root: Path, log: Path, **environment: str) -> Iterator[Served]:
    """`readloop serve` on a free port, until it answers; it is ended afterwards."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "app.cli", "serve", str(root), "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    found = Served(root, f"http://127.0.0.1:{port}", log)
    try:
        _wait(process, found)
        yield found
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen, found: Served) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, found.said()
        try:
            urllib.request.urlopen(f"{found.url}/_stcore/health", timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no answer within {SECONDS} s: {found.said()}")


@dataclass
class Seen:
    """What a browser complained of, and which other hosts it asked."""

    faults: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def hear(self, message) -> None:
        if message.type != "error":
            return
        where = message.location.get("url", "")
        own = "404" in message.text and OWN_404.search(where)
        (self.allowed if own else self.faults).append(f"{message.text} ({where})")

    def ask(self, request) -> None:
        place = urlsplit(request.url)
        if place.scheme in NETWORK and place.hostname != "127.0.0.1":
            self.strangers.append(request.url)


@contextmanager
def chrome() -> Iterator:
    """A browser without a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def window(browser, seen: Seen):
    """A window of somebody new; everything it complains of is written down."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    page.on("console", seen.hear)
    page.on("pageerror", lambda error: seen.faults.append(str(error)))
    page.on("request", seen.ask)
    page.on("websocket", seen.ask)
    return page


def settled(page) -> None:
    """Until the page has stopped running."""
    page.locator(".stApp[data-test-script-state='notRunning']").wait_for()


def go(page, name: str) -> None:
    """Click a page's name in the navigation, and wait for its heading."""
    page.get_by_test_id("stTopNavLink").filter(has_text=name).click()
    page.locator("h1.rl-title", has_text=name).wait_for()
    settled(page)
