"""What lies near an image: the nearest labeled items, ties by id, and its star."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.errors import MapError
from ssl_core.pictures.embedding import Embedding
from ssl_core.pictures.map_files import RoundMap, load_map
from ssl_core.pictures.neighbours import (
    Labeled,
    Star,
    features_of,
    labeled_items,
    nearest,
    star,
)
from ssl_core.records import SPLITS, Assignment, Label, Pulled, Read
from ssl_core.rounds import run_round
from tests import toy


def a_map(features, coordinates=None, splits=None) -> RoundMap:
    features = np.asarray(features, np.float16)
    n = len(features)
    ids = tuple("abcdefghij"[:n]) if n <= 10 else tuple(f"{i:05d}" for i in range(n))
    places = np.zeros((n, 2)) if coordinates is None else np.asarray(coordinates)
    return RoundMap(
        round=3,
        model_id="m",
        findings=("Spot",),
        exclusive=False,
        tta="flip",
        ids=ids,
        splits=np.zeros(n, np.uint8) if splits is None else np.asarray(splits, np.uint8),
        features=features,
        probabilities=np.zeros((n, 1), np.float32),
        uncertainty=np.zeros(n, np.float32),
        uncertainty_of="margin",
        embeddings={"umap": Embedding("umap", places.astype(np.float32), {}, 0)},
        failed={},
        place={item_id: row for row, item_id in enumerate(ids)},
    )


def labeled(units, ids="abcdefghij", labels=None) -> Labeled:
    units = np.asarray(units, np.float32)
    values = np.zeros((len(units), 1)) if labels is None else np.asarray(labels, float)
    return Labeled(tuple(ids[: len(units)]), values, units)


# --- nearest --------------------------------------------------------------------------------

COMPASS = [[1, 0], [0.6, 0.8], [0, 1], [-1, 0]]


def test_nearest_by_hand():
    found = nearest(labeled(COMPASS, labels=[[1], [0], [math.nan], [1]]), [0, 2], 3)
    assert [(n.item_id, round(n.similarity, 6)) for n in found] == [("c", 1), ("b", 0.8), ("a", 0)]
    assert found[1].labels == (0.0,)
    assert math.isnan(found[0].labels[0])


def test_the_length_of_the_features_does_not_matter():
    one, other = (nearest(labeled(COMPASS), [3 * x, 4 * x], 4) for x in (1e-20, 1e20))
    assert [n.item_id for n in one] == [n.item_id for n in other] == ["b", "c", "a", "d"]


def test_ties_stand_in_the_order_of_their_ids():
    units = [[0, 1], [1, 0], [1, 0], [1, 0], [0, 1]]
    found = nearest(labeled(units, ids="ecdab"), [1, 0], 5)
    assert "".join(n.item_id for n in found) == "acdbe"
    assert "".join(n.item_id for n in nearest(labeled(units, ids="ecdab"), [1, 0], 2)) == "ac"


def test_rounding_breaks_no_tie():
    """The same features give the same cosine wherever they stand in the matrix."""
    rng = np.random.default_rng(0)
    unit = rng.normal(size=1280).astype(np.float32)
    unit /= np.linalg.norm(unit)
    units = np.repeat(unit[None], 10, axis=0) * np.float32(1 + 1e-7)
    found = nearest(labeled(units, ids="jihgfedcba"), unit, 10)
    assert "".join(n.item_id for n in found) == "abcdefghij"


def test_the_item_itself_is_left_out():
    found = nearest(labeled(COMPASS), [1, 0], 2, exclude="a")
    assert [n.item_id for n in found] == ["b", "c"]
    assert [n.item_id for n in nearest(labeled(COMPASS), [1, 0], 2, exclude="z")] == ["a", "b"]


@pytest.mark.parametrize("k", [0, 4, 100])
def test_no_more_than_there_are(k):
    assert len(nearest(labeled(COMPASS), [1, 0], k)) == min(k, 4)


def test_without_labels_or_direction_there_is_nobody():
    assert nearest(labeled(np.empty((0, 2))), [1, 0]) == []
    for features in ([0, 0], [math.nan, 1], [math.inf, 1]):
        assert nearest(labeled(COMPASS), features) == []


def test_features_of_another_network_are_refused():
    with pytest.raises(MapError, match=r"another network \(\(3,\) numbers, not 2\)"):
        nearest(labeled(COMPASS), [1, 0, 0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 40))
def test_law_the_first_k_are_the_first_of_a_full_sort(seed, n, k):
    rng = np.random.default_rng(seed)
    units = rng.integers(-1, 2, (n, 3)).astype(np.float32)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    units = np.divide(units, lengths, out=np.zeros_like(units), where=lengths > 0)
    ids = [f"{i:02d}" for i in rng.permutation(n)]
    query = np.array([1, 0.5, 0], np.float32)
    found = nearest(Labeled(tuple(ids), np.zeros((n, 1)), units), query, k)
    cosine = units.astype(float) @ (query / np.linalg.norm(query))
    expected = sorted(range(n), key=lambda i: (-round(cosine[i], 5), ids[i]))[:k]
    assert [one.item_id for one in found] == [ids[i] for i in expected]


# --- the labels -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = toy.make(tmp_path_factory.mktemp("toy") / "w")
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    run_round(workspace, room)
    return workspace


def test_labels_are_those_of_train_and_validation(workspace):
    """The archive has answered for the whole vault as well: none of it is here."""
    found = load_map(workspace, 2)
    here = labeled_items(workspace, found)
    vault = {item.id for item in workspace.ledger.items("vault")}
    answered = {label.item_id for label in workspace.ledger.labels()}
    assert vault <= workspace.ledger.labeled_items()
    assert set(here.ids) == answered
    assert not set(here.ids) & vault
    assert [found.place[i] for i in here.ids] == sorted(found.place[i] for i in here.ids)
    truth = {label.item_id: label.value for label in workspace.ledger.labels()}
    assert here.labels[:, 0].tolist() == [truth[i] for i in here.ids]
    np.testing.assert_allclose(np.linalg.norm(here.units, axis=1), 1, rtol=1e-5)


def test_an_item_of_the_map_finds_its_neighbours(workspace):
    found = load_map(workspace, 2)
    here = labeled_items(workspace, found)
    own = here.ids[3]
    near = nearest(here, features_of(found, own), 5)
    assert near[0].item_id == own
    assert near[0].similarity == pytest.approx(1, abs=1e-5)
    others = nearest(here, features_of(found, own), 5, exclude=own)
    assert [n.item_id for n in others[:4]] == [n.item_id for n in near[1:]]


def test_unusable_images_and_unknown_labels_are_no_neighbours(tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(workspace, room)
    found = load_map(workspace, 1)
    ledger, before = workspace.ledger, set(labeled_items(workspace, found).ids)
    bad, unknown, good = [item.id for item in ledger.items("train")[:3]]
    ledger.add_labels(
        [
            Label(i, "Spot", value, "ana", "archive", f"key {i}")
            for i, value in ((bad, 1.0), (unknown, math.nan), (good, 1.0))
        ]
    )
    assert set(labeled_items(workspace, found).ids) - before == {bad, good}
    ledger.reading.assign([Assignment(bad, "ben", 1, 0)])
    unusable = Read("r", bad, "ben", "archive", outcome="unusable", reason="lateral")
    ledger.reading.take("archive", Pulled((unusable,)))
    assert set(labeled_items(workspace, found).ids) - before == {good}


def test_an_item_that_is_not_there_is_refused(workspace):
    with pytest.raises(MapError, match="'nobody' is not on the map of round 2"):
        features_of(load_map(workspace, 2), "nobody")


# --- the star -------------------------------------------------------------------------------


def test_star_by_hand():
    """Cosines .8 and .6 with places (0, 0) and (7, 14): 3/7 of the way; the third says nothing."""
    found = a_map([[1, 0, 0], [0, 1, 0], [0, 0, -1]], [[0, 0], [7, 14], [99, 99]])
    here = star(found, [0.8, 0.6, 0.1], "umap")
    length = math.sqrt(0.8**2 + 0.6**2 + 0.1**2)
    assert (here.x, here.y) == pytest.approx((3, 6), rel=1e-5)
    assert here.nearest == ("a", "b")
    assert here.similarities == pytest.approx((0.8 / length, 0.6 / length), rel=1e-5)
    variance = (4 / 7) * (9 + 36) + (3 / 7) * (16 + 64)
    assert here.spread == pytest.approx(math.sqrt(variance), rel=1e-5)


def test_only_the_nearest_place_it():
    found = a_map([[1, 0], [0.9, 0.1], [0, 1]], [[0, 0], [2, 2], [50, 50]])
    here = star(found, [0.95, 0.06], "umap", 2)
    assert set(here.nearest) == {"a", "b"}
    assert 0 < here.x < 2


def test_what_is_on_the_map_lands_on_its_own_point():
    found = a_map([[1, 2, 3], [3, 2, 1], [2, 2, 2]], [[0, 0], [5, 1], [9, 9]])
    assert star(found, [3, 2, 1], "umap") == Star(
        5.0, 1.0, ("b",), (pytest.approx(1, abs=1e-5),), 0.0
    )
    assert "b" not in star(found, [3, 2, 1], "umap", exclude="b").nearest


def test_points_without_a_place_place_nothing():
    nan = math.nan
    found = a_map([[1, 0], [1, 0.1], [nan, 0]], [[nan, nan], [4, 4], [nan, nan]])
    assert star(found, [1, 0], "umap").nearest == ("b",)
    assert star(a_map([[1, 0]], [[nan, nan]]), [1, 0], "umap") is None
    assert star(found, [-1, 0], "umap") is None
    assert star(found, [0, 0], "umap") is None


def test_vault_items_place_as_points():
    found = a_map([[1, 0], [0, 1]], [[1, 1], [2, 2]], splits=[SPLITS.index("vault"), 0])
    assert star(found, [1, 0], "umap").nearest == ("a",)


def test_a_method_that_was_not_made_is_refused():
    with pytest.raises(MapError, match="round 3 has no tsne: choose one of umap"):
        star(a_map([[1, 0]]), [1, 0], "tsne")


def test_fifty_thousand_items_take_less_than_a_second():
    rng = np.random.default_rng(0)
    features = rng.random((50_000, 256), dtype=np.float32).astype(np.float16)
    found = a_map(features, rng.normal(size=(50_000, 2)))
    began = time.process_time()
    here = star(found, features[77], "umap")
    assert time.process_time() - began < 1
    assert here.nearest == ("00077",)
