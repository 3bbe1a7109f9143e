"""Masks from a manifest to the truth: what comes in, what is refused, what leaves again."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import run
from connectors.archive import ArchiveRoom
from ssl_core.masks.files import digest_of, fit_mask, keep, load
from ssl_core.masks.truth import mask_truth
from ssl_core.records import Assignment
from ssl_core.workspace import open_workspace

DATA = Path(os.environ.get("READLOOP_DATA", "../shared/data"))
N, HEIGHT, WIDTH = 24, 14, 20
TINY = ["--preset", "tiny", "--size", "16"]


def outline(i: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2 : 6 + i % 4, 1 + i % 7 : 12 + i % 7] = True
    return mask


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures of two a patient; each has a lung, every third a nodule; the last four nothing."""
    root = tmp_path / "data"
    for name in ("", "lung", "nodule"):
        (root / name).mkdir()
    rng = np.random.default_rng(3)
    for i in range(N):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")
        Image.fromarray(outline(i)).save(root / "lung" / f"{i:02d}.png")
        Image.fromarray(outline(i).T[:HEIGHT, :].repeat(2, 1)[:, :WIDTH]).save(
            root / "nodule" / f"{i:02d}.png"
        )
    return root


def rows() -> list[list[str]]:
    return [
        [
            f"{i:02d}.png",
            f"P{i // 2}",
            f"lung/{i:02d}.png" if i < N - 4 else "",
            f"nodule/{i:02d}.png" if i % 3 == 0 and i < N - 4 else "",
        ]
        for i in range(N)
    ]


def write(folder: Path, lines: list[list[str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "patient", "lung", "nodule"], *lines])


def init(folder: Path, *more: str, columns: str = "lung,nodule", lines=None) -> int:
    write(folder, lines or rows())
    where = ["--images", str(folder), "--manifest", str(folder / "manifest.csv")]
    masks = ["--mask-column", columns] if columns else []
    root = str(folder.parent / "w")
    return run(["init", root, *where, "--group-column", "patient", *masks, *TINY, *more])


def refusal(capsys, folder: Path, *more: str, **how) -> str:
    capsys.readouterr()
    assert init(folder, *more, **how) == 2
    err = capsys.readouterr().err
    assert err.startswith("readloop: ")
    assert err.count("\n") == 1
    assert not (folder.parent / "w").exists()
    assert not (folder.parent / ".w.unfinished").exists()
    return err


# --- what comes in -------------------------------------------------------------------------------


def test_masks_become_labels_and_images_without_are_the_pool(folder):
    assert init(folder, "--validation", "0.2", "--vault", "0") == 0
    ws = open_workspace(folder.parent / "w")
    assert ws.ledger.task.kind == "segmentation"
    assert ws.ledger.task.findings == ("lung", "nodule")
    path = {item.id: item.path for item in ws.ledger.items()}
    found = {(path[one.item_id], one.finding): one for one in ws.ledger.labels()}
    named = {(line[0], f): line[k] for line in rows() for k, f in ((2, "lung"), (3, "nodule"))}
    assert set(found) == {key for key, cell in named.items() if cell}
    for (image, finding), label in found.items():
        assert (label.value, label.source) == (1.0, "import")
        brought = np.asarray(Image.open(folder / named[image, finding]))
        np.testing.assert_array_equal(load(ws.masks_folder, label.mask), brought)
    kept = {p.stem for p in (folder.parent / "w" / "masks").iterdir()}
    assert kept == {label.mask for label in found.values()}


def test_from_the_import_to_the_truth(folder):
    assert init(folder, "--validation", "0.2", "--vault", "0") == 0
    ws = open_workspace(folder.parent / "w")
    items = ws.ledger.items()
    truth = mask_truth([i.id for i in items], ws.ledger.labels(), ("lung", "nodule"), ws.masks)
    found = truth.at(range(N))
    lungs = [line[2] != "" for line in rows()]
    assert truth.known.tolist() == lungs
    for k, item in enumerate(items):
        number = int(item.path[:2])
        if lungs[number]:
            np.testing.assert_array_equal(found[k, 0], fit_mask(outline(number), 16, "pad"))
        else:
            assert np.isnan(found[k]).all()


def test_an_archive_hides_masks_until_its_reader_is_asked(folder):
    assert init(folder, "--archive") == 0
    ws = open_workspace(folder.parent / "w")
    assert ws.ledger.labels() == []
    item = next(i for i in ws.ledger.items("train") if int(i.path[:2]) % 3 == 0)
    asked = [Assignment(item.id, "archive", 1, 0)]
    ws.ledger.reading.assign(asked)
    room = ArchiveRoom(ws.ledger.answers)
    room.queue(asked, {})
    for page in room.pull(""):
        ws.ledger.reading.take("archive", page)
    said = {one.finding: one.mask for one in ws.ledger.labels()}
    assert said["lung"] == digest_of(outline(int(item.path[:2])))
    assert set(said) == {"lung", "nodule"}


