"""The map of a round: made once from what the stages predicted, and never in the round's way."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest

from ssl_core.config import Config, validated
from ssl_core.errors import Cancelled, ConfigError, MapError
from ssl_core.pictures import map_files, maps
from ssl_core.pictures.map_files import load_map, mapped_rounds, read_index, save, write_index
from ssl_core.pictures.maps import make_map
from ssl_core.progress import Progress
from ssl_core.records import SPLITS
from ssl_core.rounds import abandon_round, run_round, unfinished
from ssl_core.simulate import arm_config
from ssl_core.training.predict import predict
from ssl_core.turn import replay
from ssl_core.workspace import Workspace
from tests import toy
from tests.toy import copied


def with_map(workspace: Workspace, methods: list[str]) -> Workspace:
    config = workspace.config.changed(map={"methods": methods})
    return Workspace(workspace.root, config, workspace.ledger, workspace.images)


def end_of(workspace: Workspace, number: int) -> dict:
    return json.loads(workspace.ledger.round_end(number))


# --- what is in it --------------------------------------------------------------------------


def test_every_item_is_on_it_in_the_order_of_import(finished):
    workspace, _ = toy.opened(finished)
    found, items = load_map(workspace), workspace.ledger.items()
    assert found.round == 2
    assert list(found.ids) == [item.id for item in items]
    assert [found.split_of(row) for row in range(72)] == [item.split for item in items]
    assert all(found.place[item.id] == row for row, item in enumerate(items))
    assert (found.findings, found.exclusive, found.tta) == (("Spot",), False, "flip")


def test_it_is_what_the_round_s_student_says(finished):
    workspace, _ = toy.opened(finished)
    found = load_map(workspace, 2)
    turn = replay(workspace, workspace.ledger.rounds()[1], lambda event: None)
    assert found.model_id == turn.models()["student"].id
    said = predict(
        turn.student(),
        workspace.images.array,
        workspace.images.positions(found.ids),
        exclusive=False,
        device=turn.device,
        tta="flip",
    )
    np.testing.assert_allclose(found.probabilities, said.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.features, said.features, rtol=2e-3, atol=1e-5)
    p = said.probabilities[:, 0].astype(float)
    np.testing.assert_allclose(found.uncertainty, 1 - np.abs(2 * p - 1), atol=1e-5)
    assert found.uncertainty_of == "margin"


def test_arrays_are_mapped_and_of_the_promised_kinds(finished):
    found = load_map(toy.opened(finished)[0])
    kinds = {
        name: (type(array), array.dtype, array.shape)
        for name in ("splits", "features", "probabilities", "uncertainty")
        for array in [getattr(found, name)]
    }
    assert kinds == {
        "splits": (np.memmap, np.uint8, (72,)),
        "features": (np.memmap, np.float16, (72, 128)),
        "probabilities": (np.memmap, np.float32, (72, 1)),
        "uncertainty": (np.memmap, np.float32, (72,)),
    }
    with pytest.raises(ValueError, match="read-only"):
        found.features[0, 0] = 1


def test_few_items_lie_by_their_components_and_the_map_says_so(finished):
    (made,) = load_map(toy.opened(finished)[0]).embeddings.values()
    assert made.method == "pca"
    assert made.note == "of 72 different points, fewer than 100, the map is a PCA"
    assert made.coordinates.shape == (72, 2)
    assert np.isfinite(made.coordinates).all()


def test_a_cold_start_shows_what_it_drew_from_and_no_opinion(finished):
    found = load_map(toy.opened(finished)[0], 1)
    assert (found.model_id, found.tta) == ("", "none")
    assert np.isfinite(found.features).all()
    assert np.isnan(found.probabilities).all()
    assert np.isnan(found.uncertainty).all()
    assert found.embeddings["pca"].coordinates.shape == (72, 2)


def test_exclusive_classes_have_their_entropy(tmp_path):
    root = toy.make(
        tmp_path / "w",
        toy.TASKS["multi_class"],
        selection={"query_size": 20, "strategy": "entropy"},
    )
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    run_round(workspace, room)
    found = load_map(workspace)
    p = found.probabilities.astype(float)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    expected = -(p * np.log(p)).sum(axis=1) / np.log(3)
    np.testing.assert_allclose(found.uncertainty, expected, atol=1e-5)
    assert found.uncertainty_of == "entropy"


# --- how it is made -------------------------------------------------------------------------


def test_nothing_is_predicted_twice(one_round, tmp_path, monkeypatch):
    """Only the items that no stage scored with the student are asked about: the labeled ones."""
    asked = []

    def spy(turn, rows):
        asked.append(sorted(rows.tolist()))
        return predict(turn, rows)

    predict = maps._predict
    monkeypatch.setattr(maps, "_predict", spy)
    workspace, room = toy.opened(copied(one_round, tmp_path / "w"))
    run_round(workspace, room)
    labeled = [s.item_id for s in workspace.ledger.selections(1)]
    assert asked == [sorted(workspace.images.positions(labeled).tolist())]


def test_what_was_put_by_is_gone_after_the_round(finished):
    assert not list(finished.rglob(f"{maps.PIECES}*"))
    assert not list(finished.rglob("*.tmp"))
    left = sorted(path.name for path in (finished / "rounds/0002/map").iterdir())
    assert left == sorted([*(f"{name}.npy" for name in map_files.ARRAYS), "map.json", "pca.npy"])


def test_the_round_s_end_holds_what_came_of_it(finished):
    workspace, _ = toy.opened(finished)
    told = end_of(workspace, 2)["map"]
    folder = finished / "rounds/0002/map"
    assert told == {
        "items": 72,
        "features": map_files.digest_of(folder / "features.npy"),
        "embeddings": {"pca": map_files.digest_of(folder / "pca.npy")},
    }


class StopAt:
    """Raises `Cancelled` at the n-th event of the map."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, event: Progress) -> None:
        if event.stage == "map":
            self.left -= 1
            if self.left == 0:
                raise Cancelled("stopped by the test")


