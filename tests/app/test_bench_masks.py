"""S3's and S4's tables on toy masks: rows, what they are held against, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from PIL import Image
from rich.console import Console

from app.bench import mask_step, papers, running, tables
from app.bench.datasets import MANIFEST
from app.bench.study import Study, runs
from app.cli import run
from ssl_core.errors import ConfigError
from ssl_core.progress import silent
from ssl_core.recipes import plan
from tests import toy
from tests.ssl_core.recipes.test_mask_recipe_rounds import short

METRICS = ("dice", "iou", "pixel accuracy")


@pytest.fixture(scope="module")
def lungs(tmp_path_factory) -> Path:
    """A folder like lungseg's: one finding, two images a patient, a mask for each."""
    folder, rng = tmp_path_factory.mktemp("data") / "lungseg", np.random.default_rng(5)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with (folder / MANIFEST).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["image", "mask", "patientid"])
        for i in range(40):
            picture, mask, _ = toy.drawn(rng, True, False)
            Image.fromarray(picture).save(folder / "images" / f"{i}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
            out.writerow([f"images/{i}.png", f"masks/{i}.png", f"P{i // 2}"])
    return folder


@pytest.fixture(scope="module")
def told(lungs, tmp_path_factory):
    """S4's recipes and S3's, both seeds and budgets, with the JSON that was saved."""
    out, found = tmp_path_factory.mktemp("out"), {}
    for name, variants, baseline in (
        ("s4", ("supervised_masks", "mean_teacher_masks"), "supervised_masks"),
        ("s3", ("self_training",), ""),
    ):
        study = Study(
            name=name,
            title=name,
            sources={"lungseg": lungs},
            splits=("grouped",),
            variants={one: short(one) for one in variants},
            budgets=("8", "all"),
            seeds=(0, 1),
            preset="tiny",
            size=toy.SIZE,
            device="cpu",
            baseline=baseline,
            metrics=METRICS,
        )
        rows = running.run_study(study, out)
        found[name] = study, rows, json.loads((out / f"{name}.json").read_text())
    return found


def test_dice_and_iou_are_means_over_seeds_and_iou_is_held_against_the_baseline(told):
    _, rows, saved = told["s4"]
    assert [(r.variant, r.budget) for r in rows] == [
        (name, budget) for budget in ("8", "all") for name in saved["variants"]
    ]
    cells = {(c["variant"], c["budget"], c["seed"]): c["stages"]["student"] for c in saved["cells"]}
    everything = max(budget for _, budget, _ in cells)
    for row in rows:
        labels = 8 if row.budget == "8" else everything
        for name in METRICS:
            mine = [cells[row.variant, labels, seed][name]["value"] for seed in (0, 1)]
            assert row.numbers[name].value == pytest.approx(np.mean(mine))
    student = rows[1]
    for name in ("dice", "iou"):
        gap = student.numbers[name].value - rows[0].numbers[name].value
        assert student.difference[name].value == pytest.approx(gap, abs=1e-6)
    assert rows[0].difference == {}


def test_every_iteration_of_self_training_stands_beside_its_first_teacher(told):
    study, rows, _ = told["s3"]
    stages = [fit.name for fit in plan(study.variants["self_training"]).fits]
    assert [r.stage for r in rows if r.budget == "8"] == stages == ["teacher 0a", "teacher 0b",
                                                                    "student"]  # fmt: skip
    assert rows[0].difference == {}
    assert rows[2].difference["dice"].value == pytest.approx(
        rows[2].numbers["dice"].value - rows[0].numbers["dice"].value, abs=1e-6
    )


def test_students_stand_beside_those_of_the_control(lungs, tmp_path):
    table = short("self_training")
    whole, alone = table, {**table, "pseudo_masks": False}
    study = Study(
        name="s3",
        title="s3",
        sources={"lungseg": lungs},
        splits=("grouped",),
        variants={"whole": whole, "labels alone": alone},
        budgets=("8",),
        seeds=(0, 1),
        preset="tiny",
        size=toy.SIZE,
        device="cpu",
        baseline="",
        control="labels alone",
        metrics=METRICS,
    )
    rows = running.run_study(study, tmp_path)
    students = {row.variant: row for row in rows if row.last}
    for name in ("dice", "iou"):
        gap = students["whole"].numbers[name].value - students["labels alone"].numbers[name].value
        assert students["whole"].beside[name].value == pytest.approx(gap, abs=1e-6)
        assert abs(rows[0].beside[name].value) < 1e-9  # teachers are the same
    assert students["labels alone"].beside == {}
    text = tables.markdown(study, rows)
    assert "IoU − first stage | Dice − labels alone | IoU − labels alone | verdict" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tables.terminal(study, rows))
    assert "− labels alone" in console.export_text()
    unseen = replace(study, variants={"whole": whole})
    assert "labels alone" not in tables.markdown(unseen, [r for r in rows if r.variant == "whole"])


