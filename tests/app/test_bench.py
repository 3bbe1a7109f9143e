"""The papers' tables: arms that share labels, rows computed by hand, runs that stop and go on."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from rich.console import Console

from app.bench import papers, running, tables
from app.bench.datasets import DATASETS, MANIFEST
from app.bench.rows import rows_of, verdict
from app.bench.study import Study, runs
from app.cli import run
from connectors.manifest import read_manifest
from ssl_core.arms import arm_folder, open_arm
from ssl_core.errors import TrainingError
from ssl_core.evidence import Difference
from ssl_core.progress import silent
from ssl_core.recipes import plan
from ssl_core.training.augment import S0
from tests import toy

REAL = Path(os.environ.get("READLOOP_DATA", "../shared/data"))
_SHORT = {"epochs": 1, "epoch_steps": 3, "batch_size": 8, "learning_rate": 3e-3}
SUPERVISED = {"name": "supervised", "student": _SHORT, "tta": "flip"}
SIMCLR = {
    "name": "simclr_v2",
    "pretrain": _SHORT,
    "finetune": _SHORT,
    "distil": _SHORT,
    "tta": "flip",
}
T = 12.706204736432095  # Student's t of one degree of freedom, 97.5 %


def nih(folder: Path, items: int = 60) -> Path:
    """A folder like nih's with three findings, two images a patient."""
    rng = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    with (folder / MANIFEST).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file", "finding_labels", "patient_id"])
        for i in range(items):
            spot, bar = rng.random(2) < 0.5
            Image.fromarray(toy.picture(rng, spot, bar)).save(folder / "images" / f"{i}.png")
            names = [n for n, there in (("Spot", spot), ("Bar", bar)) if there]
            out.writerow([f"images/{i}.png", "|".join(names) or "No Finding", f"P{i // 2}"])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return nih(tmp_path_factory.mktemp("data") / "nih")