def test_a_template_and_names_of_findings(folder, capsys):
    lines = [[line[0][:2], *line[1:]] for line in rows()]
    more = ["--mask-template", "lung/{}.png", "--findings", "left lung", "--archive"]
    assert init(folder, *more, columns="path", lines=lines) == 0
    assert "left lung" in capsys.readouterr().out
    ws = open_workspace(folder.parent / "w")
    assert len(ws.ledger.answers([i.id for i in ws.ledger.items()])) == N


def test_nothing_drawn_yet_is_all_pool(folder):
    more = ["--unlabeled", "segmentation", "--findings", "lung,nodule"]
    assert init(folder, *more, columns="") == 0
    ws = open_workspace(folder.parent / "w")
    assert (ws.ledger.task.kind, ws.ledger.task.findings) == ("segmentation", ("lung", "nodule"))
    assert len(ws.ledger.items()) == N
    assert ws.ledger.labels() == []


def test_a_turned_photograph_is_compared_upright(folder):
    """As it is trained on: the EXIF tag turns 14 x 20 pixels into 20 x 14."""
    lying = Image.fromarray(np.full((WIDTH, HEIGHT, 3), 90, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(folder / "turned.jpg", exif=exif)
    assert init(folder, "--archive", lines=[["turned.jpg", "PX", "lung/00.png", ""], *rows()]) == 0


def test_one_image_in_two_rows_completes_its_masks(folder):
    (folder / "again.png").write_bytes((folder / "01.png").read_bytes())
    (folder / "lung" / "again.png").write_bytes((folder / "lung" / "01.png").read_bytes())
    lines = [*rows(), ["again.png", "P0", "lung/again.png", "nodule/01.png"]]
    assert init(folder, "--archive", lines=lines) == 0
    ws = open_workspace(folder.parent / "w")
    item = next(i for i in ws.ledger.items() if i.path == "01.png")
    assert [(a.finding, a.value) for a in ws.ledger.answers([item.id])] == [
        ("lung", 1.0),
        ("nodule", 1.0),
    ]


def test_one_image_with_two_masks_is_refused_by_row(folder, capsys):
    (folder / "again.png").write_bytes((folder / "01.png").read_bytes())
    lines = [*rows(), ["again.png", "P0", "lung/02.png", ""]]
    assert init(folder, "--archive", lines=lines) == 0
    out = capsys.readouterr().out
    assert "line 3: '01.png': the same image stands in lines 3, 26 with two masks" in out
    ws = open_workspace(folder.parent / "w")
    assert len(ws.ledger.items()) == N - 1
    # Nothing of what was refused is kept.
    answers = ws.ledger.answers([item.id for item in ws.ledger.items()])
    assert {p.stem for p in ws.masks_folder.iterdir()} == {a.mask for a in answers}


def test_an_import_that_was_killed_is_gone_on_with(folder):
    """What it left behind: a mask of a row that was mended since, half a mask, and scratch."""
    left = folder.parent / ".w.unfinished" / "masks"
    left.mkdir(parents=True)
    keep(left, np.eye(5, dtype=bool))
    whole = keep(left, outline(0))
    half = left / f"{whole}.png"
    half.write_bytes(half.read_bytes()[:40])
    (left / f".{whole}.1.2.tmp").write_bytes(b"")
    assert init(folder, "--archive") == 0
    ws = open_workspace(folder.parent / "w")
    answers = ws.ledger.answers([item.id for item in ws.ledger.items()])
    assert {p.name for p in ws.masks_folder.iterdir()} == {f"{a.mask}.png" for a in answers}
    np.testing.assert_array_equal(load(ws.masks_folder, whole), outline(0))


# --- what is refused -----------------------------------------------------------------------------


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def transparent() -> Image.Image:
    whole = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    whole[3, 3, 3] = 100
    return Image.fromarray(whole)


BAD = {
    "another size": (grey(outline(0).T * 255), "is 14 × 20 pixels and its image is 20 × 14"),
    "other values": (grey(outline(0) * 255 + np.eye(HEIGHT, WIDTH)), "holds 3 values (0, 1, 255)"),
    "all empty": (grey(np.zeros((HEIGHT, WIDTH))), "is all empty: draw the finding"),
    "see-through": (transparent(), "is partly transparent"),
    "in colour": (Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0)), "is in colour"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_mask_that_cannot_be_used_is_named_by_line(folder, capsys, what):
    picture, sentence = BAD[what]
    picture.save(folder / "lung" / "05.png")
    told = refusal(capsys, folder, "--archive")
    assert "1 of 24 images or masks cannot be used; mend them or skip" in told
    assert "(line 7: Mask '" in told
    assert "lung/05.png'" in told
    assert sentence in told


def test_all_bad_masks_are_named_at_once_and_can_be_left_out(folder, capsys):
    (folder / "lung" / "05.png").unlink()
    (folder / "lung" / "06.png").write_bytes(b"no picture")
    (folder / "nodule" / "06.png").unlink()
    (folder / "07.png").write_bytes(b"no picture")
    told = refusal(capsys, folder, "--archive")
    assert "3 of 24 images or masks cannot be used" in told
    assert "lung/05.png' is missing: correct the path" in told
    assert "lung/06.png' cannot be read as a picture" in told
    assert "nodule/06.png' is missing" in told
    assert "line 9: '07.png' cannot be read" in told
    assert init(folder, "--archive", "--skip-unreadable") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "3 rows refused" in out
    assert "line 7: '05.png': Mask '" in out
    with open_workspace(folder.parent / "w").ledger as ledger:
        paths = {item.path for item in ledger.items()}
    assert len(paths) == N - 3
    assert not paths & {"05.png", "06.png", "07.png"}


def test_empty_masks_mean_absent_if_it_is_said(folder):
    grey(np.zeros((HEIGHT, WIDTH))).save(folder / "nodule" / "06.png")
    assert init(folder, "--archive", "--empty-masks", "absent") == 0
    ws = open_workspace(folder.parent / "w")
    ids = {item.path: item.id for item in ws.ledger.items()}
    assert [(a.finding, a.value, a.mask) for a in ws.ledger.answers([ids["06.png"]])] == [
        ("lung", 1.0, digest_of(outline(6))),
        ("nodule", 0.0, None),
    ]


def test_a_mask_behind_a_link_that_leaves_the_folder_is_refused(folder, capsys):
    (folder.parent / "secret.png").write_bytes((folder / "lung" / "05.png").read_bytes())
    (folder / "lung" / "05.png").unlink()
    (folder / "lung" / "05.png").symlink_to(folder.parent / "secret.png")
    assert "'lung/05.png' leaves the image folder" in refusal(capsys, folder, "--archive")


def test_masks_beside_labels_are_refused(folder, capsys):
    told = refusal(capsys, folder, "--label-column", "patient", "--positive", "P1")
    assert "Masks are a task of their own" in told


# --- what leaves again ---------------------------------------------------------------------------


def test_export_names_and_copies_the_masks_but_the_vault_s(folder, tmp_path):
    assert init(folder, "--vault", "0.3") == 0
    out = tmp_path / "out"
    assert run(["export", str(folder.parent / "w"), "--out", str(out)]) == 0
    told = list(csv.DictReader((out / "labels.csv").open()))
    ws = open_workspace(folder.parent / "w")
    assert {row["mask"] for row in told} == {f"masks/{one.mask}.png" for one in ws.ledger.labels()}
    for row in told:
        brought = folder / row["finding"] / row["path"]
        np.testing.assert_array_equal(
            np.asarray(Image.open(out / row["mask"])), np.asarray(Image.open(brought))
        )
    exported = {p.name for p in (out / "masks").iterdir()}
    assert exported < {p.name for p in ws.masks_folder.iterdir()}
    assert exported == {Path(row["mask"]).name for row in told}


def test_a_failed_export_leaves_nothing(folder, tmp_path, capsys):
    assert init(folder) == 0
    ws = open_workspace(folder.parent / "w")
    last = max(one.mask for one in ws.ledger.labels())
    (ws.masks_folder / f"{last}.png").unlink()
    out = tmp_path / "out"
    assert run(["export", str(folder.parent / "w"), "--out", str(out)]) == 2
    assert f"{last}.png' is missing" in capsys.readouterr().err
    assert not out.exists()


# --- real data -----------------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / "lungseg").is_dir(), reason="needs READLOOP_DATA")
def test_lungseg_from_import_to_truth(tmp_path):
    data, root = DATA / "lungseg", tmp_path / "w"
    where = ["--images", str(data), "--manifest", str(data / "manifest.csv"), "--path-column"]
    columns = ["image", "--group-column", "patientid", "--mask-column", "mask", "--archive"]
    assert run(["init", str(root), *where, *columns, "--preset", "tiny", "--size", "64"]) == 0
    ws = open_workspace(root)
    items = ws.ledger.items()
    answers = ws.ledger.answers([item.id for item in items])
    assert len(items) == len(answers) == len({a.mask for a in answers}) == 320
    brought = {f"images/{p.stem}": p for p in (data / "masks").iterdir()}
    with (data / "manifest.csv").open() as file:
        mask = {row["image"]: data / row["mask"] for row in csv.DictReader(file)}
    found = ws.masks.at([a.mask for a in answers])
    assert len(brought) == 322
    for k in range(0, 320, 20):
        values = np.asarray(Image.open(mask[items[k].path]).convert("L")) > 0
        np.testing.assert_array_equal(load(ws.masks_folder, answers[k].mask), values)
        np.testing.assert_array_equal(found[k], fit_mask(values, 64, "pad"))
    assert 0.1 < found.mean() < 0.5  # lungs fill a good part of a chest radiograph
