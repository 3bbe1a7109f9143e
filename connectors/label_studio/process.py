"""The Label Studio server as a process: launched apart, found by a lock, ended.

A server is known by a lock and not by its process number, which may be another's by now: it
inherits an open, locked `server.json`, and the system lets go of that lock when it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from ssl_core.errors import ReadingRoomError

TASK_LOCK_SECONDS = 3600  # a task that a reader opened and left is free again after this
_PORTS_TRIED = 100
_STOP_SECONDS = 10.0
_KEPT = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE")
# Kept so that an ended server is reaped, and Python does not warn of a child left running.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a person (name, password) and a program (token) sign in; `repr` hides the secrets."""

    url: str
    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def address(port: int) -> str:
    """Where a server on this port is found, from this machine only."""
    return f"http://127.0.0.1:{port}"


def launch(program: Path, data: Path, port: int, known: SignIn) -> int:
    """Run the server detached, holding the lock of `server.json`; gives its process number."""
    options = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    options += ["--enable-legacy-api-token", "--log-level", "WARNING"]
    state = os.open(data / "server.json", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(state, 0)  # before it is locked: no stale number is ever read as alive
        fcntl.flock(state, fcntl.LOCK_EX)
        with (data / "server.log").open("wb") as log:
            child = subprocess.Popen(
                [program, *options],
                env=_variables(data, port, known),
                cwd=data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(state,),
                umask=0o077,
            )
        os.write(state, json.dumps({"pid": child.pid, "port": port}).encode())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ReadingRoomError(f"{program} cannot be run ({reason}); install it anew.") from error
    finally:
        os.close(state)
    _children.append(child)
    return child.pid


def _variables(data: Path, port: int, known: SignIn) -> dict[str, str]:
    """The whole environment of the server.

    Label Studio reads bare names too (HOST, DEBUG, PASSWORD, DJANGO_DB, CI): nothing of the
    caller's environment passes but what a program needs to run.
    """
    settings = {
        "BASE_DATA_DIR": str(data / "server"),  # SQLite and the key that signs sessions
        "HOST": address(port),
        "USERNAME": known.username,
        "PASSWORD": known.password,
        "USER_TOKEN": known.token,
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(data / "media"),
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",  # others on this machine reach the port too
        "TASK_LOCK_TTL": str(TASK_LOCK_SECONDS),
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "FEATURE_FLAGS_OFFLINE": "true",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    # Some pages fetch news through the server and no setting stops them. A proxy that is not
    # there does (port 9 discards); this machine itself stays within reach.
    nowhere = "http://127.0.0.1:9"
    proxies = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": "127.0.0.1,localhost"}
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    python = {"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"}
    ours = {f"LABEL_STUDIO_{name}": value for name, value in settings.items()}
    return kept | python | proxies | ours


def output(data: Path) -> str:
    """What the last server wrote, its first mebibyte."""
    try:
        with (data / "server.log").open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def recorded(data: Path) -> tuple[int, int] | None:
    """Process and port of the last server that was launched."""
    try:
        said = json.loads((data / "server.json").read_text(encoding="utf-8"))
        return int(said["pid"]), int(said["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def alive(data: Path) -> tuple[int, int] | None:
    """Process and port of the server, ready or not; None where none is alive."""
    for _ in range(20):
        if gone(data, 0):
            return None
        if found := recorded(data):
            return found
        time.sleep(0.05)  # launched this instant: its number is about to be written
    return None


def gone(data: Path, seconds: float) -> bool:
    """Whether nobody holds the lock of `server.json`, now or within some seconds."""
    try:
        state = os.open(data / "server.json", os.O_RDONLY)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(state, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: askers do not collide
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
    finally:
        os.close(state)


def free_port(wanted: int) -> int:
    """The first port from `wanted` on that nobody listens on. Label Studio would move silently."""
    for port in range(wanted, min(wanted + _PORTS_TRIED, 65536)):
        with socket.socket() as asker, socket.socket() as taker:
            if asker.connect_ex(("127.0.0.1", port)) == 0:
                continue
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taker.bind(("127.0.0.1", port))
            except PermissionError as error:
                raise ReadingRoomError(
                    f"Port {port} is not open to your account; give one from 1024 up."
                ) from error
            except OSError:
                continue
            return port
    raise ReadingRoomError(f"No port is free from {wanted} on; give another with --port.")


def end(data: Path) -> bool:
    """End the server of a data folder and wait until it is gone; True if there was one."""
    found = alive(data)
    if found is None:
        return False
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found[0], sign)
        if gone(data, _STOP_SECONDS):
            break
    else:
        raise ReadingRoomError(f"Label Studio (process {found[0]}) does not end; end it by hand.")
    _children[:] = [child for child in _children if child.poll() is None]
    return True
