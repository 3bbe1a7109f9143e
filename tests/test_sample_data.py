"""The sample set: the generator's promises, and the committed files against the generator."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from sample_data.generate import draw_patient, generate
from sample_data.phantom import Nodule, Signs, render

SAMPLE = Path(__file__).parents[1] / "sample_data"
FINDINGS = ("Effusion", "Cardiomegaly", "Nodule")
HEALTHY = Signs(heart=0.46, enlarged=False, effusion=(0.0, 0.0), nodules=())


def read_manifest(folder):
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows():
    return read_manifest(SAMPLE)


@pytest.fixture(scope="module")
def pixels(rows):
    return np.stack([np.asarray(Image.open(SAMPLE / row["path"])) for row in rows])


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The first patients of the committed set, drawn again."""
    out = tmp_path_factory.mktemp("fresh")
    generate(out, patients=8, size=96, seed=0)
    return out


@pytest.fixture
def phantom():
    """A straight PA image without noise, so that two drawings differ by their signs alone."""
    item = next(draw_patient(3, seed=5))
    shot = replace(
        item.shot, view="PA", tilt=0.0, turn=0.0, scale=1.15, shift=(0.0, 0.05), inspiration=0.03
    )
    return item.anatomy, replace(shot, exposure=1.0, window=(0.05, 0.9), noise=0.0, wires=0)


def present(rows, finding):
    return np.array([finding in row["findings"].split("|") for row in rows])


# The committed files


