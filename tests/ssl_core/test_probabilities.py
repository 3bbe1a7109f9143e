"""What models say of items: put by by the stages, the same when it is computed anew."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ssl_core import probabilities as kept
from ssl_core.rounds import run_round
from tests import toy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = toy.make(tmp_path_factory.mktemp("kept") / "w")
    workspace, room = toy.opened(root)
    run_round(workspace, room, query_size=12)
    run_round(workspace, room)
    return root


def asked(workspace, split):
    return [item.id for item in workspace.ledger.items(split)]


def test_what_a_round_predicted_is_not_predicted_again(root, monkeypatch):
    workspace, _ = toy.opened(root)
    monkeypatch.setattr(kept, "_predicted", lambda *_, **__: pytest.fail("predicted again"))
    for _, model in workspace.ledger.models(2):
        found = kept.probabilities(workspace, 2, model, asked(workspace, "validation"))
        assert found.shape == (len(asked(workspace, "validation")), 1)
        assert np.isfinite(found).all()
    teacher = kept.stage_model(workspace, 2, "teacher")
    labeled = {label.item_id for label in workspace.ledger.labels(before_round=2)}
    pool = [item for item in asked(workspace, "train") if item not in labeled]
    assert np.isfinite(kept.probabilities(workspace, 2, teacher, pool)).all()


def test_it_is_what_would_be_computed(root, tmp_path):
    shutil.copytree(root, tmp_path / "w")
    workspace, _ = toy.opened(tmp_path / "w")
    student = kept.stage_model(workspace, 2)
    before = kept.probabilities(workspace, 2, student, asked(workspace, "validation"))
    shutil.rmtree(workspace.root / kept.FOLDER)
    after = kept.probabilities(workspace, 2, student, asked(workspace, "validation"))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_disk_that_is_full_ends_no_round(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(workspace, room, query_size=12)
    monkeypatch.setattr(kept, "_keep", full)
    run_round(workspace, room)
    assert workspace.ledger.finished(2)
    assert not (workspace.root / kept.FOLDER).exists()
