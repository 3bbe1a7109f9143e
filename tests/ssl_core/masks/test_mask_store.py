"""The store of fitted masks: what comes back, killed writes, several processes, lost files."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_core.errors import WorkspaceError
from ssl_core.masks.files import fit_mask, keep
from ssl_core.masks.store import MaskStore

SIZE = 10  # 100 pixels are no whole number of bytes


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images", tmp_path / "masks"


@pytest.fixture
def store(folders):
    return MaskStore(*folders, SIZE, "pad")


def kept(folders, n=5, seed=0) -> tuple[list[str], np.ndarray]:
    """Some masks of several sizes, by digest, and how they look at the working size."""
    rng = np.random.default_rng(seed)
    masks = [rng.random(rng.integers(3, 30, 2)) < 0.5 for _ in range(n)]
    return [keep(folders[1], m) for m in masks], np.stack([fit_mask(m, SIZE, "pad") for m in masks])


def bits(folders):
    return folders[0] / f"masks-{SIZE}-pad.bits"


def test_masks_come_back_fitted_in_the_order_asked(folders, store):
    digests, fitted = kept(folders)
    found = store.at([digests[i] for i in (3, 0, 3)])
    assert (found.shape, found.dtype) == ((3, SIZE, SIZE), np.bool_)
    np.testing.assert_array_equal(found, fitted[[3, 0, 3]])
    np.testing.assert_array_equal(store.at(digests), fitted)
    assert store.at([]).shape == (0, SIZE, SIZE)


def test_a_mask_is_fitted_once_and_then_read_from_one_file(folders, store):
    digests, fitted = kept(folders)
    store.at(digests[:2])
    store.at(digests)
    size = bits(folders).stat().st_size
    assert size == 5 * (32 + 13 + 4)
    for path in folders[1].iterdir():
        path.unlink()
    other = MaskStore(*folders, SIZE, "pad")
    np.testing.assert_array_equal(other.at(digests), fitted)
    assert bits(folders).stat().st_size == size


def test_sizes_and_fits_do_not_mix(folders, store):
    digests, _ = kept(folders)
    store.at(digests)
    assert MaskStore(*folders, 6, "pad").at(digests).shape == (5, 6, 6)
    assert MaskStore(*folders, SIZE, "squash").at(digests).shape == (5, SIZE, SIZE)
    assert len(list(folders[0].glob("*.bits"))) == 3


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 5 * 49), st.integers(0, 5))
def test_whatever_a_kill_leaves_of_the_file_is_mended(tmp_path_factory, cut, torn):
    folder = tmp_path_factory.mktemp("torn")
    folders = (folder / "images", folder / "masks")
    folders[0].mkdir()
    digests, fitted = kept(folders)
    MaskStore(*folders, SIZE, "pad").at(digests)
    raw = bytearray(bits(folders).read_bytes()[:cut])
    for row in range(min(torn, cut // 49)):  # the length came to the disk, and the bytes did not
        raw[row * 49 + 5 : (row + 1) * 49] = bytes(44)
    bits(folders).write_bytes(bytes(raw))
    for _ in range(2):
        again = MaskStore(*folders, SIZE, "pad")
        np.testing.assert_array_equal(again.at(digests), fitted)
    assert bits(folders).stat().st_size % 49 == 0


def test_a_store_that_is_open_sees_what_another_appends(folders, store):
    digests, fitted = kept(folders)
    store.at(digests[:1])
    MaskStore(*folders, SIZE, "pad").at(digests)
    size = bits(folders).stat().st_size
    np.testing.assert_array_equal(store.at(digests), fitted)
    assert bits(folders).stat().st_size == size


def _read_all(folders, digests, seed, queue) -> None:
    order = np.random.default_rng(seed).permutation(len(digests))
    store = MaskStore(*folders, SIZE, "pad")
    found = np.concatenate([store.at([digests[i]]) for i in order])
    queue.put((order.tolist(), found))


def test_several_processes_at_once_lose_and_double_nothing(folders):
    digests, fitted = kept(folders, 40)
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    workers = [
        spawn.Process(target=_read_all, args=(folders, digests, seed, queue)) for seed in range(2)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        order, found = queue.get(timeout=120)
        np.testing.assert_array_equal(found, fitted[order])
    for worker in workers:
        worker.join()
    assert bits(folders).stat().st_size == 40 * 49


def test_a_lost_or_damaged_mask_is_named(folders, store):
    digests, fitted = kept(folders)
    (folders[1] / f"{digests[1]}.png").unlink()
    with pytest.raises(WorkspaceError, match=rf"{digests[1]}.png' is missing"):
        store.at(digests)
    (folders[1] / f"{digests[2]}.png").write_bytes(b"no picture")
    with pytest.raises(WorkspaceError, match=rf"{digests[2]}.png' is damaged"):
        store.at(digests[2:])
    np.testing.assert_array_equal(store.at([digests[0], *digests[3:]]), fitted[[0, 3, 4]])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(folders, store):
    digests, _ = kept(folders)
    folders[0].chmod(0o500)
    with pytest.raises(WorkspaceError, match="cannot be written"):
        store.at(digests)


def test_a_folder_that_is_gone_is_named(folders, store):
    digests, _ = kept(folders)
    folders[0].rmdir()
    folders[0].write_bytes(b"")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        store.at(digests)