@pytest.fixture(scope="module")
def study(data):
    return Study(
        name="toy",
        title="Toy",
        sources={"nih": data},
        splits=("grouped",),
        variants={"supervised": SUPERVISED, "teacher_student": toy.RECIPE},
        budgets=("8", "50%"),
        seeds=(0, 1),
        preset="tiny",
        size=toy.SIZE,
        device="cpu",
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def rows(study, out, said):
    return running.run_study(study, out, say=said.append)


@pytest.fixture(scope="module")
def kept(rows, out):
    return json.loads((out / "toy.json").read_text())


def cell_values(kept, variant, stage, budget, name):
    cells = [c for c in kept["cells"] if (c["variant"], c["budget"]) == (variant, budget)]
    return [c["stages"][stage][name]["value"] for c in sorted(cells, key=lambda c: c["seed"])]


# What is compared


def test_every_recipe_learns_from_the_same_labels(study, out, rows):
    asked = runs(study, out, silent)
    drawn = {}
    for one in asked:
        with open_arm(one.workspace, one.arm).ledger as ledger:
            chosen = [(n, s.item_id, s.kind) for n, s in ledger.selected()]
        drawn.setdefault(one.arm.seed, []).append(chosen)
    for of_seed in drawn.values():
        assert len(of_seed) == 2
        assert of_seed[0] == of_seed[1]
        assert {kind for _, _, kind in of_seed[0]} == {"random"}
    assert drawn[0] != drawn[1]


def test_recipes_share_one_workspace_and_seeds_come_first(study, out, rows):
    asked = runs(study, out, silent)
    assert {one.workspace.root for one in asked} == {out / "nih-grouped-16px"}
    assert [(one.arm.seed, one.variant) for one in asked] == [
        (0, "supervised"),
        (0, "teacher_student"),
        (1, "supervised"),
        (1, "teacher_student"),
    ]


def test_there_is_a_row_for_every_model(rows):
    stages = [("supervised", "student", True)]
    stages += [
        ("teacher_student", s, s == "student") for s in ("teacher", "intermediate", "student")
    ]
    for budget in ("8", "50%"):
        some = [r for r in rows if r.budget == budget]
        assert [(r.variant, r.stage, r.last) for r in some] == stages
        assert {(r.data, r.split, r.seeds) for r in some} == {("nih", "grouped", (0, 1))}


# The numbers


def test_means_and_intervals_by_hand(rows, kept):
    row = next(
        r for r in rows if (r.variant, r.stage, r.budget) == ("teacher_student", "teacher", "8")
    )
    for name in ("auroc", "accuracy", "precision", "sensitivity"):
        a, b = cell_values(kept, "teacher_student", "teacher", 8, name)
        half = T * abs(a - b) / 2  # t · s / √2 of two values
        expected = ((a + b) / 2, max(0.0, (a + b) / 2 - half), min(1.0, (a + b) / 2 + half))
        found = row.numbers[name]
        assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_differences_are_paired_by_seed(rows, kept):
    row = next(r for r in rows if r.variant == "teacher_student" and r.last and r.budget == "8")
    for name in ("auroc", "accuracy"):
        ours = cell_values(kept, "teacher_student", "student", 8, name)
        theirs = cell_values(kept, "supervised", "student", 8, name)
        gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
        assert row.difference[name].value == pytest.approx(sum(gaps) / 2)
        if name == "accuracy":
            half = T * abs(gaps[0] - gaps[1]) / 2
            ends = (row.difference[name].low, row.difference[name].high)
            assert ends == pytest.approx((sum(gaps) / 2 - half, sum(gaps) / 2 + half))
    assert all(not r.difference for r in rows if r.variant == "supervised")


def test_seconds_and_labels_of_a_row(rows, kept):
    assert [r.labels["train"] for r in rows] == [8] * 4 + [kept["rows"][-1]["labels"]["train"]] * 4
    mine = [c["seconds"] for c in kept["cells"] if (c["variant"], c["budget"]) == ("supervised", 8)]
    assert rows[0].seconds == pytest.approx(sum(mine) / 2)


def test_without_a_baseline_each_is_held_against_its_own_first_stage(study, out, rows):
    own = replace(study, baseline="")
    found = [f for one in runs(own, out, silent) for f in running.collect(one)]
    told = [r for r in rows_of(own, found) if r.variant == "teacher_student" and r.budget == "8"]
    assert [bool(r.difference) for r in told] == [False, True, True]
    gap = told[2].numbers["auroc"].value - told[0].numbers["auroc"].value
    assert told[2].difference["auroc"].value == pytest.approx(gap)


def test_one_seed_is_compared_by_patient(study, out, rows):
    one = replace(study, name="one", seeds=(1,))
    row = next(r for r in running.run_study(one, out) if r.difference)
    assert row.difference["auroc"].low < row.difference["auroc"].high
    assert math.isnan(row.difference["accuracy"].low)
    assert "one seed" in (out / "one.md").read_text()


def difference(low, high):
    return Difference((low + high) / 2, low, high, 0.01, 9)


def test_worse_than_the_baseline_is_said_in_words(study, rows):
    assert verdict({"auroc": difference(-0.3, -0.1)}, "supervised") == "AUROC worse than supervised"
    both = {"auroc": difference(-0.3, 0.1), "accuracy": difference(0.01, 0.2)}
    assert verdict(both, "supervised") == "accuracy better than supervised"
    assert verdict({"auroc": difference(math.nan, math.nan)}, "supervised") == ""
    assert verdict({}, "supervised") == ""
    words = "AUROC worse than supervised"
    marked = replace(rows[3], difference={"auroc": difference(-0.3, -0.1)}, verdict=words)
    assert f"| {words} |" in tables.markdown(study, [*rows[:3], marked])
    assert "AUROC worse" in shown(study, [*rows[:3], marked])


# What is saved and shown


def shown(study, rows):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(tables.terminal(study, rows))
    return console.export_text()


def test_markdown_holds_every_row(study, out, rows):
    lines = (out / "toy.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| nih")]
    assert len(table) == len(rows) == 8
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 1
    value = rows[3].numbers["auroc"].value
    assert f"| **student** | {f'{value:.3f}'.removeprefix('0')} [" in table[3]
    assert table[0].split("|")[2:5] == [" 8 ", " supervised ", " **student** "]
    assert "50% = " in table[4]


def test_json_holds_configurations_and_the_machine(kept):
    assert kept["configs"]["supervised"]["recipe"] == json.loads(json.dumps(SUPERVISED))
    assert kept["seeds"] == [0, 1]
    assert set(kept["machine"]) == {"device", "cores", "torch"}
    assert "NaN" not in json.dumps(kept)
    assert len(kept["cells"]) == 8


def test_the_terminal_shows_it_in_eighty_columns(study, rows):
    text = shown(study, rows)
    assert "…" not in text
    assert text.count("teacher_student") == 6
    assert "50% labels" in text


def test_the_picture_is_one(out, rows):
    assert (out / "toy.png").read_bytes()[:4] == b"\x89PNG"


# Stopping and going on


def files(out):
    return {p: p.read_bytes() for p in out.rglob("*") if p.name in ("ledger.db", "vault.npz")}


