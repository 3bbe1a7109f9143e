"""A real Label Studio server for the tests: one for a whole run, whatever the number of workers.

Every process that uses it holds a shared lock. A watcher waits for the lock alone, gets it when
the last of them is gone, however they went, and ends the server: nothing outlives a killed run.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock
from label_studio_sdk import LabelStudio

from connectors.label_studio import server as local
from ssl_core.errors import ReadingRoomError

MADE_BY_START = ("server.json", "server.log", "start.lock")
PAGE = '<View><Image name="image" value="$image"/></View>'


@dataclass(frozen=True, slots=True)
class Room:
    """The run's server: how to sign in, and `media`, where `images/x.png` is put to be served."""

    sign_in: local.SignIn
    media: Path


@contextmanager
def server(shared: Path) -> Iterator[Room]:
    """The run's server; `shared` is a folder that all workers of the run see, and no other run.

    Skips where Label Studio cannot be installed, unless `CI` is set.
    """
    workspace = shared / "label-studio" / "W"
    workspace.mkdir(parents=True, exist_ok=True)
    users = os.open(_users(workspace), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(users, fcntl.LOCK_SH)
        with FileLock(workspace.with_name("starting.lock")):
            if local.running(workspace) is None:
                prepare(workspace)
                subprocess.Popen(
                    [sys.executable, "-m", "tests.label_studio", str(workspace)],
                    cwd=Path(__file__).parents[1],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # out of reach of Ctrl-C
                ).returncode = 0  # it ends after us: nobody waits for it
                local.start(workspace, free_port())
        sign_in = local.sign_in(workspace)
        assert sign_in is not None
        yield Room(sign_in, local.media_folder(workspace))
    finally:
        _leave(users, workspace)


def _users(workspace: Path) -> Path:
    return workspace.with_name("users.lock")


def _leave(users: int, workspace: Path) -> None:
    """Let go of the server; the last one ends it at once rather than leave it to the watcher."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        local.stop(workspace)
    except BlockingIOError:
        pass
    finally:
        os.close(users)


def _watch(workspace: Path) -> None:
    users = os.open(_users(workspace), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(users, fcntl.LOCK_EX)
    local.stop(workspace)


def prepare(workspace: Path) -> None:
    """Give a workspace a data folder with its first user, so that a start takes 5 s and not 40.

    The folder is made once, kept in the user's cache, and copied. Its secrets open nothing but
    the tests' own servers. Skips like `server`.
    """
    data = local.data_folder(workspace)
    if not data.exists():
        scratch = data.with_name(f"{data.name}.{secrets.token_hex(4)}")
        shutil.copytree(_template(), scratch)
        scratch.rename(data)


def _template() -> Path:
    try:
        local.install(lambda text: print(text, file=sys.stderr))
    except ReadingRoomError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    key = local.environment().name
    folder = platformdirs.user_cache_path("readloop") / "tests" / f"{key}.template"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            _make_template(folder)
    return folder


def _make_template(folder: Path) -> None:
    workspace = folder.with_name(f"W-{secrets.token_hex(4)}")
    data = local.data_folder(workspace)
    try:
        local.start(workspace, free_port())
        local.stop(workspace)
        for name in MADE_BY_START:
            (data / name).unlink(missing_ok=True)
        data.rename(folder)
    finally:
        local.stop(workspace)
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def project(sign_in: local.SignIn, page: str = PAGE) -> Iterator[int]:
    """The number of a project that is deleted afterwards; `page` is its labeling configuration."""
    client = LabelStudio(base_url=sign_in.url, api_key=sign_in.token)
    made = client.projects.create(title=f"test {secrets.token_hex(4)}", label_config=page)
    assert made.id is not None
    try:
        yield made.id
    finally:
        client.projects.delete(made.id)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