@pytest.mark.parametrize("event", [1, 2])
def test_cancelled_in_the_map_and_resumed_it_ends_the_same(one_round, finished, tmp_path, event):
    root = copied(one_round, tmp_path / "w")
    with pytest.raises(Cancelled):
        run_round(*toy.opened(root), report=StopAt(event))
    workspace, room = toy.opened(root)
    assert unfinished(workspace) is not None
    run_round(workspace, room, resume=True)
    assert end_of(workspace, 2) == end_of(toy.opened(finished)[0], 2)
    assert not list(root.rglob(f"{maps.PIECES}*"))


def test_a_damaged_piece_is_predicted_again(one_round, finished, tmp_path):
    root = copied(one_round, tmp_path / "w")
    with pytest.raises(Cancelled):
        run_round(*toy.opened(root), report=StopAt(1))
    pieces = sorted((root / "rounds/0002" / maps.PIECES).iterdir())
    assert [p.stem for p in pieces] == ["evaluate-validation", "evaluate-vault", "select"]
    pieces[0].write_bytes(b"half a piece")
    pieces[2].unlink()
    run_round(*toy.opened(root), resume=True)
    ours, theirs = (load_map(toy.opened(r)[0], 2) for r in (root, finished))
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)


def test_the_map_of_another_history_is_not_taken_for_this_one(one_round, tmp_path):
    """A ledger that was put back from a copy runs its round again; the old map lies there."""
    root = copied(one_round, tmp_path / "w")
    workspace, room = toy.opened(root)
    folder = root / "rounds/0002/map"
    folder.parent.mkdir()
    subprocess.run(["cp", "-r", root / "rounds/0001/map", folder], check=True)
    run_round(workspace, room)
    assert load_map(workspace, 2).model_id == workspace.ledger.models(2)[-1][1].id


def test_without_methods_there_is_no_map_and_nothing_put_by(one_round, tmp_path):
    workspace, room = toy.opened(copied(one_round, tmp_path / "w"))
    number = run_round(with_map(workspace, []), room)
    assert set(end_of(workspace, number)) == {"labels"}
    assert mapped_rounds(workspace) == [1]
    assert load_map(workspace).round == 1
    with pytest.raises(MapError, match=r"^Round 2 has no map\.$"):
        load_map(workspace, 2)


def test_a_round_that_looked_at_no_image_has_no_map(tmp_path):
    root = toy.make(tmp_path / "w", selection={"cold_start": "random", "query_size": 8})
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    assert mapped_rounds(workspace) == []
    with pytest.raises(MapError, match="No round has a map yet"):
        load_map(workspace)


def test_the_arms_of_a_simulation_have_none(finished):
    config = toy.opened(finished)[0].config
    assert config.map.methods == ("auto",)
    assert arm_config(config, "margin", 0).map.methods == ()


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match=r"map.methods.0 = 'mds' cannot be used"):
        validated(Config, {"images": {"folder": "x"}, "map": {"methods": ["mds"]}}, "here")


# --- what fails -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError(28, "No space left on device")])
def test_a_map_that_fails_takes_no_round_along(one_round, finished, tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(maps, "save", fail)
    workspace, room = toy.opened(copied(one_round, tmp_path / "w"))
    events = []
    number = run_round(workspace, room, report=events.append)
    assert workspace.ledger.finished(number)
    assert workspace.ledger.selections(2) == toy.opened(finished)[0].ledger.selections(2)
    said = end_of(workspace, number)["map"]["failed"]["map"]
    assert str(error) in said
    assert events[-1].note == f"failed: {said}"
    with pytest.raises(MapError, match="Round 2 has no map") as told:
        load_map(workspace, 2)
    assert str(error) in str(told.value)


def test_pieces_that_cannot_be_written_fail_no_stage(one_round, finished, tmp_path):
    root = copied(one_round, tmp_path / "w")
    (root / "rounds/0002").mkdir()
    (root / "rounds/0002" / maps.PIECES).write_text("a file in the way")
    run_round(*toy.opened(root))
    ours, theirs = (load_map(toy.opened(r)[0], 2) for r in (root, finished))
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)