def test_what_is_finished_is_only_read(study, out, rows, kept, said):
    assert [line.partition(":")[0] for line in said] == [f"{k} of 4" for k in (1, 2, 3, 4)]
    before, again = files(out), []
    found = running.run_study(study, out, say=again.append)
    assert (found, again) == (rows, [])
    assert files(out) == before
    assert json.loads((out / "toy.json").read_text()) == kept


def test_more_seeds_go_on_from_there_and_a_broken_table_is_mended(study, out, rows):
    (out / "toy.json").write_text("{")
    told = []
    more = replace(study, name="more", seeds=(0, 1, 2), variants={"supervised": SUPERVISED})
    found = running.run_study(more, out, say=told.append)
    assert [line.split(":")[0] for line in told] == ["3 of 3"]
    assert found[0].seeds == (0, 1, 2)


def test_the_table_of_a_run_that_was_stopped_holds_what_is_done(study, out, rows):
    part = replace(study, name="part", seeds=(1, 5), variants={"supervised": SUPERVISED})
    text = ""

    def stop(line):
        nonlocal text
        text = (out / "part.md").read_text()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.run_study(replace(part, seeds=(1, 5, 6)), out, say=stop)
    assert text.count("| nih") == 2
    assert "not of all seeds yet" in text


def test_an_arm_that_fails_does_not_keep_the_others(study, out, rows):
    wild = SUPERVISED | {"student": _SHORT | {"learning_rate": 1e30, "epochs": 3}}
    bad = replace(study, name="bad", variants={"supervised": SUPERVISED, "wild": wild}, seeds=(0,))
    told = []
    with pytest.raises(TrainingError, match=r"^1 of 2 arms failed .*bad\.md.* learning_rate"):
        running.run_study(bad, out, say=told.append)
    assert "wild, seed 0 failed" in told[0]
    assert (out / "bad.md").read_text().count("| nih") == 2


def test_small_validation_is_an_arm_for_each_budget(study, out, rows):
    small = replace(study, name="small", small_validation=True, budgets=("3", "8"), seeds=(0,))
    small = replace(small, variants={"supervised": SUPERVISED}, budgets=("6", "8"))
    asked = runs(small, out, silent)
    assert [(one.arm.budgets, one.arm.validation) for one in asked] == [((6,), 6), ((8,), 8)]
    found = [cell for one in asked for cell in running.collect(one)]
    for one in found:
        assert one.cell.labels["validation"] <= one.cell.labels["train"]
    held = replace(small, strategy="margin")
    assert [one.arm.budgets for one in runs(held, out, silent)] == [(6,), (6, 8)]


def test_several_at_a_time_share_what_is_computed_once(study, out, rows):
    once = {"simclr_v2": SIMCLR}
    wide = replace(study, name="wide", jobs=2, budgets=("8",), variants=once, baseline="")
    held = runs(wide, out, silent)[1]
    open_arm(held.workspace, held.arm).ledger.close()
    told = []
    with (
        FileLock(arm_folder(held.workspace, held.arm) / ".round.lock"),
        pytest.raises(TrainingError, match=r"1 of 2 arms failed .* Another process is"),
    ):
        running.run_study(wide, out, say=told.append)
    assert ["failed" in line for line in told] == [False, True]  # the second waited for the first
    found = running.run_study(replace(wide, jobs=1), out)
    assert [(r.stage, r.seeds) for r in found] == [("finetuned", (0, 1)), ("student", (0, 1))]
    assert len(list((out / "nih-grouped-16px" / "images").glob("pretrained-*"))) == 1


def test_what_finished_arms_computed_keeps_no_other_waiting(study, out, rows, monkeypatch):
    three = replace(study, name="three", jobs=2, budgets=("8",), variants={"s": SIMCLR})
    running.run_study(replace(three, jobs=1, seeds=(0,), baseline=""), out)
    handed = []
    monkeypatch.setattr(running, "_beside", lambda _, __, warm: handed.append(warm) or iter(()))
    running.run_study(replace(three, seeds=(0, 7, 8), baseline=""), out)
    assert handed == [set(runs(three, out, silent)[0].caches)]


