"""Hostile and clumsy users: what was once a traceback, a dead end or a wrong number."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import psycopg
import pytest
from filelock import FileLock
from PIL import Image
from sqlalchemy import make_url

from app import cli, initialise, show
from app.cli import run
from ssl_core.config import load_config
from ssl_core.errors import Cancelled, LedgerError
from ssl_core.history.ledger import Ledger
from ssl_core.records import Item, Label
from ssl_core.rounds import run_round
from ssl_core.training.models import build_model
from ssl_core.training.predict import Device
from ssl_core.training.stems import stem_array
from ssl_core.workspace import LOCK_FILE, open_workspace
from tests import toy

BINARY = ["--group-column", "patient", "--label-column", "label", "--positive", "yes"]
TINY = ["--preset", "tiny", "--size", "16"]


def refusal(capsys, *arguments: object) -> str:
    """The one sentence of a refused command: a single line, and nothing else on stderr."""
    code = run(list(map(str, arguments)))
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("readloop: ")
    assert err.endswith((".\n", ")\n")), err
    assert err.count("\n") == 1, err
    return err


def write_manifest(path: Path, rows: list[tuple[str, ...]], *header: str) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header or ("path", "patient", "label"), *rows])
    return path


def init(workspace: Path, images: Path, manifest: Path, *more: str) -> list[object]:
    where = ["init", workspace, "--images", images, "--manifest", manifest]
    return [*where, *BINARY, *TINY, *more]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Forty pictures of two a patient, and their manifest."""
    folder = tmp_path_factory.mktemp("hostile") / "images"
    folder.mkdir()
    rng, rows = np.random.default_rng(5), []
    for i in range(40):
        Image.fromarray(toy.picture(rng, i % 3 == 0, False)[:, :, 0]).save(folder / f"{i:02d}.png")
        rows.append((f"{i:02d}.png", f"P{i // 2}", "yes" if i % 3 == 0 else "no"))
    write_manifest(folder / "manifest.csv", rows)
    return folder


@pytest.fixture
def manifest(images) -> Path:
    return images / "manifest.csv"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """An archive before its first round; tests copy it."""
    return toy.make(tmp_path_factory.mktemp("fresh") / "w", items=36)


@pytest.fixture(scope="module")
def trained(fresh, tmp_path_factory) -> Path:
    """The same after a round that asked and one that trained; tests copy it."""
    root = tmp_path_factory.mktemp("trained") / "w"
    shutil.copytree(fresh, root)
    for size in (12, 2):
        run_round(*toy.opened(root), query_size=size)
    return root


def copied(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root, tmp_path / "w")
    return tmp_path / "w"


def edited(root: Path, old: str, new: str) -> Path:
    """Change the workspace's settings as with an editor."""
    toml = root / "readloop.toml"
    text = toml.read_text()
    assert old in text
    toml.write_text(text.replace(old, new, 1))
    return root


def rounds_of(root: Path) -> int:
    return len(open_workspace(root).ledger.rounds())


# Import


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--validation", "1.5"], "validation 1.5 and vault 0.2"),
        (["--validation", "-0.1"], "validation -0.1"),
        (["--validation", "nan"], "validation nan"),
        (["--validation", "0.6", "--vault", "0.4"], "less than 1 together"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "9999999999"], "--seed"),
        (["--size", "-3"], "--size"),
        (["--size", "8"], "images.size = 8"),
        (["--channels", "x"], "--channels"),
        (["--ledger", "sqlite:///mine.db"], "neither 'sqlite' nor postgresql://"),
        (["--ledger", "mysql://root@host/db"], "neither 'sqlite' nor postgresql://"),
        (["--ledger", "postgresql://u:secret@host/db"], "PGPASSWORD"),
        (["--ledger", "postgresql://u@127.0.0.1:1/db"], "cannot be reached"),
        (["--weights", "/dev/null"], "small_cnn has no published weights"),
        (["--findings-column", "label", "--findings", "nope"], "choose one"),
    ],
)
def test_a_bad_option_leaves_nothing(images, manifest, tmp_path, capsys, more, words):
    told = refusal(capsys, *init(tmp_path / "deep" / "w", images, manifest, "--archive", *more))
    assert words in told
    assert "secret" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "file/w"])
