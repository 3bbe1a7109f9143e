"""A Label Studio of the workspace's own, on this machine: install, start, find, stop.

It listens on 127.0.0.1 alone, keeps SQLite and secrets in a private folder beside the workspace,
and is told to reach nothing else. Every function raises `ReadingRoomError` where it cannot do
what it says. Linux and macOS.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock

from connectors.label_studio.environment import VERSION, environment, install, telling_line
from connectors.label_studio.process import (
    SignIn,
    address,
    alive,
    end,
    free_port,
    gone,
    launch,
    output,
    recorded,
)
from ssl_core.errors import ReadingRoomError

__all__ = ["VERSION", "Server", "SignIn", "data_folder", "environment", "install", "media_folder"]
__all__ += ["running", "sign_in", "start", "stop"]

USERNAME = "readloop@localhost.localdomain"
_LISTENS = re.compile(r"Starting development server at http://127\.0\.0\.1:(\d+)/")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address, its process (the leader of its group), its folder."""

    url: str
    pid: int
    data: Path


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
        known = recorded(data)
        place = address(known[1] if known else 8080)
        return SignIn(place, str(secret["username"]), str(secret["password"]), str(secret["token"]))
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
    found, known = alive(data), sign_in(workspace)
    if found is None or known is None or _greeting(found[1], known) != "ours":
        return None
    return Server(address(found[1]), found[0], data)


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
    return end(data_folder(workspace))


def _started(
    program: Path,
    data: Path,
    port: int,
    known: SignIn,
    deadline: float,
    report: Callable[[str], None],
) -> Server:
    """Adopt a server that another start left unfinished, or launch one on the next free port."""
    found = alive(data)
    if found is None:
        report("Starting Label Studio; the first time on a workspace takes about a minute.")
    candidate = port
    while True:
        if found is None:
            candidate = free_port(candidate)
            if candidate != port:
                report(f"Port {port} is taken; Label Studio uses {candidate}.")
            found = (launch(program, data, candidate, known), candidate)
        if _settled(data, found[1], known, deadline):
            return Server(address(found[1]), found[0], data)
        stop_at = found[1]  # somebody took the port while the server was getting ready
        end(data)
        found, candidate = None, stop_at + 1


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
    drawn = SignIn(address(8080), USERNAME, secrets.token_urlsafe(12), secrets.token_hex(20))
    text = json.dumps({name: getattr(drawn, name) for name in ("username", "password", "token")})
    scratch = data / "sign-in.new"
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(data / "sign-in.json")
    return drawn


def _settled(data: Path, port: int, known: SignIn, deadline: float) -> bool:
    """Wait until the server is ready; False if it found `port` taken. Raises when it failed."""
    while time.monotonic() < deadline:
        lives, said = alive(data) is not None, output(data)
        listens = _LISTENS.search(said)
        if "port is already in use" in said or (listens and int(listens[1]) != port):
            return False
        if not lives:
            raise _failed(data, "ended before it was ready")
        # Only now is the token shown: until it listens, an answer would be somebody else's.
        greeting = _greeting(port, known) if listens else "silent"
        if greeting == "ours":
            return True
        if greeting == "refused" and not gone(data, 1.0):
            raise ReadingRoomError(
                f"Label Studio does not accept the sign-in in {data / 'sign-in.json'}; put back "
                "the file that belongs to it, or move the whole folder away to start anew."
            )
        time.sleep(0.2)
    raise _failed(data, "was not ready in time")


def _failed(data: Path, what: str) -> ReadingRoomError:
    last = telling_line(output(data)) or "it wrote nothing"
    return ReadingRoomError(f"Label Studio {what}: {last} (all of it: {data / 'server.log'}).")


def _greeting(port: int, known: SignIn) -> str:
    """What the server on `port` makes of our token: "ours", "refused" or "silent"."""
    place, header = f"{address(port)}/api/current-user/whoami", f"Token {known.token}"
    try:  # a proxy of the caller's is not asked for this machine
        answer = httpx.get(place, headers={"Authorization": header}, timeout=10, trust_env=False)
        if answer.status_code in (401, 403):
            return "refused"
        return "ours" if answer.json()["email"] == known.username else "silent"
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return "silent"
