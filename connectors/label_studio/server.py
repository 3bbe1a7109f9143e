"""A Label Studio of the workspace's own, on this machine: install, start, find, stop.

It listens on 127.0.0.1 alone, keeps SQLite and secrets in a private folder beside the workspace,
and is told to reach nothing else. Every function raises `ReadingRoomError` where it cannot do
what it says. Linux and macOS.

A server is known by a lock and not by its process number, which may be another's by now: it
inherits an open, locked `server.json`, and the system lets go of that lock when it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from filelock import FileLock

from connectors.label_studio.environment import VERSION, environment, install, telling_line
from ssl_core.errors import ReadingRoomError

__all__ = ["VERSION", "Server", "SignIn", "data_folder", "environment", "install", "media_folder"]
__all__ += ["running", "sign_in", "start", "stop"]

USERNAME = "readloop@localhost.localdomain"
TASK_LOCK_SECONDS = 3600  # a task that a reader opened and left is free again after this
_PORTS_TRIED = 100
_STOP_SECONDS = 10.0
_KEPT = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE")
_LISTENS = re.compile(r"Starting development server at http://127\.0\.0\.1:(\d+)/")
# Kept so that a stopped server is reaped, and Python does not warn of a child left running.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address, its process (the leader of its group), its folder."""

    url: str
    pid: int
    data: Path


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a person (name, password) and a program (token) sign in; `repr` hides the secrets."""

    url: str
    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def _say_nothing(_text: str) -> None:
    pass


def data_folder(workspace: Path) -> Path:
    """The server's folder beside the workspace: "W.label-studio" for "W"."""
    folder = workspace.resolve()
    return folder.with_name(f"{folder.name}.label-studio")


def media_folder(workspace: Path) -> Path:
    """The document root of the server's local files; images belong in its `images` folder."""
    return data_folder(workspace) / "media"