def test_a_workspace_that_cannot_be_there(images, manifest, tmp_path, capsys, name):
    (tmp_path / "file").write_text("mine")
    told = refusal(capsys, *init(tmp_path / name, images, manifest, "--archive"))
    assert name in told
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_workspace_may_be_named_in_a_roundabout_way(images, manifest, tmp_path, capsys):
    assert "exists already" in refusal(
        capsys, *init(tmp_path / "none" / "..", images, manifest, "--archive")
    )
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_leaves_nothing_either(images, manifest, tmp_path, monkeypatch):
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(initialise.ImageStore, "build", breaks)
    with pytest.raises(RuntimeError, match="a bug"):
        run(list(map(str, init(tmp_path / "w", images, manifest, "--archive"))))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_is_finished_and_init_goes_on(images, manifest, tmp_path, monkeypatch,
                                                        capsys):  # fmt: skip
    command = list(map(str, init(tmp_path / "w", images, manifest, "--archive")))
    save_config = initialise.save_config

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(initialise, "save_config", interrupted)
    assert run(command) == 130
    assert capsys.readouterr().err == "readloop: stopped; what was finished is kept.\n"
    staging = tmp_path / ".w.unfinished"
    assert (staging / "images" / "index.json").is_file()
    before = (staging / "images" / "pixels.u8").stat().st_mtime_ns
    monkeypatch.setattr(initialise, "save_config", save_config)
    assert run(command) == 0
    assert (tmp_path / "w" / "images" / "pixels.u8").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_a_second_init_beside_the_first_leaves_it_alone(images, manifest, tmp_path, capsys):
    staging = tmp_path / ".w.unfinished"
    staging.mkdir()
    (staging / "half").write_text("the other's")
    with FileLock(staging / LOCK_FILE):
        told = refusal(capsys, *init(tmp_path / "w", images, manifest, "--archive"))
    assert "Another process is making" in told
    assert (staging / "half").read_text() == "the other's"


def test_what_cannot_be_decoded_is_counted_nowhere(images, tmp_path, capsys):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "03.png").write_bytes(b"\x89PNG broken")
    command = init(tmp_path / "w", folder, folder / "manifest.csv", "--archive")
    assert run(list(map(str, [*command, "--skip-unreadable"]))) == 0
    out = capsys.readouterr().out
    assert "1 rows refused:\n  line 5: '03.png'" in out
    with open_workspace(tmp_path / "w").ledger as ledger:
        assert len(ledger.items()) == 39
        counted = sum(len(ledger.items(split)) for split in ("train", "validation", "vault"))
    assert counted == 39


def test_no_pool_is_left_once_unreadable_images_are_out(images, tmp_path, capsys):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    rows = [(f"{i:02d}.png", f"P{i}", "yes" if i % 2 else "no", "test") for i in range(20)]
    rows += [("20.png", "P20", "", "train"), ("21.png", "P21", "yes", "train")]
    rows += [("22.png", "P22", "no", "train")]
    write_manifest(folder / "manifest.csv", rows, "path", "patient", "label", "split")
    (folder / "20.png").write_bytes(b"broken")
    command = init(tmp_path / "w", folder, folder / "manifest.csv", "--split-column", "split")
    more = ["--validation", "0", "--skip-unreadable"]
    assert "The pool is empty" in refusal(capsys, *command, *more)
    assert not (tmp_path / "w").exists()


def test_a_report_text_is_no_class(images, tmp_path, capsys):
    rows = [(f"{i:02d}.png", f"P{i}", "no" if i else "The heart is large. " * 20) for i in range(9)]
    path = write_manifest(tmp_path / "m.csv", rows)
    where = ["--images", images, "--manifest", path, "--group-column", "patient", *TINY]
    told = refusal(capsys, "init", tmp_path / "w", *where, "--label-column", "label")
    assert "is it the right column?" in told
    assert "399 characters" in told


