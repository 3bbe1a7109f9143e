"""What the README says can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from app.cli import cli
from ssl_core.presets import PRESETS
from ssl_core.recipes import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.S)).replace("\\\n", " ")
COMMANDS = [
    line.split("#")[0].strip() for line in BLOCKS.splitlines() if line.startswith("readloop ")
]


def options(path: list[str]) -> set[str]:
    """The flags of a command, by its words."""
    command = typer.main.get_command(cli)
    for word in path:
        command = command.commands[word]
    return {flag for parameter in command.params for flag in parameter.opts}


def test_the_readme_shows_the_main_commands():
    assert {c.split()[1] for c in COMMANDS} >= {
        "init",
        "simulate",
        "round",
        "status",
        "export",
        "queue",
        "sync",
    }


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_their_flags_exist(line):
    words = shlex.split(line)[1:]
    path = words[:2] if words[0] in ("bench", "label-studio") else words[:1]
    flags = {word for word in words if word.startswith("--")}
    assert flags <= options(path), line


def test_options_in_the_text_exist():
    flags = set(re.findall(r"`(--[a-z-]+)", README))
    commands = [
        "init",
        "round",
        "simulate",
        "status",
        "sync",
        "serve",
        "api",
        "promote",
        "map",
        "report",
    ]
    known = options(["bench", "s0"]).union(*(options([command]) for command in commands))
    assert flags <= known, flags - known


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets


def test_presets_and_recipes_are_named():
    assert all(f"`{name}`" in README for name in PRESETS)
    assert "`teacher_student`" in README
    assert "teacher_student" in RECIPES


def test_files_named_in_the_house_exist():
    for place in re.findall(r"^\| `([a-z_/]+/)` \|", README, flags=re.M):
        assert (ROOT / place).is_dir(), place


def test_the_lock_names_no_address():
    for lock in (ROOT / "requirements.lock", ROOT / "connectors/label_studio/server.lock"):
        assert "://" not in lock.read_text()