def sign_in(workspace: Path) -> SignIn | None:
    """How to sign in to the running or the last server; None before the first start."""
    data = data_folder(workspace)
    try:
        secret = json.loads((data / "sign-in.json").read_text(encoding="utf-8"))
        known = _recorded(data)
        url = _url(known[1] if known else 8080)
        return SignIn(url, str(secret["username"]), str(secret["password"]), str(secret["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadingRoomError(
            f"{data / 'sign-in.json'} cannot be read ({type(error).__name__}); put back the file "
            "that was written there, or move the whole folder away to start a new server."
        ) from error


def running(workspace: Path) -> Server | None:
    """The workspace's server, if it is alive and accepts the sign-in."""
    data = data_folder(workspace)
    found, known = _alive(data), sign_in(workspace)
    if found is None or known is None or _greeting(found[1], known) != "ours":
        return None
    return Server(_url(found[1]), found[0], data)


def start(
    workspace: Path,
    port: int = 8080,
    report: Callable[[str], None] = _say_nothing,
    timeout: float = 180,
) -> Server:
    """Start the workspace's server, or find it running, and wait until it is healthy.

    The first start installs Label Studio and makes its database (about 40 s), a later one takes
    about 7 s. Where `port` is taken, the next free one is used and reported. The server outlives
    this process. Two starts at once give one server. A start that fails leaves none.
    """
    if not 1 <= port <= 65535:
        raise ReadingRoomError(f"{port} is not a port; give a number from 1 to 65535.")
    if found := running(workspace):
        return found
    program = install(report)
    data = data_folder(workspace)
    _make_folders(data)
    with FileLock(data / "start.lock"):
        known = sign_in(workspace) or _new_sign_in(workspace)
        deadline = time.monotonic() + timeout
        try:
            return _started(program, data, port, known, deadline, report)
        except BaseException:  # also Ctrl-C: a server that nobody was told of would stay
            stop(workspace)
            raise


def stop(workspace: Path) -> bool:
    """End the workspace's server and wait until it is gone; True if there was one."""
    data = data_folder(workspace)
    found = _alive(data)
    if found is None:
        return False
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found[0], sign)
        if _gone(data, _STOP_SECONDS):
            break
    else:
        raise ReadingRoomError(f"Label Studio (process {found[0]}) does not end; end it by hand.")
    _children[:] = [child for child in _children if child.poll() is None]
    return True


def _started(
    program: Path,
    data: Path,
    port: int,
    known: SignIn,
    deadline: float,
    report: Callable[[str], None],
) -> Server:
    """Adopt a server that another start left unfinished, or launch one on the next free port."""
    found = _alive(data)
    if found is None:
        report("Starting Label Studio; the first time on a workspace takes about a minute.")
    candidate = port
    while True:
        if found is None:
            candidate = _free_port(candidate)
            if candidate != port:
                report(f"Port {port} is taken; Label Studio uses {candidate}.")
            found = (_launch(program, data, candidate, known), candidate)
        if _settled(data, found[1], known, deadline):
            return Server(_url(found[1]), found[0], data)
        stop_at = found[1]  # somebody took the port while the server was getting ready
        _end(data)
        found, candidate = None, stop_at + 1


def _end(data: Path) -> None:
    stop(data.with_name(data.name.removesuffix(".label-studio")))


def _make_folders(data: Path) -> None:
    try:
        for folder in (data, data / "server", data / "media" / "images"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
    except OSError as error:
        raise ReadingRoomError(
            f"{data} cannot be made for Label Studio ({error.strerror}); the folder that holds "
            "the workspace must be writable."
        ) from error


def _new_sign_in(workspace: Path) -> SignIn:
    """Draw a password and a token, and keep them in a file that only its owner reads."""
    data = data_folder(workspace)
    drawn = SignIn(_url(8080), USERNAME, secrets.token_urlsafe(12), secrets.token_hex(20))
    text = json.dumps({name: getattr(drawn, name) for name in ("username", "password", "token")})
    scratch = data / "sign-in.new"
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(data / "sign-in.json")
    return drawn


def _launch(program: Path, data: Path, port: int, known: SignIn) -> int:
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
        "HOST": _url(port),
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


def _settled(data: Path, port: int, known: SignIn, deadline: float) -> bool:
    """Wait until the server is ready; False if it found `port` taken. Raises when it failed."""
    while time.monotonic() < deadline:
        alive, log = _alive(data) is not None, _log(data)
        listens = _LISTENS.search(log)
        if "port is already in use" in log or (listens and int(listens[1]) != port):
            return False
        if not alive:
            raise _failed(data, "ended before it was ready")
        # Only now is the token shown: until it listens, an answer would be somebody else's.
        greeting = _greeting(port, known) if listens else "silent"
        if greeting == "ours":
            return True
        if greeting == "refused" and not _gone(data, 1.0):
            raise ReadingRoomError(
                f"Label Studio does not accept the sign-in in {data / 'sign-in.json'}; put back "
                "the file that belongs to it, or move the whole folder away to start anew."
            )
        time.sleep(0.2)
    raise _failed(data, "was not ready in time")


def _failed(data: Path, what: str) -> ReadingRoomError:
    last = telling_line(_log(data)) or "it wrote nothing"
    return ReadingRoomError(f"Label Studio {what}: {last} (all of it: {data / 'server.log'}).")


def _log(data: Path) -> str:
    try:
        with (data / "server.log").open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _greeting(port: int, known: SignIn) -> str:
    """What the server on `port` makes of our token: "ours", "refused" or "silent"."""
    address, header = f"{_url(port)}/api/current-user/whoami", f"Token {known.token}"
    try:  # a proxy of the caller's is not asked for this machine
        answer = httpx.get(address, headers={"Authorization": header}, timeout=10, trust_env=False)
        if answer.status_code in (401, 403):
            return "refused"
        return "ours" if answer.json()["email"] == known.username else "silent"
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return "silent"


def _recorded(data: Path) -> tuple[int, int] | None:
    """Process and port of the last server that was launched."""
    try:
        said = json.loads((data / "server.json").read_text(encoding="utf-8"))
        return int(said["pid"]), int(said["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(data: Path) -> tuple[int, int] | None:
    """Process and port of the server, ready or not; None where none is alive."""
    for _ in range(20):
        if _gone(data, 0):
            return None
        if found := _recorded(data):
            return found
        time.sleep(0.05)  # launched this instant: its number is about to be written
    return None


def _gone(data: Path, seconds: float) -> bool:
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


def _free_port(wanted: int) -> int:
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


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