# The configuration


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('strategy = "margin"', 'strategy = "marjin"', "selection.strategy = 'marjin' is unknown"),
        ('= "cold_start"', '= "cold"', "selection.cold_start = 'cold' is unknown"),
        ('= "cold_start"', '= "entropy"', "needs a trained model"),
        ('name = "teacher_student"', 'name = "x"', "recipe.name = 'x' is unknown"),
        ("epoch_steps", "epoch_stepz", "unknown key 'teacher.epoch_stepz'"),
        ("epochs = 2", "epochs = -2", "teacher.epochs = -2"),
        ("epochs = 2", "epochs = 2\nfrozen_blocks = 99", "frozen_blocks = 99"),
        ('backbone = "small_cnn"', 'backbone = "resnet999"', "'resnet999' is unknown"),
        ('weights = "none"', 'weights = "/nowhere.pth"', "no published weights"),
        ('device = "cpu"', 'device = "banana"', "compute.device = 'banana'"),
        ('device = "cpu"', 'device = "meta"', "compute.device = 'meta'"),
        ('device = "cpu"', 'device = "cuda:99"', "compute.device = 'cuda:99'"),
        ('ledger = "sqlite"', 'ledger = "postgresql://u:p@h/d"', "PGPASSWORD"),
        ('tta = "flip"', 'tta = "ten_crop"', "images.size = 16 is too small for small_cnn"),
    ],
)
def test_bad_settings_are_refused_before_a_round_is_opened(
    fresh, tmp_path, capsys, old, new, words
):
    """A round keeps the settings it was opened with, so it could never have ended."""
    root = edited(copied(fresh, tmp_path), old, new)
    assert words in refusal(capsys, "round", root)
    assert words in refusal(capsys, "config", root)
    if "ledger" not in old and "marjin" not in new:  # a simulation has its own
        assert words in refusal(capsys, "simulate", root, "--budgets", "8")
        assert not (root / "simulations").exists()
    edited(root, new, old)
    assert rounds_of(root) == 0
    assert run(["config", str(root)]) == 0


@pytest.mark.parametrize(
    ("old", "new"), [("size = 16", "size = 32"), ("channels = 1", "channels = 3"),
                     ('fit = "pad"', 'fit = "squash"')]
)  # fmt: skip
def test_the_images_are_kept_as_they_were_imported(trained, tmp_path, capsys, old, new):
    root = edited(copied(trained, tmp_path), old, new)
    for command in (["round", root], ["status", root], ["predict", root, "x.png"]):
        assert "the images are kept with size = 16" in refusal(capsys, *command)


# Rounds


def test_labels_of_one_side_alone_are_no_dead_end(fresh, tmp_path, capsys):
    root = copied(fresh, tmp_path)
    for _ in range(2):
        assert run(["round", str(root), "--query-size", "1"]) == 0
    told = capsys.readouterr().out
    assert "Round 2 trained nothing, it only asked: the training labels (1)" in told
    assert "no trained model yet" in refusal(capsys, "predict", root, "x.png")


def test_a_round_that_diverges_can_be_given_up(trained, tmp_path, capsys):
    root = edited(copied(trained, tmp_path), "learning_rate = 0.003", "learning_rate = 1e30")
    assert "no longer finite" in refusal(capsys, "round", root)
    edited(root, "learning_rate = 1e30", "learning_rate = 0.003")
    assert "or give it up with --abandon" in refusal(capsys, "round", root)
    assert "give it alone" in refusal(capsys, "round", root, "--abandon", "--resume")
    assert run(["round", str(root), "--abandon"]) == 0
    assert "Gave up round 3." in capsys.readouterr().out
    assert not (root / "rounds" / "0003" / "checkpoints").exists()
    assert run(["status", str(root), "--json"]) == 0
    states = [one["state"] for one in json.loads(capsys.readouterr().out)["rounds"]]
    assert states == ["finished", "finished", "given up"]
    assert run(["export", str(root), "--out", str(tmp_path / "out")]) == 0
    assert "of round 2, and its card" in capsys.readouterr().out
    assert run(["round", str(root), "--query-size", "0"]) == 0
    assert "no interrupted round to give up" in refusal(capsys, "round", root, "--abandon")


