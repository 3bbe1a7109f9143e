"""Features on a plane: the same for a seed, near things near, and no input that breaks it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssl_core.errors import Cancelled, MapError
from ssl_core.pictures import embedding
from ssl_core.pictures.embedding import (
    FEW,
    embed,
    embed_apart,
    method_for,
    principal_components,
)

METHODS = ["umap", "tsne", "pca"]
NEIGHBOUR_METHODS = ["umap", "tsne"]


def blobs(n=150, kinds=3, width=24, seed=0):
    """`(n, width)` features of three kinds that lie in different directions, and the kinds."""
    rng = np.random.default_rng(seed)
    centres = np.eye(kinds, width) * 10
    kind = np.arange(n) % kinds
    return (centres[kind] + rng.normal(0, 0.6, (n, width))).astype(np.float32), kind


@pytest.fixture(scope="module")
def placed():
    features, kind = blobs()
    return {method: embed(features, method, seed=3) for method in METHODS}, features, kind


@pytest.mark.parametrize("method", METHODS)
def test_each_kind_lies_by_itself(placed, method):
    """The nearest point on the plane is of the same kind, for every item."""
    found, _, kind = placed
    xy = found[method].coordinates
    assert xy.shape == (150, 2)
    assert xy.dtype == np.float32
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (kind[apart.argmin(axis=1)] == kind).all()


def test_the_threads_of_torch_stay_as_they_were():
    """numba shares torch's OpenMP: a round after a map would else end otherwise in the 7th digit.

    In a process of its own, since only numba's first loop does it.
    """
    code = (
        "import torch, numpy as np; print(torch.get_num_threads()); "
        "from ssl_core.pictures.embedding import embed; "
        "embed(np.random.default_rng(0).normal(size=(120, 4)), 'umap', seed=0); "
        "print(torch.get_num_threads())"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["1", "1"]


def test_what_numba_compiled_is_kept_for_the_next_process(placed):
    from umap import layouts, umap_

    for compiled in (umap_.smooth_knn_dist, layouts._nb_optimize_layout_euclidean_single_epoch):
        function = compiled.py_func
        kept = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-*.nbc"
        assert list(Path(compiled.stats.cache_path).glob(kept)), kept


@pytest.mark.parametrize("method", METHODS)
def test_what_was_done_is_told(placed, method):
    made = placed[0][method]
    assert (made.method, made.seed, made.note) == (method, 3, "")
    assert made.parameters["dimensions"] == 24
    expected = {"umap": ("n_neighbors", 15), "tsne": ("perplexity", 30.0), "pca": None}[method]
    assert expected is None or made.parameters[expected[0]] == expected[1]


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_map(placed, method):
    found, features, _ = placed
    again = embed(features, method, seed=3)
    np.testing.assert_array_equal(again.coordinates, found[method].coordinates)


def test_another_seed_another_umap(placed):
    found, features, _ = placed
    other = embed(features, "umap", seed=4)
    assert not np.array_equal(other.coordinates, found["umap"].coordinates)


@pytest.mark.parametrize("method", NEIGHBOUR_METHODS)
def test_an_item_without_features_has_no_place_and_moves_no_other(placed, method):
    found, features, _ = placed
    spoilt = np.insert(features, 7, np.nan, axis=0)
    spoilt = np.insert(spoilt, 20, np.inf, axis=0)
    made = embed(spoilt, method, seed=3)
    assert np.flatnonzero(np.isnan(made.coordinates).any(axis=1)).tolist() == [7, 20]
    np.testing.assert_array_equal(
        np.delete(made.coordinates, [7, 20], axis=0), found[method].coordinates
    )
    assert made.note == "2 items have features that are not finite"


@pytest.mark.parametrize("method", NEIGHBOUR_METHODS)
def test_equal_features_are_one_point_and_move_no_other(placed, method):
    found, features, _ = placed
    made = embed(np.concatenate([features, features[:40], features[:1] * 2]), method, seed=3)
    np.testing.assert_array_equal(made.coordinates[:150], found[method].coordinates)
    np.testing.assert_array_equal(made.coordinates[150:190], found[method].coordinates[:40])
    np.testing.assert_allclose(made.coordinates[190], found[method].coordinates[0], rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", range(21))
def test_a_few_points_get_their_components(method, n):
    features = np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32)
    made = embed(features, method, seed=0)
    assert made.method == "pca"
    assert made.coordinates.shape == (n, 2)
    assert np.isfinite(made.coordinates).all()
    assert len(np.unique(made.coordinates, axis=0)) == n
    assert (made.note == "") == (method == "pca")


def test_the_note_says_why():
    made = embed(np.eye(5), "umap", seed=0)
    assert made.note == f"of 5 different points, fewer than {FEW}, the map is a PCA"


@pytest.mark.parametrize("method", METHODS)
def test_constant_features_are_one_point(method):
    made = embed(np.full((300, 6), 2.5), method, seed=0)
    np.testing.assert_array_equal(made.coordinates, np.zeros((300, 2)))
    assert (method == "pca") == (made.note == "")


def test_components_by_hand():
    """Three points on a line, at -1, 0 and 1: one component, one of zeros is added."""
    points = np.array([[0, 1], [0, 2], [0, 3]], np.float32)
    found = principal_components(points, 2)
    np.testing.assert_allclose(np.abs(found), [[1, 0], [0, 0], [1, 0]], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 20), st.integers(1, 5)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32)
        | st.sampled_from([np.nan, np.inf, 0.0, 1.0]),
    ),
    st.sampled_from(METHODS),
)
def test_law_any_few_features_have_a_place_exactly_when_they_are_finite(features, method):
    made = embed(features, method, seed=1)
    finite = np.isfinite(features).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(made.coordinates).all(axis=1), finite)
    np.testing.assert_array_equal(embed(features, method, seed=1).coordinates, made.coordinates)


def test_the_method_of_auto():
    assert [method_for(n) for n in (0, 1_999, 2_000, 50_000)] == ["tsne", "tsne", "umap", "umap"]


@pytest.mark.parametrize(("features", "method"), [(np.zeros(4), "umap"), (np.zeros((4, 2)), "mds")])
def test_what_cannot_be_embedded_is_refused(features, method):
    with pytest.raises(ValueError, match="cannot be embedded"):
        embed(features, method, seed=0)


def test_many_points_are_placed_by_a_sample(monkeypatch, placed):
    """120 of 150 are fitted; every other lies with its kind, and inside what was fitted."""
    monkeypatch.setitem(embedding.FITTED, "tsne", 120)
    _, features, kind = placed
    made = embed(features, "tsne", seed=5)
    assert made.parameters["fitted"] == 120
    assert "120 points drawn at random" in made.note
    xy = made.coordinates
    centres = np.array([np.median(xy[kind == k], axis=0) for k in range(3)])
    apart = np.linalg.norm(xy[:, None] - centres[None], axis=2)
    assert (apart.argmin(axis=1) == kind).all()
    np.testing.assert_array_equal(embed(features, "tsne", seed=5).coordinates, xy)


def test_between_by_hand(monkeypatch):
    """A point at distance 1 and 3 of two fitted ones lies a quarter of the way to the second."""
    monkeypatch.setattr(embedding, "PLACED_BY", 2)
    fitted = np.array([[0.0], [4.0], [100.0]], np.float32)
    places = np.array([[0, 0], [8, 4], [50, 50]], np.float32)
    found = embedding._between(np.array([[1.0]], np.float32), fitted, places)
    np.testing.assert_allclose(found, [[2, 1]])


# --- in a process of its own ----------------------------------------------------------------


def test_apart_is_the_same(placed, tmp_path):
    found, features, _ = placed
    np.save(tmp_path / "features.npy", features)
    made = embed_apart(tmp_path / "features.npy", "tsne", seed=3)
    np.testing.assert_array_equal(made.coordinates, found["tsne"].coordinates)
    assert (made.method, made.seed, made.note) == ("tsne", 3, "")
    assert made.parameters == found["tsne"].parameters


def test_apart_says_why_it_failed(tmp_path):
    np.save(tmp_path / "features.npy", np.zeros(3))
    with pytest.raises(MapError, match=r"tsne of the map .*code 1 \(ValueError: features \(3,\)"):
        embed_apart(tmp_path / "features.npy", "tsne", seed=0)


def test_apart_ends_with_its_caller_s_patience(tmp_path):
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(5_000, 20)))

    def enough() -> None:
        raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        embed_apart(tmp_path / "features.npy", "tsne", seed=0, waiting=enough)
    here = f"features.npy tsne 0 {tmp_path}"
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert here not in running
    assert str(tmp_path) not in running


def test_nothing_slow_is_imported_before_it_is_needed():
    code = "import sys, ssl_core.rounds; print('umap' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
