"""Workspaces that the tests of the app look at; made once a run, and copied to be changed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import cache

import pytest
import typer.main
from streamlit.components.v2 import manifest_scanner

from ssl_core.workspace import Workspace, open_workspace
from tests import web_workspaces


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """In which people are to read, and no round has run; tests only look at it."""
    return web_workspaces.empty(tmp_path_factory.mktemp("empty") / "w")


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """After a cold start; tests only look at it."""
    return web_workspaces.asked(tmp_path_factory.mktemp("asked") / "w")


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    """After three rounds that people read for; tests only look at it."""
    return web_workspaces.read(tmp_path_factory.mktemp("read") / "w")


@pytest.fixture(scope="session")
def ws(read) -> Workspace:
    """The same, open."""
    return open_workspace(read)


@pytest.fixture
def copy(read, tmp_path):
    """The same, of which a test may change anything."""
    return shutil.copytree(read, tmp_path / "w")


@pytest.fixture
def no_label_studio(monkeypatch):
    """Nobody's server is asked."""
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _found_once() -> Iterator[None]:
    """What stays the same while the tests run is looked for once, as in a process of a person.

    Those are the components in all that is installed, for each page that is run, and the options
    of all commands, for each one.
    """
    with pytest.MonkeyPatch.context() as patch:
        for place, name in (
            (manifest_scanner, "scan_component_manifests"),
            (typer.main, "get_command"),
        ):
            patch.setattr(place, name, cache(getattr(place, name)))
        yield


@pytest.fixture(autouse=True)
def _own_main() -> Iterator[None]:
    """Put `__main__` back: Streamlit makes a page's script of it, which is gone after its test, and
    processes that later tests spawn would look for it and die."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main