def test_what_is_for_another_kind_of_task_is_refused_where_masks_are_drawn(
    images, tmp_path, capsys
):
    inside = np.zeros((toy.SIZE, toy.SIZE), np.uint8)
    inside[3:9, 3:9] = 255
    (images / "masks").mkdir()
    Image.fromarray(inside).save(images / "masks" / "spot.png")
    rows = [(f"{i:02d}.png", f"P{i}", "masks/spot.png") for i in range(20)]
    path = write_manifest(tmp_path / "m.csv", rows, "path", "patient", "mask")
    where = ["--images", images, "--manifest", path, "--group-column", "patient", *TINY]
    root, masks = tmp_path / "w", ["--mask-column", "mask", "--archive"]
    wrong = refusal(capsys, "init", root, *where, *masks, "--recipe", "fixmatch")
    assert "recipe.name = 'fixmatch' does not fit a task that draws masks: use one of" in wrong
    assert not root.exists()
    assert run(list(map(str, ["init", root, *where, *masks]))) == 0
    capsys.readouterr()
    wrong = refusal(capsys, "simulate", root, "--budgets", "4", "--strategy", "margin")
    assert (
        "selection.strategy = 'margin' does not fit this task: use one of auto, boundary_e" in wrong
    )
    assert rounds_of(root) == 0
    assert not (root / "simulations").exists()


def test_a_query_of_any_size(fresh, tmp_path, capsys):
    root = copied(fresh, tmp_path)
    assert "--query-size" in refusal(capsys, "round", root, "--query-size", "-1")
    assert run(["round", str(root), "--query-size", "99999999999999999999"]) == 0
    with open_workspace(root).ledger as ledger:
        assert len(ledger.selections(1)) == len(ledger.items("train"))
    assert run(["round", str(root)]) == 0
    assert "there is nothing left to ask" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_named_and_can_be_deleted(trained, tmp_path, capsys):
    root = copied(trained, tmp_path)
    seen = 0

    def stop(event: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        run_round(*toy.opened(root), report=stop)
    checkpoint = root / "rounds" / "0003" / "checkpoints" / "teacher.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    told = refusal(capsys, "round", root, "--resume")
    assert "teacher.pt is damaged: delete it" in told
    checkpoint.unlink()
    assert run(["round", str(root), "--resume"]) == 0


def test_where_a_folder_is_a_file(trained, tmp_path, capsys):
    root = copied(trained, tmp_path)
    shutil.rmtree(root / "models")
    (root / "models").write_text("mine")
    assert "models' cannot be used" in refusal(capsys, "round", root)


def test_the_queue_of_real_readers_can_be_seen(images, tmp_path, capsys):
    rows = [(f"{i:02d}.png", f"P{i}", "", "train") for i in range(20)]
    rows += [(f"{i}.png", f"P{i}", "yes" if i % 2 else "no", "test") for i in range(20, 40)]
    path = write_manifest(tmp_path / "m.csv", rows, "path", "patient", "label", "split")
    root = tmp_path / "w"
    assert run(list(map(str, init(root, images, path, "--split-column", "split")))) == 0
    assert run(["round", str(root), "--query-size", "6"]) == 0
    assert (
        "6 items of the newest selection are not read yet: readloop queue"
        in capsys.readouterr().out
    )
    assert run(["export", str(root), "--out", str(tmp_path / "out")]) == 0
    queue = list(csv.DictReader((tmp_path / "out" / "queue.csv").open()))
    assert [row["rank"] for row in queue] == list("012345")
    with open_workspace(root).ledger as ledger:
        ledger.add_labels([Label(queue[0]["item_id"], "label", 1.0, "ann", "label_studio", "k")])
    assert run(["status", str(root)]) == 0
    assert "5 items of the newest selection are not read yet" in capsys.readouterr().out


# Simulations


def cells(root: Path, out: Path, *more: str) -> list[dict]:
    arguments = ["simulate", root, "--strategy", "random", "--out", out, *more]
    assert run(list(map(str, arguments))) == 0
    return json.loads(out.read_text())["cells"]


def test_other_budgets_are_other_labels(fresh, tmp_path):
    """Rounds of an arm were once taken for another budget's: 12 labels shown as 6."""
    root, out = copied(fresh, tmp_path), tmp_path / "r.json"
    for budgets in ([12], [8, 12]):
        found = cells(root, out, "--seeds", "0,0", "--budgets", ",".join(map(str, budgets)))
        assert [cell["budget"] for cell in found] == budgets
        assert [cell["labels"]["train"] for cell in found] == budgets


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seeds", ""], "at least one strategy and one seed"),
        (["--seeds", "0,-1"], "seed = -1"),
        (["--strategy", "random,../../esc"], "'../../esc' is unknown"),
        (["--control", "bogus"], "'bogus' is unknown"),
        (["--recipe", "nope"], "'nope' is unknown"),
        (["--out", "result.png"], "give the name of a file, such as result.json"),
        (["--out", "."], "give the name of a file"),
        (["--out", "/dev/null/r.json"], "cannot be written"),
        (["--budgets", "all,all"], "rising"),
    ],
)
def test_a_simulation_is_refused_before_it_trains(fresh, tmp_path, capsys, more, words):
    root = copied(fresh, tmp_path)
    assert words in refusal(capsys, "simulate", root, "--budgets", "8", *more)
    assert not (root / "simulations").exists()