def test_a_method_that_fails_leaves_the_features(one_round, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise MapError("The tsne of the map ended with code -9 (it said nothing): free memory.")

    monkeypatch.setattr(maps, "embed", fail)
    workspace, room = toy.opened(copied(one_round, tmp_path / "w"))
    run_round(workspace, room)
    found = load_map(workspace, 2)
    assert found.embeddings == {}
    assert "code -9" in found.failed["tsne"]
    assert found.features.shape == (72, 128)
    assert "code -9" in end_of(workspace, 2)["map"]["failed"]["tsne"]
    monkeypatch.undo()
    again = make_map(workspace, 2)
    assert (list(again.embeddings), again.failed) == (["pca"], {})


def test_a_damaged_map_is_told(finished, tmp_path):
    root = copied(finished, tmp_path / "w")
    features = root / "rounds/0002/map/features.npy"
    features.write_bytes(features.read_bytes()[:200])
    with pytest.raises(MapError, match=r"0002/map is damaged: delete that folder"):
        load_map(toy.opened(root)[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_an_index_that_says_nothing_is_none(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    assert read_index(tmp_path) is None


# --- on request -----------------------------------------------------------------------------


def test_a_method_is_added_without_a_prediction(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "_predict", None)
    monkeypatch.setattr(maps, "FEW", 10)
    workspace, _ = toy.opened(copied(finished, tmp_path / "w"))
    before = load_map(workspace, 2)
    monkeypatch.setattr(maps, "embed_apart", _more_than_ten)
    found = make_map(workspace, 2, ["tsne"])
    assert set(found.embeddings) == {"pca", "tsne"}
    assert found.embeddings["tsne"].parameters["perplexity"] == 5.0
    np.testing.assert_array_equal(
        found.embeddings["pca"].coordinates, before.embeddings["pca"].coordinates
    )


def _more_than_ten(path, method, *, seed, waiting):
    """`embed_apart` in this process, where a t-SNE of 72 items may be asked for."""
    from ssl_core.pictures import embedding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "FEW", 10)
        patch.setitem(embedding.TSNE, "perplexity", 5.0)
        return embedding.embed(np.load(path), method, seed=seed)


def test_a_round_without_a_map_gets_the_one_that_it_would_have_had(finished, tmp_path):
    root = copied(finished, tmp_path / "w")
    subprocess.run(["rm", "-r", root / "rounds/0002/map"], check=True)
    workspace, _ = toy.opened(root)
    made, theirs = make_map(workspace, 2), load_map(toy.opened(finished)[0], 2)
    np.testing.assert_allclose(made.probabilities, theirs.probabilities, atol=1e-6)
    assert made.model_id == theirs.model_id


def test_what_has_no_model_has_no_map(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    workspace, room = toy.opened(root)

    def stop(event: Progress) -> None:
        if event.stage == "intermediate":
            raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        run_round(workspace, room, report=stop)
    assert abandon_round(workspace) == 2
    with pytest.raises(MapError, match="Round 2 ended without a model"):
        make_map(workspace, 2)
    with pytest.raises(MapError, match="Round 9 was never opened"):
        make_map(workspace, 9)


def test_giving_up_a_round_leaves_no_pieces(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    with pytest.raises(Cancelled):
        run_round(*toy.opened(root), report=StopAt(1))
    workspace, _ = toy.opened(root)
    abandon_round(workspace)
    assert not list(root.rglob(f"{maps.PIECES}*"))


def test_the_map_of_a_running_round_is_not_the_newest(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    seen = []

    def look(event: Progress) -> None:
        if event.stage == "map" and event.done:
            seen.append(load_map(toy.opened(root)[0]).round)

    run_round(*toy.opened(root), report=look)
    assert seen
    assert set(seen) == {1}


def test_the_map_holds_no_label_of_the_vault(finished, tmp_path):
    """Its files are the same whatever the vault's answers say."""
    looks = toy.opened(finished)[0].ledger.vault_looks()
    root = copied(finished, tmp_path / "w")
    subprocess.run(["rm", "-r", root / "rounds/0002/map"], check=True)
    workspace, _ = toy.opened(root)
    make_map(workspace, 2)
    assert workspace.ledger.vault_looks() == looks


def test_fifty_thousand_items_are_there_at_once(finished, tmp_path):
    root = copied(finished, tmp_path / "w")
    folder, n = root / "rounds/0002/map", 50_000
    index = {**read_index(folder), "items": n}
    save(folder / "ids.npy", np.array([f"{i:032x}" for i in range(n)]))
    save(folder / "splits.npy", np.zeros(n, np.uint8))
    save(folder / "features.npy", np.zeros((n, 1280), np.float16))
    save(folder / "probabilities.npy", np.zeros((n, 14), np.float32))
    save(folder / "uncertainty.npy", np.zeros(n, np.float32))
    save(folder / "pca.npy", np.zeros((n, 2), np.float32))
    write_index(folder, index)
    workspace, _ = toy.opened(root)
    began = time.process_time()
    found = load_map(workspace)
    assert time.process_time() - began < 0.3
    assert (len(found.ids), found.split_of(n - 1)) == (n, SPLITS[0])
