"""Commands where masks are drawn: they say Dice, or refuse in one sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from app.cli import run
from ssl_core.workspace import open_workspace
from tests import mask_workspaces, toy
from tests.mask_workspaces import NEWEST


@pytest.fixture
def copy(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "w")


def said(capsys, *arguments) -> str:
    capsys.readouterr()
    assert run([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    assert run([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_status_tells_dice_under_its_own_name(drawn, capsys):
    status = json.loads(said(capsys, "status", drawn, "--json"))
    assert status["metric"] == "dice"
    measured = {
        m.stage: m.value
        for _, m in open_workspace(drawn).ledger.measurements(NEWEST)
        if (m.split, m.finding, m.name) == ("vault", "macro", "dice")
    }
    told = {stage: found["value"] for stage, found in status["rounds"][-1]["dice"].items()}
    assert told == pytest.approx(measured)
    assert "auroc" not in status["rounds"][-1]
    assert status["next"].endswith(f"Next: readloop round {drawn}")
    table = said(capsys, "status", drawn)
    assert "vault Dice" in table
    assert "AUROC" not in table


def test_models_claims_and_report_say_dice(drawn, tmp_path, capsys):
    for command in ("models", "claims", "readers"):
        assert "AUROC" not in said(capsys, command, drawn)
    assert "Measured models: Dice" in said(capsys, "models", drawn)
    out = tmp_path / "report.html"
    said(capsys, "report", drawn, "--out", out)
    text = out.read_text()
    assert "AUROC" not in text
    assert "Dice against labels" in text
    assert "Pseudo-masks, audited" in text
    assert "pseudo-masks 1" in text


def test_a_promotion_is_decided_by_dice_and_undone(copy, capsys):
    other = next(
        model.id
        for number, model in open_workspace(copy).ledger.models()
        if (number, model.stage) == (2, "student")
    )
    told = said(capsys, "promote", copy, "--model", other[:12], "--override", "--why", "a try")
    assert "paired by patient): Dice " in told
    assert f"model {other[:12]}" in told
    assert "In use: " in said(capsys, "rollback", copy)


def test_a_picture_is_scored_and_the_model_exported(drawn, tmp_path, capsys):
    picture = tmp_path / "one.png"
    Image.fromarray(toy.picture(np.random.default_rng(3), True, False)).save(picture)
    (found,) = json.loads(said(capsys, "predict", drawn, picture, "--json"))["images"]
    assert set(found["probabilities"]) == {"Spot", "Bar"}
    assert set(found["present"]) <= {"Spot", "Bar"}
    said(capsys, "export", drawn, "--out", tmp_path / "out")
    assert "dice" in (tmp_path / "out" / "model-card.md").read_text()


def test_maps_and_what_cannot_be_done_yet(copy, tmp_path, capsys):
    assert "has: pca" in said(capsys, "map", copy, "--method", "pca")
    fresh = mask_workspaces.empty(tmp_path / "fresh")
    for command in (("promote",), ("map",), ("rollback",)):
        refused(capsys, *command, fresh)
    for command in ("status", "models", "claims"):
        assert "AUROC" not in said(capsys, command, fresh)
    assert "is not trained" not in said(capsys, "status", fresh)
    said(capsys, "report", fresh, "--out", tmp_path / "fresh.html")
    assert "AUROC" not in (tmp_path / "fresh.html").read_text()


def test_a_replay_is_told_in_dice(tmp_path, capsys):
    root = mask_workspaces.empty(tmp_path / "w", "supervised_masks")
    options = ("--budgets", "8,16", "--strategies", "foreground_random", "--seeds", "0,1")
    told = said(capsys, "replay", root, *options, "--out", tmp_path / "out")
    assert "AUROC" not in told
    assert "foreground_random beside random: Dice, paired" in told
    assert "foreground_random has a mean Dice of" in told
    assert "For a Dice of" in told
    found = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert found["metric"] == "Dice"
    assert all(0 <= one["value"] <= 1 for one in found["replayed"][0]["auroc"])
    said(capsys, "report", root, "--out", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "AUROC" not in text
    assert "Dice of foreground_random beside the random arm of the replay" in text