def test_too_few_labels_to_train_on_are_told(fresh, tmp_path, capsys):
    root = copied(fresh, tmp_path)
    told = refusal(capsys, "simulate", root, "--budgets", "1", "--seeds", "0")
    assert "the training labels at budget 1 do not hold two sides of any finding" in told


def test_without_a_vault_there_is_nothing_to_compare(images, manifest, tmp_path, capsys):
    assert (
        run(list(map(str, init(tmp_path / "w", images, manifest, "--archive", "--vault", "0"))))
        == 0
    )
    capsys.readouterr()
    assert "has no vault" in refusal(capsys, "simulate", tmp_path / "w", "--budgets", "8")


def test_a_damaged_file_of_a_simulation_is_named(fresh, tmp_path, capsys):
    root = copied(fresh, tmp_path)
    cells(root, tmp_path / "r.json", "--seeds", "0", "--budgets", "12")
    (scores,) = root.glob("simulations/*/*/rounds/0002/vault.npz")
    scores.write_bytes(scores.read_bytes()[:40])
    command = ["simulate", root, "--strategy", "random", "--seeds", "0", "--budgets", "12"]
    assert run(list(map(str, command))) == 2
    assert "vault.npz is missing or damaged" in capsys.readouterr().err


# What is stored


def without_triggers(root: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(root / "ledger.db")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in names:
        connection.execute(f'DROP TRIGGER "{name}"')
    return connection


def test_a_truncated_ledger_is_damaged(trained, tmp_path, capsys):
    root = copied(trained, tmp_path)
    os.truncate(root / "ledger.db", (root / "ledger.db").stat().st_size // 2)
    assert "is damaged; put back a copy of it" in refusal(capsys, "status", root)


def test_a_ledger_that_lacks_a_table_is_damaged(trained, tmp_path, capsys):
    root = copied(trained, tmp_path)
    with without_triggers(root) as connection:
        connection.execute("DROP TABLE selections")
    assert "is damaged; put back a copy of it" in refusal(capsys, "status", root)


def test_a_ledger_of_another_import(trained, tmp_path, capsys):
    root = copied(trained, tmp_path)
    with without_triggers(root) as connection:
        connection.execute("INSERT INTO items SELECT 999, 'x', \"group\", split, path, at "
                           "FROM items WHERE seq = 1")  # fmt: skip
    connection.close()
    assert "are not of one import" in refusal(capsys, "round", root)


@pytest.mark.parametrize("file", ["pixels.u8", "done.u8", "index.json"])
def test_missing_pixels(trained, tmp_path, capsys, file):
    root = copied(trained, tmp_path)
    (root / "images" / file).unlink()
    assert "from a copy, or import the images again" in refusal(capsys, "round", root)


@pytest.mark.parametrize("harm", [lambda f: f.unlink(), lambda f: os.truncate(f, 100),
                                  lambda f: f.write_bytes(b"garbage" * 99)])  # fmt: skip
def test_a_harmed_model_is_not_exported(trained, images, tmp_path, capsys, harm):
    root = copied(trained, tmp_path)
    for file in (root / "models").iterdir():
        harm(file)
    for command in (
        ["predict", root, images / "00.png"],
        ["export", root, "--out", tmp_path / "o"],
    ):
        assert "is missing, damaged or of another version" in refusal(capsys, *command)
    assert not (tmp_path / "o").exists()


def test_a_failed_export_leaves_nothing(trained, tmp_path, capsys, monkeypatch):
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", no_space)
    (tmp_path / "empty").mkdir()
    for out in ("new", "empty"):
        told = refusal(capsys, "export", trained, "--out", tmp_path / out)
        assert "No space left on device" in told
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_an_import_is_in_a_database_whole_or_not_at_all(postgres_server, tmp_path):
    name = f"test_{os.getpid()}_whole"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url, task = f"{postgres_server}/{name}", toy.TASKS["binary"]
    items = [Item("a", "P", "train", "a.png")]
    stranger = Label("b", "Spot", 1.0, "ann", "import", "k")
    with pytest.raises(LedgerError, match="never imported"):
        Ledger.create(url, task, items, [stranger])
    Ledger.check_vacant(url)
    Ledger.create(url, task, items).close()
    with pytest.raises(LedgerError, match="holds a ledger already"):
        Ledger.check_vacant(url)


def test_init_and_round_with_postgresql(postgres_server, images, manifest, tmp_path, capsys,
                                        monkeypatch):  # fmt: skip
    name, server = f"test_{os.getpid()}_init", make_url(postgres_server)
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = f"postgresql://{server.username}@{server.host}:{server.port}/{name}"
    monkeypatch.setenv("PGPASSWORD", str(server.password))
    command = init(tmp_path / "w", images, manifest, "--archive", "--ledger", url)
    assert run(list(map(str, command))) == 0
    assert load_config(tmp_path / "w" / "readloop.toml").ledger == url
    assert run(["round", str(tmp_path / "w"), "--query-size", "5"]) == 0
    assert rounds_of(tmp_path / "w") == 1
    capsys.readouterr()
    again = init(tmp_path / "again", images, manifest, "--archive", "--ledger", url)
    assert "holds a ledger already" in refusal(capsys, *again)
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "check the address and PGPASSWORD" in refusal(capsys, "status", tmp_path / "w")


def harm_mark(stems: Path) -> None:
    (stems / "done").write_text("garbage")


def harm_rows(stems: Path) -> None:
    os.truncate(stems / "stems.f16", 100)


def lose_rows(stems: Path) -> None:
    (stems / "stems.f16").unlink()


@pytest.mark.parametrize("harm", [harm_mark, harm_rows, lose_rows])
def test_a_damaged_cache_of_frozen_blocks_is_filled_afresh(fresh, tmp_path, harm):
    images = open_workspace(copied(fresh, tmp_path)).images
    model = build_model("small_cnn", 1)
    model.freeze(1, norm=True)
    arguments = tmp_path / "cache", images, model
    whole = np.array(stem_array(*arguments, device=Device("cpu")))
    (place,) = (tmp_path / "cache").iterdir()
    harm(place)
    np.testing.assert_array_equal(stem_array(*arguments, device=Device("cpu")), whole)


# Names and streams


def test_predict_takes_links_and_obeys_no_escape_sequence(
    trained, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(show.console, "width", 400)  # the path stands on one line, however long
    (tmp_path / "\x1b[31mred[bold].png").symlink_to(images / "00.png")
    path = str(tmp_path / "\x1b[31mred[bold].png")
    assert run(["predict", str(trained), path]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[31mred[bold].png" in out


@pytest.mark.parametrize("name", ["none.png", ".", "/dev/null", "x" * 300])
def test_predict_names_what_is_no_file(trained, tmp_path, capsys, name):
    assert str(tmp_path / name) in refusal(capsys, "predict", trained, tmp_path / name)


def test_predict_tells_two_bad_files_of_one_name_apart(trained, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_text("no picture")
    assert str(tmp_path / "a") in refusal(capsys, "predict", trained, tmp_path / "a" / "x.png")


def test_a_terminal_without_unicode(trained, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert run(["status", str(trained)]) == 0
    sys.stdout.flush()
    assert b"student" in raw.getvalue()


def test_ctrl_c_is_one_sentence(fresh, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_round", interrupted)
    assert run(["round", str(fresh)]) == 130
    assert capsys.readouterr().err == "readloop: stopped; what was finished is kept.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s0", "--seeds", "a"], "--seeds 'a'"),
        (["s0", "--splits", "mine"], "grouped, official or both"),
        (["s0", "--splits", ""], "grouped, official or both"),
        (["augment", "--sizes", "x"], "--sizes 'x'"),
        (["augment", "--sizes", "-3"], "8 pixels"),
        (["augment", "--batch", "0"], "--batch"),
    ],
)
def test_benchmarks_refuse_too(tmp_path, capsys, arguments, words):
    data = ["--data", tmp_path, "--out", tmp_path / "out"] if arguments[0] == "s0" else []
    assert words in refusal(capsys, "bench", *arguments, *data)
    assert list(tmp_path.iterdir()) == []
