"""The life of a local Label Studio, with the real one."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from connectors.label_studio import environment as env
from connectors.label_studio import process, server
from ssl_core.errors import ReadingRoomError
from tests import label_studio

COLUMNS = ["ps", "-A", "-ww", "-o", "command="]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with one file, and a prepared data folder beside it; its server is started."""
    folder = tmp_path_factory.mktemp("life") / "W"
    folder.mkdir()
    (folder / "readloop.toml").write_text("seed = 0\n")
    label_studio.prepare(folder)
    server.start(folder, label_studio.free_port())
    try:
        yield folder
    finally:
        server.stop(folder)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """A workspace that never had a server; whatever a test leaves running is ended."""
    folder = tmp_path / "W"
    folder.mkdir()
    yield folder
    server.stop(folder)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that puts a shell script in the place of `label-studio`."""

    def place(script: str) -> None:
        path = tmp_path / "env" / "bin" / "label-studio"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv(env.VARIABLE, str(tmp_path / "env"))

    return place


@contextmanager
def listener(status: int = 200, body: bytes = b'{"status":"UP"}') -> Iterator[tuple[int, list]]:
    """Somebody else's server on a loopback port: answers everything alike, keeps the headers."""
    heard: list[dict[str, str]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield other.server_address[1], heard
        finally:
            other.shutdown()
            thread.join()


def secrets_of(workspace: Path) -> list[str]:
    known = server.sign_in(workspace)
    assert known is not None
    return [known.password, known.token]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The running server


def test_a_running_server_is_found_and_started_once(workspace):
    found = server.running(workspace)
    assert found is not None
    said: list[str] = []
    began = time.monotonic()
    assert server.start(workspace, report=said.append) == found
    assert time.monotonic() - began < 3
    assert said == []
    assert httpx.get(f"{found.url}/health").json() == {"status": "UP"}


def test_a_person_signs_in_with_the_password_and_a_program_with_the_token(workspace):
    known = server.sign_in(workspace)
    found = server.running(workspace)
    assert found is not None
    assert known.url == found.url
    with httpx.Client(base_url=known.url) as page:
        page.get("/user/login/")
        form = {"email": known.username, "password": known.password}
        form["csrfmiddlewaretoken"] = page.cookies["csrftoken"]
        assert page.post("/user/login/", data=form).status_code == 302
        assert page.get("/api/current-user/whoami").json()["email"] == known.username
        wrong = httpx.get(f"{known.url}/api/projects/", headers={"Authorization": "Token x"})
        assert wrong.status_code == 401
    with label_studio.project(known) as number:
        assert number >= 1


def test_it_listens_on_this_machine_only_and_nobody_else_can_sign_up(workspace):
    known = server.sign_in(workspace)
    port = int(known.url.rsplit(":", 1)[1])
    with httpx.Client(base_url=known.url) as page:
        page.get("/user/signup/")
        form = {"email": "b@example.com", "password": "long-enough-1"}
        form["csrfmiddlewaretoken"] = page.cookies["csrftoken"]
        assert page.post("/user/signup/", data=form).status_code == 403
    lines = Path("/proc/net/tcp")
    if lines.exists():  # macOS has no such table
        local = [line.split()[1] for line in lines.read_text().splitlines()[1:]]
        assert f"0100007F:{port:04X}" in local
        assert f"00000000:{port:04X}" not in local


def test_images_below_media_are_served_to_a_project_that_has_a_storage(workspace):
    known = server.sign_in(workspace)
    picture = server.media_folder(workspace) / "images" / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    address = f"{known.url}/data/local-files/?d=images/a.png"
    header = {"Authorization": f"Token {known.token}"}
    with label_studio.project(known) as number:
        storage = {"project": number, "path": str(picture.parent), "use_blob_urls": True}
        made = httpx.post(f"{known.url}/api/storages/localfiles", json=storage, headers=header)
        assert made.status_code == 201, made.text
        assert httpx.get(address, headers=header).content == picture.read_bytes()
        assert httpx.get(address).status_code in (302, 401, 403)
        outside = address.replace("images/a.png", "../sign-in.json")
        refused = httpx.get(outside, headers=header)
        assert refused.status_code >= 400
        assert known.token not in refused.text


def test_secrets_stay_in_the_private_folder(workspace):
    data = server.data_folder(workspace)
    assert data.parent == workspace.parent
    assert (mode(data), mode(data / "sign-in.json")) == (0o700, 0o600)
    commands = subprocess.run(COLUMNS, capture_output=True, text=True, check=True).stdout
    assert "label-studio start" in commands
    log = (data / "server.log").read_text()
    assert "Starting development server" in log
    for secret in secrets_of(workspace):
        assert len(secret) >= 16
        assert secret not in commands
        assert secret not in log
        assert secret not in repr(server.sign_in(workspace))
    inside = [path for path in workspace.rglob("*") if path.is_file()]
    assert [path.name for path in inside] == ["readloop.toml"]
    assert inside[0].read_text() == "seed = 0\n"


def test_the_server_reaches_nothing_outside(workspace):
    known = server.sign_in(workspace)
    began = time.monotonic()
    assert httpx.get(f"{known.url}/heidi-tips/").status_code == 404  # fetched from GitHub else
    assert time.monotonic() - began < 2
    page = httpx.get(f"{known.url}/user/login/").text
    sources = re.findall(r'<script[^>]*\bsrc="(https?://[^"]+)"', page)
    assert [source for source in sources if not source.startswith(known.url)] == []


def test_nothing_of_the_callers_environment_steers_the_server(tmp_path, monkeypatch):
    for name in ("DEBUG", "DJANGO_DB", "PASSWORD", "LABEL_STUDIO_SENTRY_DSN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "from-the-caller")
    known = server.SignIn("http://127.0.0.1:1", "name", "word", "token")
    variables = process._variables(tmp_path, 1234, known)
    assert "from-the-caller" not in variables.values()
    assert variables["LABEL_STUDIO_HOST"] == "http://127.0.0.1:1234"
    assert variables["LABEL_STUDIO_TASK_LOCK_TTL"] == "3600"
    for name in ("COLLECT_ANALYTICS", "LATEST_VERSION_CHECK"):
        assert variables[f"LABEL_STUDIO_{name}"] == "false"
    assert variables["LABEL_STUDIO_SENTRY_DSN"] == ""


def test_killed_found_dead_and_started_again_with_its_sessions(workspace):
    before = server.running(workspace)
    known = server.sign_in(workspace)
    key = (server.data_folder(workspace) / "server" / ".env").read_text()
    assert re.search(r"SECRET_KEY=\S{20,}", key)
    os.killpg(before.pid, signal.SIGKILL)
    assert process.gone(server.data_folder(workspace), 5)
    assert server.running(workspace) is None
    assert server.stop(workspace) is False
    assert server.sign_in(workspace) == known  # of the last server
    with ThreadPoolExecutor(2) as pool:  # two starts at once: one server
        port = label_studio.free_port()
        one, two = pool.map(lambda _: server.start(workspace, port), range(2))
    assert one == two == server.running(workspace)
    assert one.pid != before.pid
    assert one.url == f"http://127.0.0.1:{port}"
    assert (server.data_folder(workspace) / "server" / ".env").read_text() == key


def test_a_taken_port_is_left_alone_and_the_next_one_told(workspace):
    server.stop(workspace)
    token = secrets_of(workspace)[1]
    said: list[str] = []
    with listener() as (taken, heard):
        found = server.start(workspace, taken, said.append)
        port = int(found.url.rsplit(":", 1)[1])
        assert taken < port < taken + 100
        assert f"Port {taken} is taken; Label Studio uses {port}." in said
        assert token not in json.dumps(heard)
        assert httpx.get(f"http://127.0.0.1:{taken}/").json() == {"status": "UP"}
    assert server.stop(workspace) is True
    assert server.running(workspace) is None
    with pytest.raises(ProcessLookupError):
        os.kill(found.pid, 0)


# What is not a running server


def test_before_the_first_start_there_is_nothing(empty):
    assert server.running(empty) is None
    assert server.sign_in(empty) is None
    assert server.stop(empty) is False
    assert not server.data_folder(empty).exists()
    assert server.data_folder(empty / "." / ".." / "W") == empty.parent / "W.label-studio"


def test_a_stale_process_number_is_nobody(empty):
    data = server.data_folder(empty)
    data.mkdir()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (data / "server.json").write_text(json.dumps({"pid": bystander.pid, "port": 1}))
        assert server.running(empty) is None
        assert server.stop(empty) is False
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")


@pytest.mark.parametrize("content", ["", "[]", '{"username": "a"}', "{"])
def test_a_damaged_sign_in_is_told_by_name(empty, content):
    data = server.data_folder(empty)
    data.mkdir()
    (data / "sign-in.json").write_text(content)
    with pytest.raises(ReadingRoomError, match=r"sign-in\.json cannot be read"):
        server.sign_in(empty)


@pytest.mark.parametrize("body", [b'{"status":"UP"}', b'{"email":"other@example.com"}', b"<html>"])
def test_somebody_elses_server_is_not_taken_for_ours(empty, program, body):
    with listener(body=body) as (port, _):
        # Alive, and its record says that port: all but the greeting speaks for it.
        program(f'echo "Starting development server at http://127.0.0.1:{port}/"; sleep 60')
        data = server.data_folder(empty)
        server._make_folders(data)
        known = server._new_sign_in(empty)
        process.launch(server.install(), data, port, known)
        assert process.alive(data) is not None
        assert server.running(empty) is None
        with pytest.raises(ReadingRoomError, match="was not ready in time"):
            server.start(empty, port, timeout=0.5)
        assert process.alive(data) is None


def test_a_sign_in_of_another_server_is_told(empty, program):
    with listener(status=401) as (port, _):
        program(f'echo "Starting development server at http://127.0.0.1:{port}/"; sleep 60')
        server._make_folders(server.data_folder(empty))
        known = server._new_sign_in(empty)
        process.launch(server.install(), server.data_folder(empty), port, known)
        with pytest.raises(ReadingRoomError, match=r"not accept the sign-in in .*sign-in\.json"):
            server.start(empty, port, timeout=10)
        assert process.alive(server.data_folder(empty)) is None


# Failures


def test_a_program_that_fails_is_told_with_its_last_line(empty, program):
    program('echo "Traceback"; echo "  OSError: the  disk is full." >&2; echo; exit 3')
    with pytest.raises(ReadingRoomError) as caught:
        server.start(empty, label_studio.free_port())
    log = server.data_folder(empty) / "server.log"
    assert str(caught.value) == (
        f"Label Studio ended before it was ready: OSError: the disk is full (all of it: {log})."
    )
    assert server.running(empty) is None


def test_a_program_that_hangs_is_ended(empty, program, monkeypatch):
    program("echo thinking; trap '' TERM; sleep 60 & wait; sleep 60")
    monkeypatch.setattr(process, "_STOP_SECONDS", 0.5)
    with pytest.raises(ReadingRoomError, match="was not ready in time: thinking"):
        server.start(empty, label_studio.free_port(), timeout=0.5)
    assert process.alive(server.data_folder(empty)) is None


def test_a_program_that_cannot_be_run_is_told(empty, program, tmp_path):
    program("exit 0")
    (tmp_path / "env" / "bin" / "label-studio").chmod(0o600)
    with pytest.raises(ReadingRoomError, match=r"label-studio cannot be run \(Permission denied\)"):
        server.start(empty, label_studio.free_port())


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_refused(empty, port):
    with pytest.raises(ReadingRoomError, match=f"^{port} is not a port"):
        server.start(empty, port)


def test_a_port_taken_while_it_got_ready_is_followed_by_the_next(empty, program):
    wanted = label_studio.free_port()
    program('echo "Error: That port is already in use."; exit 1')
    said: list[str] = []
    with pytest.raises(ReadingRoomError, match="was not ready in time"):
        server.start(empty, wanted, said.append, timeout=2)
    assert any(text.startswith(f"Port {wanted} is taken") for text in said)


# Installation


def test_the_lock_pins_the_server_and_its_client_with_hashes_and_names_no_host():
    text = env.LOCK.read_text()
    assert f"label-studio=={env.VERSION} \\\n    --hash=sha256:" in text
    assert "label-studio-sdk==2.1.2 \\\n    --hash=sha256:" in text
    assert "://" not in text
    pins = re.findall(r"(?m)^\S+==.*$", text)
    assert len(pins) == len(re.findall(r"(?m)^\S.*\n    --hash", text)) > 100


def test_the_environment_is_named_by_its_lock_or_by_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv(env.VARIABLE, raising=False)
    assert re.fullmatch(rf"label-studio-{env.VERSION}-[0-9a-f]{{8}}", env.environment().name)
    monkeypatch.setenv(env.VARIABLE, str(tmp_path / "mine"))
    assert env.environment() == tmp_path / "mine"


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """An installation of nothing: an empty environment, to which a test may add the program."""
    lock = tmp_path / "server.lock"
    lock.write_text("")
    monkeypatch.setattr(env, "LOCK", lock)
    monkeypatch.setenv(env.VARIABLE, str(tmp_path / "env"))
    return tmp_path / "env"


def test_installing_twice_at_once_is_done_once(small, monkeypatch):
    real, calls = env._run_uv, []

    def counted(*arguments: str) -> None:
        calls.append(arguments[0])
        real(*arguments)
        if arguments[0] == "pip":  # what the real lock would have brought
            (small / "bin" / "label-studio").write_text("#!/bin/sh\n")

    monkeypatch.setattr(env, "_run_uv", counted)
    with ThreadPoolExecutor(3) as pool:
        programs = set(pool.map(lambda _: env.install(), range(3)))
    assert programs == {small / "bin" / "label-studio"}
    assert calls == ["venv", "pip"]
    assert (small / "bin" / "python").exists()
    assert env.install() in programs
    assert len(calls) == 2


def test_a_killed_installation_is_begun_anew(small, monkeypatch):
    (small / "bin").mkdir(parents=True)
    (small / "bin" / "label-studio").write_text("half a fi")
    small.with_name("env.unfinished").touch()
    with pytest.raises(ReadingRoomError, match="brought no label-studio"):
        env.install()  # begun anew: the half file is gone, and the empty lock brings no other
    assert not (small / "bin" / "label-studio").exists()
    assert (small / "bin" / "python").exists()


def test_an_environment_made_by_hand_is_used_and_anything_else_is_left_alone(small):
    small.mkdir()
    keep = small / "thesis.tex"
    keep.write_text("years of work")
    with pytest.raises(ReadingRoomError, match="holds no Label Studio"):
        env.install()
    assert keep.read_text() == "years of work"
    (small / "bin").mkdir()
    (small / "bin" / "label-studio").write_text("#!/bin/sh\n")
    assert env.install() == small / "bin" / "label-studio"
    assert keep.exists()


def test_an_installation_waits_for_another_ones_lock(small):
    with ThreadPoolExecutor(1) as pool:
        with FileLock(small.with_name("env.lock")):
            waiting = pool.submit(env.install)
            time.sleep(0.3)
            assert not waiting.done()
            (small / "bin").mkdir(parents=True)
            (small / "bin" / "label-studio").write_text("#!/bin/sh\n")
        assert waiting.result(timeout=10) == small / "bin" / "label-studio"
    assert not (small / "bin" / "python").exists()  # found ready, not made


def test_what_uv_says_is_passed_on_in_one_sentence(small):
    env.LOCK.write_text("no-such-package-here==0.0.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(ReadingRoomError, match=r"^Label Studio 1\.23\.2 cannot be installed: "):
        env.install()
    assert small.with_name("env.unfinished").exists()
    assert "\n" not in env.telling_line("a\n\nb \x1b[31m c.\n\n")
    assert env.telling_line("a\n\nb \x07 c.\n\n") == "b ? c"