def test_ctrl_c_stops_every_process_and_is_gone_on_from(data, tmp_path):
    command = ["bench", "recipes", "--dataset", "nih", "--data", data, "--preset", "tiny"]
    command += ["--size", "16", "--seeds", "0,1", "--budgets", "8", "--recipes", "supervised"]
    command += ["--jobs", "2", "--out", tmp_path, "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    arms = tmp_path / "nih-grouped-16px" / "simulations"
    deadline = time.monotonic() + 60
    while len(list(arms.glob("*/*/readloop.toml"))) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "readloop: stopped; what was finished is kept."
    for lock in arms.glob("*/*/.round.lock"):
        with FileLock(lock, timeout=5):  # nobody runs a round there any more
            pass


# What is refused, and the data sets


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recipes", "--dataset", "chexpert"], "'chexpert' is unknown"),
        (["recipes", "--dataset", "nih", "--splits", "official"], "of nih, give grouped."),
        (["recipes", "--dataset", "nih", "--budgets", "some"], "rising numbers"),
        (["recipes", "--dataset", "nih", "--budgets", ""], "nothing to run"),
        (["recipes", "--dataset", "nih", "--seeds", ""], "nothing to run"),
        (["recipes", "--dataset", "nih", "--seeds", "-1"], "seed"),
        (["recipes", "--dataset", "nih", "--recipes", "fixmatsch"], "'fixmatsch' is unknown"),
        (["recipes", "--dataset", "nih", "--strategy", "marjin"], "'marjin' is unknown"),
        (["recipes", "--dataset", "nih", "--preset", "quick"], "'quick' is unknown"),
        (["s1", "--preset", "fast", "--recipes", "supervised", "--weights", "no.pth"], "no.pth"),
        (["s0", "--sweep", "kappa"], "keep_fraction or augmentation"),
        (["s1", "--recipes", "supervised", "--splits", "mine"], "grouped, official or both"),
    ],
)
def test_bad_options_are_one_sentence_and_write_nothing(tmp_path, capsys, arguments, words):
    preset = [] if "--preset" in arguments else ["--preset", "tiny"]
    more = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), *preset]
    assert run(["bench", *arguments, *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_data_is_named(tmp_path, capsys):
    more = ["--preset", "tiny", "--out", str(tmp_path / "out"), "--recipes", "supervised"]
    assert run(["bench", "s2", *more]) == 2
    assert "--nih or --ham10000" in capsys.readouterr().err
    assert run(["bench", "s2", "--data", str(tmp_path), *more]) == 2
    assert str(tmp_path / "nih") in capsys.readouterr().err


def test_sweeps_change_one_thing():
    kappas = papers.keep_fraction("tiny")
    assert [table["keep_fraction"] for table in kappas.values()] == list(papers.KEEP_FRACTIONS)
    assert [float(name) for name in kappas] == list(papers.KEEP_FRACTIONS)
    others = [{k: v for k, v in t.items() if k != "keep_fraction"} for t in kappas.values()]
    assert all(other == others[0] for other in others)
    moves = papers.augmentation("fast")
    assert list(moves) == ["none", "flip", "rotation", "translation", "perspective", "all"]
    assert all(t.get("stem_views") or not t["cache_stem"] for t in moves.values())
    seen = {name: plan(table).augmentation for name, table in moves.items()}
    assert (seen["none"].moves, seen["all"]) == (False, S0)
    assert seen["flip"] == replace(seen["none"], flip=0.5)


def test_a_sweep_is_a_table_and_a_picture(data, tmp_path, study):
    swept = {k: toy.RECIPE | {"keep_fraction": float(k)} for k in ("0.5", "1")}
    kappa = replace(
        study, variants=swept, axis="keep fraction κ", baseline="", seeds=(0,), budgets=("8",)
    )
    found = running.run_study(kappa, tmp_path)
    assert [(r.variant, r.stage) for r in found if r.last] == [("0.5", "student"), ("1", "student")]
    teachers = [r.numbers["auroc"] for r in found if r.stage == "teacher"]
    assert teachers[0] == teachers[1]  # κ comes after the teacher
    assert (tmp_path / "toy.png").read_bytes()[:4] == b"\x89PNG"
    assert "| keep fraction κ |" in (tmp_path / "toy.md").read_text()


@pytest.mark.parametrize(
    ("name", "kind", "findings"),
    [
        ("kermany", "binary", 1),
        ("kermany-subtype", "multi_class", 3),
        ("nih", "multi_label", 14),
        ("ham10000", "multi_class", 7),
    ],
)
def test_the_real_manifests_are_understood(name, kind, findings):
    folder = REAL / name.partition("-")[0]
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (READLOOP_DATA)")
    chosen = DATASETS[name]
    for column in chosen.splits.values():
        found = read_manifest(folder / MANIFEST, replace(chosen.columns, split=column))
        assert (found.task.kind, len(found.task.findings)) == (kind, findings)
        assert not found.refusals
        assert all((folder / row.path).is_file() for row in found.rows[:20])
