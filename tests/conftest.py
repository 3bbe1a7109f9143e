"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from filelock import FileLock

from tests import label_studio as label_studio_server
from tests import mask_workspaces, postgres

# Test processes share the cores already; more threads in each would fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C and so would the programs that the tests send one to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take a minute or more, longest first: one begun last would keep the others waiting.
LONG = (
    "tests/app/test_job_processes.py",
    "tests/ssl_core/recipes/test_mask_recipe_rounds.py",
    "tests/app/test_web_browser.py",
    "tests/app/test_torchrun.py",
    "tests/ssl_core/pictures/test_embedding.py",
    "tests/ssl_core/recipes/test_recipe_rounds.py",
    "tests/app/test_scatter.py",
    "tests/ssl_core/test_rounds.py",
    "tests/app/test_bench.py",
    "tests/app/test_ray_jobs.py",
)
SERVER = "label_studio"
OF_SERVER = ("tests/app/test_reading_room.py", "tests/app/test_mask_reading.py")


def _group(nodeid: str) -> str:
    """What one process gets as a whole: a file, or all files that use the shared server."""
    file = nodeid.partition("::")[0]
    return SERVER if SERVER in file or file in OF_SERVER else file


def _turn(item: pytest.Item) -> int:
    groups = [SERVER, *LONG]
    group = _group(item.nodeid)
    return groups.index(group) if group in groups else len(groups)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the shared server and the long files first."""
    items.sort(key=_turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out files: nobody waits for a turn at the server, and what a file shares is made once.

    Blocks of tests, as xdist hands them out, left one process alone with the last long file.
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    config.option.loadscopereorder = False  # the order is that of the tests
    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many a test waits for a server, a job or a browser."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) + 1
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server without a database's name; skips where none is installed."""
    if postgres.binaries() is None and not os.environ.get("CI"):
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def new_ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """A function that gives the URL of another place for a ledger at each call."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{secrets.token_hex(4)}.db"
    server = request.getfixturevalue("postgres_server")

    def new_schema() -> str:  # a database of its own would take ten times as long
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{server}/postgres?options=-csearch_path%3D{name}"

    return new_schema


@pytest.fixture
def ledger_url(new_ledger_url: Callable[[], str]) -> str:
    """The URL of a place for one ledger: the test runs on SQLite and on PostgreSQL."""
    return new_ledger_url()


@pytest.fixture(autouse=True)
def _one_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that share the server take turns: with its SQLite locked, it repeats requests."""
    if "label_studio" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("label_studio")
    with FileLock(server.media.parent / "turn.lock"):
        yield


@dataclass(frozen=True, slots=True)
class RunningLabelStudio:
    """A real server for tests: how to sign in, and the folder whose `images` it serves."""

    url: str
    username: str
    password: str
    token: str
    media: Path


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLabelStudio]:
    """One Label Studio for the whole run, whatever the number of test processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with label_studio_server.server(shared) as room:
        known = room.sign_in
        yield RunningLabelStudio(known.url, known.username, known.password, known.token, room.media)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which masks are drawn, after three rounds; tests only look at it."""
    return mask_workspaces.trained(tmp_path_factory.mktemp("drawn") / "w")