def test_of_all_labels_the_ceiling_is_the_baselines_alone(told, lungs, tmp_path):
    study = replace(told["s4"][0], ceiling=True, sources={"lungseg": lungs})
    asked = [(run.variant, tuple(run.asked.values())) for run in runs(study, tmp_path, silent)]
    both = ("supervised_masks", ("8", "all")), ("mean_teacher_masks", ("8",))
    assert asked == [*both, *both]
    only = replace(study, budgets=("all",))
    assert {run.variant for run in runs(only, tmp_path, silent)} == {"supervised_masks"}
    alone = replace(only, baseline="")  # nothing to be the ceiling
    assert len(runs(alone, tmp_path, silent)) == 4


def test_the_table_says_dice_and_how_it_was_paired(told):
    study, rows, _ = told["s4"]
    text = tables.markdown(study, rows)
    assert "Dice − supervised_masks | IoU − supervised_masks" in text
    assert "Dice paired by seed and patient, IoU by seed" in text
    assert "AUROC" not in text.split("\n\n")[1]


def test_a_step_is_timed_beside_its_network(monkeypatch, capsys):
    class Clock:
        """Each network by itself takes a second, each step two."""

        now, looks = 0.0, 0

        @classmethod
        def perf_counter(cls) -> float:
            cls.looks += 1
            cls.now += (0.0, 1.0, 0.0, 2.0)[(cls.looks - 1) % 4]
            return cls.now

    with monkeypatch.context() as patch:
        patch.setattr(mask_step, "time", Clock)
        found = mask_step.run("small_unet", size=32, batch=4, repeats=5)
    assert (found.bare, found.step, found.ratio) == (1000.0, 2000.0, 2.0)
    assert Clock.looks == 4 * (5 + 2)
    assert run(["bench", "mask-step", "--backbone", "small_unet", "--size", "16"]) == 0
    assert "small_unet" in capsys.readouterr().out
    assert run(["bench", "mask-step", "--backbone", "unet"]) == 2


@pytest.mark.parametrize("preset", ["fast", "paper", "tiny"])
def test_s3s_comparisons_change_one_thing_each(preset):
    found = papers.self_training(preset)
    whole = found.pop("weighted_soft")
    for name, table in found.items():
        other = {k for k in {*whole, *table} if whole.get(k) != table.get(k)}
        assert len(other) == 1, name
    for table in (whole, *found.values()):
        plan(table)
        tomli_w.dumps(table)  # an arm's configuration is a file


def test_no_data_is_one_sentence(capsys):
    for table in ("s3", "s4"):
        assert run(["bench", table]) == 2
        assert "There is no data: give --data" in capsys.readouterr().err
    assert run(["bench", "s3", "--data", "x", "--variants", "best"]) == 2
    assert "--variants 'best' is unknown; use some of weighted_soft" in capsys.readouterr().err


def test_an_unknown_recipe_for_masks_is_refused():
    with pytest.raises(ConfigError, match="use some of"):
        papers.recipes(["mean_teacher_mask"], "fast")
