"""The command line as a user meets it: a whole run, and one sentence for every bad input."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import run
from tests import toy

BINARY = ["--group-column", "patient", "--label-column", "label", "--positive", "yes"]


def write_set(folder: Path, items: int = 48) -> Path:
    """A folder of images with a manifest; two images a patient."""
    rng = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(items):
        spot = bool(rng.random() < 0.5)
        path = f"images/{i:03d}.png"
        Image.fromarray(toy.picture(rng, spot, False)[:, :, 0]).save(folder / path)
        rows.append((path, f"P{i // 2}", "yes" if spot else "no"))
    write_manifest(folder, rows)
    return folder


def write_manifest(folder: Path, rows: list[tuple[str, ...]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "label"), *rows])


def init(workspace: Path, data: Path, *more: str) -> int:
    manifest = str(data / "manifest.csv")
    small = ["--preset", "tiny", "--size", "16", "--validation", "0.2"]
    where = ["--images", str(data), "--manifest", manifest]
    return run(["init", str(workspace), *where, *BINARY, *small, *more])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "data")


@pytest.fixture(scope="module")
def archive(data, tmp_path_factory) -> Path:
    """A workspace with a trained student, made by the commands alone; the test only reads it."""
    workspace = tmp_path_factory.mktemp("cli") / "w"
    assert init(workspace, data, "--archive") == 0
    toml = workspace / "readloop.toml"
    quick = re.sub(r"(epochs|epoch_steps) = \d+", r"\1 = 2", toml.read_text())
    toml.write_text(quick)
    assert run(["round", str(workspace), "--query-size", "12"]) == 0
    assert run(["round", str(workspace), "--query-size", "4"]) == 0
    return workspace


def refusal(capsys, *arguments: str) -> str:
    """The one sentence of a refused command."""
    assert run(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("readloop: ")
    assert "Traceback" not in captured.out
    return lines[0]


def test_init_says_what_came_in(data, tmp_path, capsys):
    assert init(tmp_path / "w", data, "--archive") == 0
    out = capsys.readouterr().out
    assert "48 rows read, 0 duplicates" in out
    assert "readloop round" in out
    assert {p.name for p in (tmp_path / "w").iterdir()} >= {"readloop.toml", "ledger.db", "images"}


def test_without_archive_known_labels_are_initial_labels(data, tmp_path, capsys):
    rows = list(csv.reader((data / "manifest.csv").open()))[1:]
    half = [
        (path, patient, label if i % 2 else "") for i, (path, patient, label) in enumerate(rows)
    ]
    manifest = tmp_path / "half.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "label"), *half])
    arguments = ["--images", str(data), "--manifest", str(manifest), *BINARY, "--preset", "tiny"]
    assert run(["init", str(tmp_path / "w"), *arguments, "--size", "16"]) == 0
    capsys.readouterr()
    assert run(["status", str(tmp_path / "w"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert sum(status["labels"].values()) == 24
    assert not status["archive"]


def test_without_a_preset_nothing_is_fetched(data, tmp_path, capsys):
    where = ["--images", str(data), "--manifest", str(data / "manifest.csv")]
    assert run(["init", str(tmp_path / "w"), *where, *BINARY, "--archive"]) == 0
    assert "preset tiny" in capsys.readouterr().out
    assert 'weights = "none"' in (tmp_path / "w" / "readloop.toml").read_text()


def test_status_tells_the_rounds(archive, capsys):
    assert run(["status", str(archive), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert [r["labels"]["train"] for r in status["rounds"]] == [0, 12]
    assert set(status["rounds"][1]["auroc"]) == {"teacher", "intermediate", "student"}
    assert status["vault_looks"] == 1
    assert run(["status", str(archive)]) == 0
    assert "student" in capsys.readouterr().out


def test_predict_gives_probabilities(archive, data, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    image = str(data / "images" / "000.png")
    assert run(["predict", str(archive), image, image, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = (one["probabilities"]["label"] for one in found["images"])
    assert first == second
    assert 0 <= first <= 1
    assert (found["images"][0]["present"] == ["label"]) == (first >= found["thresholds"]["label"])
    assert run(["predict", str(archive), image]) == 0
    assert "000.png" in capsys.readouterr().out


def test_export_writes_labels_with_provenance_and_the_model(archive, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["export", str(archive), "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "labels.csv").open()))
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert {row["reader"] for row in rows} == {"archive"}
    assert {row["value"] for row in rows} == {"0", "1"}
    card = json.loads((out / "model-card.json").read_text())
    assert card["labels"]["train"] == 12
    assert "AUROC".lower() in (out / "model-card.md").read_text()
    assert (out / "model.safetensors").stat().st_size > 1000


def test_export_into_a_full_folder_is_refused(archive, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    assert "not an empty folder" in refusal(capsys, "export", archive, "--out", tmp_path / "full")


def test_simulate_prints_the_table_and_saves(archive, tmp_path, capsys):
    out = tmp_path / "result.json"
    arguments = ["--budgets", "10,20", "--seeds", "0,1", "--out", str(out)]
    assert run(["simulate", str(archive), *arguments]) == 0
    text = capsys.readouterr().out
    assert "Label cost" in text
    found = json.loads(out.read_text())
    assert [row["budget"] for row in found["rows"]] == [10, 10, 20, 20]
    assert {row["strategy"] for row in found["rows"]} == {"margin", "random"}
    ours = next(row for row in found["rows"] if row["strategy"] == "margin")
    assert ours["difference"]["low"] <= ours["difference"]["value"] <= ours["difference"]["high"]
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    again = run(["simulate", str(archive), *arguments])
    assert again == 0
    assert json.loads(out.read_text()) == found  # finished cells are kept


def test_one_seed_is_compared_by_patient(archive, tmp_path):
    out = tmp_path / "one.json"
    arguments = ["--budgets", "10", "--seeds", "0", "--out", str(out)]
    assert run(["simulate", str(archive), *arguments]) == 0
    ours, control = json.loads(out.read_text())["rows"]
    assert control["difference"] is None
    gap = ours["score"]["student"]["value"] - control["score"]["student"]["value"]
    assert ours["difference"]["value"] == pytest.approx(gap)
    assert ours["difference"]["low"] is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budgets", "20,10"], "rising"),
        (["--budgets", "ten"], "rising numbers"),
        (["--budgets", "10,9999"], "holds"),
        (["--budgets", "10", "--seeds", "a"], "whole numbers"),
        (["--budgets", "10", "--strategy", "marjin"], "'marjin' is unknown"),
        (["--budgets", "10", "--recipe", "fixmatsch"], "'fixmatsch' is unknown"),
        ([], "--budgets"),
    ],
)
def test_simulate_refuses_in_one_sentence(archive, capsys, arguments, words):
    assert words in refusal(capsys, "simulate", archive, *arguments)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["round", "nowhere"], "not a workspace"),
        (["status", "nowhere"], "not a workspace"),
        (["predict", "nowhere", "x.png"], "not a workspace"),
        (["frobnicate"], "No such command"),
        (["round"], "Missing argument"),
        (["round", "w", "--query-size", "many"], "--query-size"),
        (["status", "w", "--jsn"], "No such option"),
    ],
)
def test_bad_commands_are_one_sentence(capsys, command, words):
    assert words in refusal(capsys, *command)


def test_predict_names_the_bad_image(archive, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    assert "bad.png" in refusal(capsys, "predict", archive, tmp_path / "bad.png")
    assert "none.png" in refusal(capsys, "predict", archive, tmp_path / "none.png")


def test_nothing_to_resume(archive, capsys):
    assert "no interrupted round" in refusal(capsys, "round", archive, "--resume")


def test_a_typo_in_the_configuration_is_named(archive, tmp_path, capsys):
    copy = tmp_path / "w"
    subprocess.run(["cp", "-r", archive, copy], check=True)
    toml = copy / "readloop.toml"
    toml.write_text(toml.read_text().replace("query_size", "query_sise"))
    assert "query_sise" in refusal(capsys, "round", copy)


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([("../secret.png", "P0", "yes")], [], "leave the image folder"),
        ([("/etc/passwd", "P0", "yes")], [], "leave the image folder"),
        ([("images/none.png", "P0", "yes"), ("images/000.png", "P1", "no")], [], "none.png"),
        ([], [], "no usable row"),
        ([("images/000.png", "P0", "yes")], ["--path-column", "file"], "'file'"),
        ([("images/000.png", "P0", "no")], [], "yes"),
        ([("images/000.png", "P0", "yes")], ["--preset", "huge"], "--preset"),
        ([("images/000.png", "P0", "yes")], ["--no-groups"], "contradict"),
    ],
)
def test_a_failed_init_is_a_sentence_and_leaves_nothing(data, tmp_path, capsys, rows, more, words):
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "label"), *rows])
    arguments = ["init", tmp_path / "w", "--images", data, "--manifest", manifest, *BINARY, *more]
    assert words in refusal(capsys, *arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.csv"]


def test_init_without_a_word_on_patients_is_refused(data, tmp_path, capsys):
    told = refusal(
        capsys, "init", tmp_path / "w", "--images", data, "--manifest", data / "manifest.csv",
        "--label-column", "label",
    )  # fmt: skip
    assert "--group-column is missing" in told


def test_init_into_an_existing_folder_is_refused(data, tmp_path, capsys):
    (tmp_path / "w").mkdir()
    assert init(tmp_path / "w", data) == 2
    assert "exists already" in capsys.readouterr().err


def test_an_unreadable_image_is_named_or_left_out(tmp_path, capsys):
    data = write_set(tmp_path / "data", 40)
    (data / "images" / "007.png").write_bytes(b"\x89PNG broken")
    assert init(tmp_path / "w", data, "--archive") == 2
    assert "images/007.png" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
    assert init(tmp_path / "w", data, "--archive", "--skip-unreadable") == 0
    out = capsys.readouterr().out
    assert "images/007.png" in out
    assert run(["status", str(tmp_path / "w"), "--json"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["items"].values()) == 39


def test_the_command_is_installed():
    command = [sys.executable, "-m", "app.cli", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "simulate" in told.stdout
