"""The pixel store: what a row holds, and that any stop leaves a store to go on with."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.folder import FolderSource
from connectors.memory import MemorySource
from ssl_core import images
from ssl_core.errors import Cancelled, ImageError, WorkspaceError
from ssl_core.images import ImageStore, Refusal, fit_image, looks_grey

SETTINGS = {"size": 8, "fit": "pad", "channels": 3}


class Counting:
    """A source that notes every path that is read; those named bad cannot be."""

    def __init__(self, source, bad=()):
        self.source, self.bad, self.read_paths = source, set(bad), []
        self.lock = threading.Lock()

    def digest(self, path):
        return self.source.digest(path)

    def read(self, path):
        with self.lock:
            self.read_paths.append(path)
        if path in self.bad:
            raise ImageError(f"{path!r} is bad.")
        return self.source.read(path)


def picture(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def numbered(count: int) -> MemorySource:
    return MemorySource({f"{n}.png": picture(n) for n in range(count)})


def pairs(count: int) -> list[tuple[str, str]]:
    return [(f"id{n}", f"{n}.png") for n in range(count)]


def build(folder, count, source=None, **options):
    options = SETTINGS | options
    return ImageStore.build(folder, pairs(count), source or numbered(count), **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- one image --------------------------------------------------------------------------------


def test_an_image_of_the_working_size_is_kept_exactly():
    rgb = picture(0)
    np.testing.assert_array_equal(fit_image(rgb, 8, "pad", 3), rgb.transpose(2, 0, 1))
    np.testing.assert_array_equal(fit_image(rgb, 8, "squash", 3), rgb.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (20, 40, (2, 6), (0, 8)),  # 2:1, a band of 4 rows
        (40, 20, (0, 8), (2, 6)),
        (4, 2, (0, 8), (2, 6)),  # enlarged
        (8, 3, (0, 8), (2, 5)),  # the odd column goes right
        (5, 8, (1, 6), (0, 8)),
        (1, 10_000, (3, 4), (0, 8)),  # never less than one row
        (10_000, 1, (0, 8), (3, 4)),
        (1, 1, (0, 8), (0, 8)),
    ],
)
def test_pad_keeps_the_aspect_and_centres(height, width, rows, columns):
    white = np.full((height, width, 3), 255, np.uint8)
    expected = np.zeros((3, 8, 8), np.uint8)
    expected[:, slice(*rows), slice(*columns)] = 255
    np.testing.assert_array_equal(fit_image(white, 8, "pad", 3), expected)
    np.testing.assert_array_equal(fit_image(white, 8, "pad", 1), expected[:1])
    np.testing.assert_array_equal(fit_image(white, 8, "squash", 3), np.full((3, 8, 8), 255))


def test_squash_stretches_each_axis():
    halves = np.zeros((4, 32, 3), np.uint8)
    halves[:, 16:] = 200
    (pixels,) = fit_image(halves, 8, "squash", 1)
    assert (pixels[:, :3] == 0).all()
    assert (pixels[:, 6:] == 200).all()  # bicubic overshoots by a few beside the edge


def test_shrinking_averages_rather_than_picks():
    board = np.kron((np.indices((32, 32)).sum(axis=0) % 2 * 255)[:, :, None], np.ones((1, 1, 3)))
    pixels = fit_image(board.astype(np.uint8), 8, "pad", 1).astype(int)
    assert np.abs(pixels[:, 1:-1, 1:-1] - 127.5).max() <= 3


def test_one_channel_is_bt_601_luma():
    rgb = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)
    # 0.299, 0.587 and 0.114 of 255; 2.99 + 11.74 + 3.42 = 18.15
    np.testing.assert_array_equal(fit_image(rgb, 2, "pad", 1), [[[76, 150], [29, 18]]])


def test_one_channel_leaves_grey_as_it_was():
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    np.testing.assert_array_equal(fit_image(grey, 16, "pad", 1)[0], grey[:, :, 0])


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 24),
    fit=st.sampled_from(["pad", "squash"]),
    channels=st.sampled_from([1, 3]),
    shade=st.integers(0, 255),
)
@settings(deadline=None)
def test_fitting_laws(height, width, size, fit, channels, shade):
    flat = np.full((height, width, 3), shade, np.uint8)
    out = fit_image(flat, size, fit, channels)
    assert out.shape == (channels, size, size)
    assert out.dtype == np.uint8
    assert set(np.unique(out)) <= {0, shade}
    assert out.flags.c_contiguous
    shown = int((out[0] == shade).sum()) if shade else size * size
    least = size * size if fit == "squash" else size  # at least a line across
    assert shown >= least
    turned = fit_image(np.ascontiguousarray(flat.transpose(1, 0, 2)), size, fit, channels)
    np.testing.assert_array_equal(turned, out.transpose(0, 2, 1))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_fit_takes_plain_rgb_only(image):
    with pytest.raises(ValueError, match="uint8"):
        fit_image(image, 8, "pad", 3)


def test_looks_grey():
    grey = np.repeat(picture(0)[:, :, :1] // 2, 3, axis=2)
    assert looks_grey(grey)
    tinted = grey.copy()
    tinted[3, 3, 1] += 8
    assert looks_grey(tinted)
    tinted[3, 3, 1] += 1
    assert not looks_grey(tinted)
    assert looks_grey(tinted, tolerance=9)
    assert not looks_grey(picture(0))
    wrapped = np.array([[[0, 255, 0]]], np.uint8)  # differences must not overflow
    assert not looks_grey(wrapped)


# --- a store ----------------------------------------------------------------------------------


def test_rows_are_the_fitted_images_in_order(tmp_path):
    source = MemorySource({"a": picture(0, 4, 9), "b": picture(1, 30, 20), "c": picture(2)})
    items = [("z", "b"), ("x", "c"), ("y", "a")]
    store, refused = ImageStore.build(tmp_path / "deep" / "er", items, source, **SETTINGS)
    assert refused == []
    assert (len(store), store.ids, store.size, store.channels) == (3, ("z", "x", "y"), 8, 3)
    assert store.array.shape == (3, 3, 8, 8)
    for row, (_, path) in enumerate(items):
        expected = fit_image(source.read(path), 8, "pad", 3)
        np.testing.assert_array_equal(store.array[row], expected)
    again = ImageStore.open(tmp_path / "deep" / "er")
    assert again.ids == store.ids
    np.testing.assert_array_equal(again.array, store.array)


def test_pixels_come_in_the_order_asked(tmp_path):
    store, _ = build(tmp_path, 5)
    asked = ["id3", "id0", "id3"]
    assert store.positions(asked).tolist() == [3, 0, 3]
    assert store.positions(asked).dtype == np.int64
    pixels = store.pixels(asked)
    assert type(pixels) is np.ndarray
    np.testing.assert_array_equal(pixels, store.array[[3, 0, 3]])
    pixels[:] = 0  # a copy: the store is not touched
    assert store.array[3].any()
    assert store.pixels([]).shape == (0, 3, 8, 8)
    with pytest.raises(KeyError, match="item 'nobody' is not in the image store"):
        store.pixels(["id1", "nobody"])


def test_the_array_cannot_be_written(tmp_path):
    store, _ = build(tmp_path, 2)
    with pytest.raises(ValueError, match="read-only"):
        store.array[0] = 0


@pytest.mark.parametrize("channels", [1, 3])
def test_no_items_make_an_empty_store(tmp_path, channels):
    store, refused = build(tmp_path, 0, channels=channels)
    assert (len(store), refused) == (0, [])
    assert store.pixels([]).shape == (0, channels, 8, 8)
    assert len(build(tmp_path, 0, channels=channels)[0]) == 0


def test_an_id_twice_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        ImageStore.build(tmp_path, [("a", "0.png"), ("a", "1.png")], numbered(2), **SETTINGS)


def test_a_finished_store_is_not_built_again(tmp_path):
    build(tmp_path, 5)
    before = bytes_of(tmp_path)
    source = Counting(numbered(5))
    build(tmp_path, 5, source)
    assert source.read_paths == []
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize(
    "change", [{"size": 9}, {"fit": "squash"}, {"channels": 1}, {"count": 4}, {"count": 6}]
)
def test_other_settings_or_items_start_afresh(tmp_path, change):
    build(tmp_path / "old", 5)
    count = change.pop("count", 5)
    source = Counting(numbered(count))
    store, _ = build(tmp_path / "old", count, source, **change)
    assert len(source.read_paths) == count
    build(tmp_path / "new", count, **change)
    assert bytes_of(tmp_path / "old") == bytes_of(tmp_path / "new")
    assert len(store) == count


def test_another_order_starts_afresh(tmp_path):
    build(tmp_path, 3)
    store, _ = ImageStore.build(tmp_path, pairs(3)[::-1], numbered(3), **SETTINGS)
    np.testing.assert_array_equal(store.pixels(["id0"])[0], picture(0).transpose(2, 0, 1))


def test_progress_is_told_in_this_thread(tmp_path):
    seen = []
    build(tmp_path, 3, progress=lambda *told: seen.append((*told, threading.get_ident())))
    me = threading.get_ident()
    assert seen == [(n, 3, me) for n in (0, 1, 2, 3)]
    seen.clear()
    build(tmp_path, 3, progress=lambda *told: seen.append(told))
    assert seen == [(3, 3)]


def test_memory_does_not_grow_with_the_items(tmp_path, monkeypatch):
    monkeypatch.setattr(images.os, "cpu_count", lambda: 2)

    class Plain:
        def read(self, path):
            return np.full((64, 64, 3), int(path) % 256, np.uint8)

    def peak(count):
        items = [(str(n), str(n)) for n in range(count)]
        tracemalloc.start()
        options = SETTINGS | {"size": 64}
        ImageStore.build(tmp_path / str(count), items, Plain(), **options)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    small, large = peak(200), peak(1400)
    assert large - small < 1200 * 64 * 64 * 3 / 10  # a tenth of the pixels that were added


# --- stops ------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, threading
from pathlib import Path
import numpy as np
from ssl_core import images
os.cpu_count = lambda: 2
images.BATCH_ROWS = 8
reads, lock = [], threading.Lock()

class Killer:
    def read(self, path):
        with lock:
            reads.append(path)
            if len(reads) == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
        seed = int(path.removesuffix(".png"))
        return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)

items = [(f"id{n}", f"{n}.png") for n in range(60)]
images.ImageStore.build(Path(sys.argv[1]), items, Killer(), size=8, fit="pad", channels=3)
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("at", "least"), [(1, 0), (35, 16), (60, 48)])
def test_a_killed_build_goes_on_where_it_was(tmp_path, at, least):
    # with 2 workers at most 8 rows are under way, so `least` rows were synced before read `at`
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(at)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    flags = np.fromfile(tmp_path / "killed" / "done.u8", np.uint8)
    assert least <= flags.sum() < 60
    with pytest.raises(WorkspaceError, match=f"unfinished \\({flags.sum()} of 60 images\\)"):
        ImageStore.open(tmp_path / "killed")
    source = Counting(numbered(60))
    build(tmp_path / "killed", 60, source)
    assert sorted(source.read_paths) == sorted(f"{n}.png" for n in np.flatnonzero(flags == 0))
    build(tmp_path / "whole", 60)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def test_a_row_without_its_flag_is_written_again(tmp_path):
    build(tmp_path, 5)
    before = bytes_of(tmp_path)
    with (tmp_path / "pixels.u8").open("r+b") as pixels:
        pixels.seek(2 * 192)
        pixels.write(b"half a row")
    with (tmp_path / "done.u8").open("r+b") as flags:
        flags.seek(2)
        flags.write(b"\0")
    source = Counting(numbered(5))
    build(tmp_path, 5, source)
    assert source.read_paths == ["2.png"]
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("error", [Cancelled("stopped"), KeyboardInterrupt()])
def test_a_cancelled_build_keeps_its_rows(tmp_path, error):
    def stop(done, total):
        if done == 20:
            raise error

    with pytest.raises(type(error)):
        build(tmp_path, 40, progress=stop)
    told = []
    source = Counting(numbered(40))
    build(tmp_path, 40, source, progress=lambda done, total: told.append(done))
    assert told == list(range(20, 41))
    assert sorted(source.read_paths) == [f"{n}.png" for n in range(20, 40)]  # several read at once


def test_a_fault_in_the_source_is_not_hidden(tmp_path):
    class Broken:
        def read(self, path):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        build(tmp_path, 3, Broken())


@pytest.mark.parametrize("works", [0, 1])  # the index is synced first, then the pixels
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, works):
    calls = iter(range(100))

    def full(descriptor):
        if next(calls) >= works:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images.os, "fsync", full)
    with pytest.raises(WorkspaceError, match=r"cannot be written \(No space left on device\)"):
        build(tmp_path, 5)
    assert (tmp_path / "done.u8").read_bytes() == bytes(5)  # no flag before its pixels are safe
    monkeypatch.undo()
    source = Counting(numbered(5))
    assert len(build(tmp_path, 5, source)[0]) == 5
    assert len(source.read_paths) == 5


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "store").write_text("mine")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        build(tmp_path / "store", 1)
    assert (tmp_path / "store").read_text() == "mine"


# --- unreadable images ------------------------------------------------------------------------


def test_one_unreadable_image_is_told_in_its_own_words(tmp_path):
    with pytest.raises(ImageError, match=r"^'1.png' is bad\.$"):
        build(tmp_path, 3, Counting(numbered(3), bad=["1.png"]))
    mended = Counting(numbered(3))
    assert len(build(tmp_path, 3, mended)[0]) == 3
    assert mended.read_paths == ["1.png"]


def test_many_unreadable_images_are_named(tmp_path):
    with pytest.raises(ImageError) as caught:
        build(tmp_path, 4, Counting(numbered(4), bad=["1.png", "3.png"]))
    assert "2 of 4 images cannot be read: '1.png', '3.png'; " in str(caught.value)
    with pytest.raises(ImageError) as caught:
        build(tmp_path, 30, Counting(numbered(30), bad=[f"{n}.png" for n in range(5, 30)]))
    assert "25 of 30 images cannot be read: '5.png', " in str(caught.value)
    assert "'24.png' and 5 more; " in str(caught.value)


@pytest.mark.parametrize("bad", [[0], [4], [1, 2], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_unreadable_images_are_left_out(tmp_path, bad):
    source = Counting(numbered(5), bad=[f"{n}.png" for n in bad])
    store, refused = build(tmp_path, 5, source, skip_unreadable=True)
    assert refused == [Refusal(f"id{n}", f"{n}.png", f"'{n}.png' is bad.") for n in bad]
    good = [n for n in range(5) if n not in bad]
    assert store.ids == tuple(f"id{n}" for n in good)
    assert store.array.shape == (len(good), 3, 8, 8)
    for row, n in enumerate(good):
        np.testing.assert_array_equal(store.array[row], picture(n).transpose(2, 0, 1))


def test_left_out_images_are_remembered(tmp_path):
    bad = ["1.png", "3.png"]
    first, refused = build(tmp_path, 5, Counting(numbered(5), bad), skip_unreadable=True)
    source = Counting(numbered(5), bad)
    second, again = build(tmp_path, 5, source, skip_unreadable=True)
    good = [pair for pair in pairs(5) if pair[1] not in bad]
    third, none = ImageStore.build(tmp_path, good, source, **SETTINGS)
    assert source.read_paths == []
    assert first.ids == second.ids == third.ids
    assert (again, none) == (refused, [])
    with pytest.raises(ImageError, match="2 of 5 images cannot be read"):
        build(tmp_path, 5, source)


def test_a_kill_while_gaps_are_closed_starts_afresh(tmp_path, monkeypatch):
    bad = ["1.png"]
    build(tmp_path / "whole", 5, Counting(numbered(5), bad), skip_unreadable=True)
    write = images._write_index

    def killed(folder, index):
        if index.refused:
            raise KeyboardInterrupt
        write(folder, index)

    monkeypatch.setattr(images, "_write_index", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", 5, Counting(numbered(5), bad), skip_unreadable=True)
    monkeypatch.undo()
    with pytest.raises(WorkspaceError, match="There is no image store"):
        ImageStore.open(tmp_path / "killed")
    build(tmp_path / "killed", 5, Counting(numbered(5), bad), skip_unreadable=True)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


# --- stores that were tampered with -----------------------------------------------------------


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(WorkspaceError, match="There is no image store in"):
        ImageStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["pixels.u8", "done.u8"])
@pytest.mark.parametrize("size", [0, 1, 10_000, None])
def test_files_of_the_wrong_size(tmp_path, name, size):
    build(tmp_path, 5)
    before = bytes_of(tmp_path)
    if size is None:
        (tmp_path / name).unlink()
    else:
        os.truncate(tmp_path / name, size)
    with pytest.raises(WorkspaceError, match="files of the wrong size"):
        ImageStore.open(tmp_path)
    build(tmp_path, 5)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "{}", '{"digest": "x"}', "\0\xff"])
def test_a_broken_index(tmp_path, text):
    build(tmp_path, 5)
    before = bytes_of(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(WorkspaceError, match="There is no image store"):
        ImageStore.open(tmp_path)
    build(tmp_path, 5)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("change", [{"size": 4}, {"ids": ["a"] * 5}, {"fit": "squash"}, {"new": 1}])
def test_an_edited_index_is_not_believed(tmp_path, change):
    build(tmp_path, 5)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WorkspaceError, match="There is no image store"):
        ImageStore.open(tmp_path)


# --- real files -------------------------------------------------------------------------------


def test_real_radiographs(tmp_path):
    root = Path(os.environ.get("READLOOP_DATA", "../shared/data")) / "kermany"
    if not root.is_dir():
        pytest.skip("no real data: set READLOOP_DATA to the folder that holds kermany")
    source = FolderSource(root)
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpeg"))[:40]
    items = [(source.digest(path), path) for path in paths]
    options = {"size": 64, "fit": "pad", "channels": 1}
    store, refused = ImageStore.build(tmp_path, items, source, **options)
    assert (len(store), refused) == (40, [])
    assert all(looks_grey(source.read(path)) for path in paths)
    means = store.array.mean(axis=(1, 2, 3))
    originals = [source.read(path).mean() for path in paths]
    np.testing.assert_allclose(means, originals, atol=1)  # resizing keeps the brightness
