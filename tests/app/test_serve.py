"""`readloop serve`: what it refuses before it listens, and who may see and do what."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from app.cli import run
from app.serve_cli import loopback
from tests import toy, web, web_workspaces

ROLES = {"readers": ["ana@x.org"], "leads": ["lea@x.org"], "engineers": ["eva@x.org"]}
VERIFIED = {"is_logged_in": True, "email_verified": True}
pytestmark = pytest.mark.usefixtures("no_label_studio")


def served(tmp_path, **access: object):
    tables = {"access": {"login": True, **ROLES, **access}}
    return web_workspaces.empty(tmp_path / "w", **tables)


def somebody(email: str, **more: object) -> dict[str, object]:
    return {"email": email, **VERIFIED, **more}


def refusal(capsys, *arguments: object) -> str:
    """The one sentence of a refused command."""
    assert run(["serve", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    assert " at http://" not in captured.out
    (line,) = captured.err.strip().splitlines()
    return line


# Before it listens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("", False),
        ("127.0.0.1.nip.io", False),
    ],
)
def test_which_addresses_this_machine_alone_can_reach(host, own):
    assert loopback(host) is own


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_others_are_let_in_with_a_sign_in_alone(empty, capsys, host):
    told = refusal(capsys, empty, "--host", host)
    assert "nobody has to sign in: set `login = true`" in told


def test_a_sign_in_needs_its_secrets(tmp_path, capsys):
    root = served(tmp_path)
    assert "[access] login is on, which needs --secrets FILE" in refusal(capsys, root)
    missing = tmp_path / "none.toml"
    told = refusal(capsys, root, "--secrets", missing)
    assert f"--secrets {missing}: there is no such file" in told


def test_secrets_that_are_missing_are_named_without_a_sign_in_too(empty, tmp_path, capsys):
    assert "there is no such file" in refusal(capsys, empty, "--secrets", tmp_path / "none.toml")


def test_a_busy_port_is_one_sentence(empty, capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as busy:
        port = busy.getsockname()[1]
        told = refusal(capsys, empty, "--port", port)
    assert f"127.0.0.1:{port} cannot be listened on" in told
    assert "choose another --port" in told


def test_a_port_or_workspace_that_is_none_is_one_sentence(empty, tmp_path, capsys):
    assert "--port" in refusal(capsys, empty, "--port", 70000)
    assert "is not a workspace" in refusal(capsys, tmp_path / "none")
    assert "--jobs 'cluster' is not usable" in refusal(capsys, empty, "--jobs", "cluster")


# Who may do what ----------------------------------------------------------------------------------


def test_nobody_sees_anything_before_they_sign_in(tmp_path):
    root = served(tmp_path)
    for user in ({}, {"is_logged_in": False}, {"is_logged_in": False, "email": "eva@x.org"}):
        at = web.app(root, user)
        assert [b.label for b in at.button] == ["Sign in"]
        assert "Sign in to see this workspace." in web.text(at)
        assert str(root) not in web.text(at)
        assert "Overview" not in web.text(at)


@pytest.mark.parametrize(
    ("email", "first"),
    [
        ("eva@x.org", "What the labels bought"),
        ("EVA@X.org", "What the labels bought"),
        ("lea@x.org", "What the labels bought"),
        ("ana@x.org", "Cases that wait for a radiologist"),
    ],
)
def test_everybody_begins_where_they_work(tmp_path, email, first):
    at = web.app(served(tmp_path), somebody(email))
    assert first in web.text(at)
    assert not at.error


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (somebody("eve@x.org"), "eve@x.org has no role here"),
        (somebody("eva@x.org", email_verified=False), "no verified e-mail address"),
        ({"is_logged_in": True}, "no verified e-mail address"),
        ({"is_logged_in": True, "email": ""}, "no verified e-mail address"),
        (somebody("ana@x.org.evil.org"), "has no role here"),
    ],
)
def test_whom_nobody_named_is_refused_and_can_sign_out(tmp_path, user, words):
    at = web.app(served(tmp_path), user)
    (error,) = web.errors(at)
    assert words in error
    assert [b.label for b in at.button] == ["Sign out"]
    assert "What the labels bought" not in web.text(at)


def test_of_several_roles_the_highest_counts(tmp_path):
    root = served(tmp_path, readers=["eva@x.org"])
    assert "What the labels bought" in web.text(web.app(root, somebody("eva@x.org")))


def test_without_a_sign_in_whoever_sits_here_is_an_engineer(tmp_path):
    root = toy.make(tmp_path / "w", access=ROLES)
    assert "What the labels bought" in web.text(web.app(root, somebody("eve@x.org")))
    assert os.environ.get("READLOOP_JOBS") is None