def test_sample_is_at_most_five_megabytes_on_a_disk_of_4096_byte_blocks():
    files = [p for p in SAMPLE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(4096 * math.ceil(p.stat().st_size / 4096) for p in files) < 5_000_000


def test_sample_has_about_the_promised_images_and_patients(rows):
    images_of = Counter(row["patient_id"] for row in rows)
    assert len(rows) > 1100
    assert 600 <= len(images_of) <= 900
    assert set(images_of.values()) == {1, 2, 3, 4}


def test_manifest_lists_every_image_once_and_no_other(rows):
    listed = [row["path"] for row in rows]
    there = {p.relative_to(SAMPLE).as_posix() for p in (SAMPLE / "images").iterdir()}
    assert len(set(listed)) == len(listed)
    assert set(listed) == there


def test_images_are_grey_and_of_one_size(rows, pixels):
    assert pixels.shape == (len(rows), 96, 96)
    assert pixels.dtype == np.uint8
    assert all(Image.open(SAMPLE / row["path"]).mode == "L" for row in rows[:20])


def test_no_two_images_have_the_same_content(rows, pixels):
    files = {hashlib.sha256((SAMPLE / row["path"]).read_bytes()).digest() for row in rows}
    assert len(files) == len(rows)
    assert len({picture.tobytes() for picture in pixels}) == len(rows)


def test_file_names_tell_nothing(rows):
    assert all(re.fullmatch(r"images/[0-9a-f]{10}\.jpg", row["path"]) for row in rows)


def test_findings_are_known_words_in_one_order(rows):
    for row in rows:
        words = row["findings"].split("|")
        assert words == ["No Finding"] or words == [f for f in FINDINGS if f in words]


@pytest.mark.parametrize(
    ("finding", "low", "high"),
    [("Effusion", 0.26, 0.34), ("Cardiomegaly", 0.21, 0.29), ("Nodule", 0.16, 0.24)],
)
def test_prevalence(rows, finding, low, high):
    assert low <= present(rows, finding).mean() <= high


def test_effusion_goes_with_cardiomegaly(rows):
    effusion, large = present(rows, "Effusion"), present(rows, "Cardiomegaly")
    assert 1.15 < effusion[large].mean() / effusion[~large].mean() < 2.5


def test_some_patients_change_between_images(rows):
    seen = {}
    for row in rows:
        seen.setdefault(row["patient_id"], []).append(row["findings"])
    several = [findings for findings in seen.values() if len(findings) > 1]
    assert 0.2 < np.mean([len(set(findings)) > 1 for findings in several]) < 0.8


def test_both_views_occur(rows):
    assert 0.25 < np.mean([row["view"] == "AP" for row in rows]) < 0.55
    assert {row["view"] for row in rows} == {"PA", "AP"}


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("summary", [np.mean, np.std, np.median])
def test_no_finding_shows_in_the_overall_grey(rows, pixels, finding, summary):
    grey = summary(pixels.reshape(len(rows), -1), axis=1)
    area = roc_auc_score(present(rows, finding), grey)
    assert max(area, 1.0 - area) < 0.65


@pytest.mark.parametrize("finding", FINDINGS)
def test_the_view_does_not_give_a_finding_away(rows, finding):
    area = roc_auc_score(present(rows, finding), [row["view"] == "AP" for row in rows])
    assert 0.4 < area < 0.6


def test_readme_states_the_numbers_of_the_set(rows):
    text = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert f"{len(rows):,} images" in text
    assert f"{len({row['patient_id'] for row in rows})} patients" in text
    for finding in FINDINGS:
        assert re.search(rf"\| {finding} \| {present(rows, finding).sum()} ", text)


def test_readme_command_has_the_generators_options():
    text = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert "python sample_data/generate.py sample_data --patients 640 --size 96 --seed 0" in text


# The committed files against the generator


def test_manifest_begins_with_the_rows_of_a_shorter_set(fresh, rows):
    again = read_manifest(fresh)
    assert len(again) >= 8
    assert again == rows[: len(again)]


def test_committed_images_come_from_the_seed(fresh):
    # JPEG encoders and float32 rounding differ between machines, so not byte by byte
    for row in read_manifest(fresh):
        again = np.asarray(Image.open(fresh / row["path"])).astype(float)
        kept = np.asarray(Image.open(SAMPLE / row["path"])).astype(float)
        assert np.abs(again - kept).mean() < 1.5
        assert np.abs(again - kept).max() < 40


def test_another_seed_draws_other_patients(fresh, tmp_path):
    generate(tmp_path, patients=2, size=96, seed=1)
    ours, others = read_manifest(fresh), read_manifest(tmp_path)
    assert not {row["path"] for row in ours} & {row["path"] for row in others}
    one = np.asarray(Image.open(fresh / ours[0]["path"])).astype(float)
    two = np.asarray(Image.open(tmp_path / others[0]["path"])).astype(float)
    assert np.abs(one - two).mean() > 5


def test_two_runs_write_the_same_bytes(fresh, tmp_path):
    generate(tmp_path, patients=3, size=96, seed=0)
    assert len(list((tmp_path / "images").iterdir())) >= 3
    for file in (tmp_path / "images").iterdir():
        assert file.read_bytes() == (fresh / "images" / file.name).read_bytes()


def test_command_line_writes_the_same_set(fresh, tmp_path):
    command = [sys.executable, str(SAMPLE / "generate.py"), str(tmp_path / "set")]
    subprocess.run([*command, "--patients", "2", "--size", "96", "--seed", "0"], check=True)
    written = read_manifest(tmp_path / "set")
    assert written == read_manifest(fresh)[: len(written)]
    assert list(written[0]) == ["path", "patient_id", "view", "findings"]


def test_no_patients_is_an_empty_manifest(tmp_path):
    generate(tmp_path, patients=0, size=96, seed=0)
    assert (tmp_path / "manifest.csv").read_text() == "path,patient_id,view,findings\n"


# The drawing


@settings(max_examples=15, deadline=None)
@given(number=st.integers(0, 10**6), seed=st.integers(0, 10**6), size=st.integers(24, 72))
def test_every_patient_can_be_drawn(number, seed, size):
    items = list(draw_patient(number, seed))
    assert 1 <= len(items) <= 4
    assert len({item.anatomy for item in items}) == 1
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        picture = render(items[-1].anatomy, items[-1].shot, items[-1].signs, size)
    assert picture.shape == (size, size)
    assert picture.dtype == np.uint8
    assert picture.std() > 15


def test_a_patient_keeps_the_anatomy_and_changes_the_shot():
    items = next(i for i in map(list, (draw_patient(n, 0) for n in range(50))) if len(i) == 4)
    assert len({item.shot for item in items}) == 4
    assert len({item.name for item in items}) == 4
    assert len({item.patient for item in items}) == 1


def test_patients_differ():
    assert len({next(draw_patient(n, 0)).anatomy for n in range(30)}) == 30


def test_rendering_is_pure(phantom):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state must stay untouched)
    first, second = (render(*phantom, HEALTHY, 64) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_sizes_show_the_same_anatomy(phantom):
    small = render(*phantom, HEALTHY, 48).astype(float)
    large = render(*phantom, HEALTHY, 96).reshape(48, 2, 48, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("sizes", "here"), [((0.25, 0.0), slice(0, 48)), ((0, 0.25), slice(48, 96))]
)
def test_effusion_whitens_the_base_of_its_own_side(phantom, sizes, here):
    change = render(*phantom, replace(HEALTHY, effusion=sizes), 96).astype(float)
    change -= render(*phantom, HEALTHY, 96)
    there = slice(48, 96) if here.start == 0 else slice(0, 48)
    assert change[50:80, here].mean() > 10 * max(1.0, abs(change[50:80, there].mean()))
    assert abs(change[:35].mean()) < 2


def test_larger_effusions_whiten_more(phantom):
    healthy = render(*phantom, HEALTHY, 96).astype(float)
    change = [
        (render(*phantom, replace(HEALTHY, effusion=(0.0, level)), 96) - healthy)[40:80].mean()
        for level in (0.02, 0.08, 0.2, 0.35)
    ]
    assert change == sorted(change)
    assert change[0] < 2 < 6 < change[-1]


@pytest.mark.parametrize("side", [-1, 1])
def test_nodule_is_a_bright_spot_inside_its_lung(phantom, side):
    nodule = Nodule(side=side, across=0.65, down=0.5, radius=0.06, density=0.8)
    change = render(*phantom, replace(HEALTHY, nodules=(nodule,)), 96).astype(float)
    change -= render(*phantom, HEALTHY, 96)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert change.max() > 40
    assert (column < 38) if side < 0 else (column > 58)
    assert 25 < row < 65
    assert 10 < (change > 0.5 * change.max()).sum() < 60  # a disc of about 3 pixels radius


def test_faint_nodules_change_little(phantom):
    nodule = Nodule(side=1, across=0.65, down=0.5, radius=0.036, density=0.2)
    faint = render(*phantom, replace(HEALTHY, nodules=(nodule,)), 96).astype(float)
    assert np.abs(faint - render(*phantom, HEALTHY, 96)).max() < 30


def heart_width(picture):
    """Longest bright run in the rows where the heart lies between the lungs, in pixels."""
    line = picture[62:66].mean(axis=0)
    dark = np.flatnonzero(line < 0.62 * picture.max())
    middle = dark[(dark > 12) & (dark < 84)]
    return np.diff(middle).max()


def test_larger_ratios_draw_wider_hearts(phantom):
    widths = [
        heart_width(render(*phantom, replace(HEALTHY, heart=h), 96)) for h in (0.4, 0.5, 0.65)
    ]
    assert widths[0] < widths[1] < widths[2]


def test_ap_magnifies_the_heart(phantom):
    anatomy, shot = phantom
    pa, ap = (render(anatomy, replace(shot, view=view), HEALTHY, 96) for view in ("PA", "AP"))
    assert heart_width(ap) > heart_width(pa)


def test_hearts_overlap_between_labels():
    items = [item.signs for number in range(400) for item in draw_patient(number, 0)]
    large = np.array([s.heart for s in items if s.enlarged])
    normal = np.array([s.heart for s in items if not s.enlarged])
    assert large.min() < np.quantile(normal, 0.95)
    assert np.quantile(large, 0.05) < normal.max()
    assert large.mean() - normal.mean() > 0.08


def test_findings_are_joined_in_order_and_never_empty():
    nodule = Nodule(side=1, across=0.5, down=0.5, radius=0.05, density=0.5)
    assert HEALTHY.findings == "No Finding"
    assert replace(HEALTHY, enlarged=True).findings == "Cardiomegaly"
    everything = Signs(heart=0.6, enlarged=True, effusion=(0.0, 0.1), nodules=(nodule,))
    assert everything.findings == "Effusion|Cardiomegaly|Nodule"
