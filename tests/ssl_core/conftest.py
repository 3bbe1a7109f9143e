"""Workspaces with a history that test modules look at, and copy before they go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_core.rounds import run_round
from tests import toy


@pytest.fixture(scope="session")
def one_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cold start, which only asked."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "w")
    run_round(*toy.opened(root))
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cold start and a round that trained, never disturbed."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "w")
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    run_round(workspace, room)
    return root
