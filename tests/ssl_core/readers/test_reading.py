"""Questions to readers and answers back: nothing lost, nothing doubled, wherever it is stopped."""

from __future__ import annotations

import math
import subprocess
import threading

import numpy as np
import pytest
from filelock import FileLock

from connectors.archive import ArchiveRoom
from connectors.memory import MemoryRoom
from ssl_core.claims.promotion import in_use
from ssl_core.config import Reading
from ssl_core.errors import WorkspaceError
from ssl_core.history.truth import label_matrix
from ssl_core.progress import silent
from ssl_core.readers import reading
from ssl_core.readers.reading import queue, sync
from ssl_core.records import Answer, Label, Task
from ssl_core.rounds import run_round
from ssl_core.turn import replay
from ssl_core.workspace import Workspace, open_workspace
from tests import toy
from tests.ledger_records import same
from tests.reading_rooms import (
    ITEMS,
    TASK,
    Killed,
    Stopping,
    all_labels,
    ask,
    both,
    changed,
    make,
    waiting,
)

PANEL = ("ann", "bob")
EVALUATION = ["v0", "v1", "x0", "x1"]


@pytest.fixture
def workspace(tmp_path):
    return make(tmp_path / "w", adjudicator="cat", overlap_share=0.0)


@pytest.fixture
def room():
    return MemoryRoom(PANEL)


def answer_all(room: MemoryRoom, value: float = 1.0) -> None:
    for reader, assignments in list(room.waiting.items()):
        for one in assignments:
            room.submit(one.item_id, both(value), reader=reader)


def trained_on(room: MemoryRoom, reader: str) -> set[str]:
    """What waits for a reader, less the items that measure."""
    return set(waiting(room, reader)) - set(EVALUATION)


def measured(workspace: Workspace, room: MemoryRoom) -> None:
    """Both readers read validation and vault, and agree."""
    queue(workspace, room)
    answer_all(room)
    sync(workspace, room)


# Asking


def test_before_the_first_round_those_that_measure_are_read_by_two(workspace, room):
    queued = queue(workspace, room)
    assert queued.new == 8
    assert queued.waiting == {"ann": 4, "bob": 4, "cat": 0}
    assert waiting(room, "ann") == waiting(room, "bob") == EVALUATION
    assert {a.round for a in workspace.ledger.reading.assignments()} == {0}


def test_those_that_measure_wait_behind_any_round_until_they_are_read(workspace, room):
    ask(workspace, "t0")
    assert queue(workspace, room).new == 8 + 2
    assert waiting(room, "ann") == waiting(room, "bob") == ["t0", *EVALUATION]


def test_items_that_were_imported_with_labels_are_not_asked(tmp_path, room):
    workspace = make(tmp_path / "w")
    known = [Label("v1", "mass", 1.0, "file", "import", "1")]
    workspace.ledger.add_labels(known)
    queue(workspace, room)
    assert waiting(room, "ann") == ["v0", "x0", "x1"]


def test_overlap_of_measuring_and_of_training_are_apart(tmp_path, room):
    workspace = make(tmp_path / "w", overlap_share=1.0, evaluation_overlap_share=0.0)
    assert queue(workspace, room).new == 8
    assert sum(a.primary for a in workspace.ledger.reading.assignments()) == 4
    ask(workspace, "t0", "t1", "t2")
    assert queue(workspace, room).new == 6
    held = workspace.ledger.reading.assignments()
    assert [a.primary for a in held if a.round == 1] == [True] * 6


def test_queueing_twice_changes_nothing(workspace, room):
    ask(workspace, *(f"t{k}" for k in range(9)))
    first = queue(workspace, room)
    before = workspace.ledger.reading.assignments()
    shown = room.waiting
    again = queue(workspace, room)
    assert again.new == 0
    assert again.waiting == first.waiting
    assert room.waiting == shown
    assert workspace.ledger.reading.assignments() == before


def test_a_newer_round_comes_before_what_is_left_of_older_ones(workspace, room):
    measured(workspace, room)
    ask(workspace, "t5", "t6")
    queue(workspace, room)
    ask(workspace, "t1", "t2")
    queue(workspace, room)
    for reader in PANEL:
        assert set(waiting(room, reader)[:2]) == {"t1", "t2"}
        assert set(waiting(room, reader)[2:]) == {"t5", "t6"}


def test_the_same_workspace_deals_the_same(tmp_path):
    dealt = []
    for name in ("one", "two"):
        workspace = make(tmp_path / name, overlap_share=0.5)
        ask(workspace, *(f"t{k}" for k in range(9)))
        queue(workspace, MemoryRoom(PANEL))
        dealt.append(workspace.ledger.reading.assignments())
    assert dealt[0] == dealt[1]


def test_a_reader_who_joins_and_one_who_leaves(workspace, room):
    measured(workspace, room)
    ask(workspace, "t0", "t1", "t2", "t3")
    queue(workspace, room)
    room.submit("t0", both(1.0), reader="ann")
    sync(workspace, room)
    larger = changed(workspace, readers=["ann", "bob", "dan"])
    more = MemoryRoom(("ann", "bob", "dan"))
    queue(larger, more)
    assert set(waiting(more, "dan")) == {"t1", "t2", "t3"}
    without = changed(workspace, readers=["dan"])
    last = MemoryRoom(("dan",))
    assert queue(without, last).waiting == {"dan": 3, "cat": 0}


def test_without_backup_the_items_of_one_who_left_are_dealt_anew(tmp_path):
    workspace = make(tmp_path / "w", overlap_share=0.0, backup=False)
    ask(workspace, "t0", "t1", "t2", "t3")
    room = MemoryRoom(PANEL)
    queue(workspace, room)
    left_to_bob = trained_on(room, "bob")
    assert len(left_to_bob) == 2
    room.submit(min(left_to_bob), both(1.0), reader="bob")
    sync(workspace, room)
    alone = MemoryRoom(("dan",))
    queue(changed(workspace, readers=["dan"]), alone)
    assert trained_on(alone, "dan") == {"t0", "t1", "t2", "t3"} - {min(left_to_bob)}


def test_what_one_who_left_took_back_is_asked_of_the_others(tmp_path):
    workspace = make(tmp_path / "w", readers=["ann"], overlap_share=0.0)
    ask(workspace, "t0", "t1")
    room = MemoryRoom(("ann",))
    queue(workspace, room)
    room.submit("t0", both(1.0))
    room.submit("t1", both(1.0))
    room.act("t0", "withdrawn")
    sync(workspace, room)
    alone = MemoryRoom(("dan",))
    queue(changed(workspace, readers=["dan"]), alone)
    assert trained_on(alone, "dan") == {"t0"}


def test_a_room_with_readers_of_its_own_asks_them_once(tmp_path):
    workspace = make(tmp_path / "w", adjudicator="cat")
    room = MemoryRoom(("only",))
    assert queue(workspace, room).waiting == {"only": 4}


# Answers


def test_answers_become_labels_and_the_item_is_closed(workspace, room):
    queue(workspace, room)
    room.submit("v0", {"mass": 1.0, "nodule": math.nan}, reader="ann")
    came = sync(workspace, room)
    assert (came.reads, came.adjudications, came.rejections) == (1, 0, [])
    said = {(one.finding, one.reader): one.value for one in workspace.ledger.labels()}
    assert said["mass", "ann"] == 1.0
    assert math.isnan(said["nodule", "ann"])
    assert waiting(room, "ann") == EVALUATION[1:]
    assert waiting(room, "bob") == EVALUATION
    assert sync(workspace, room).reads == 0


def test_a_deleted_answer_leaves_unknown_and_the_item_is_open_again(workspace, room):
    measured(workspace, room)
    ask(workspace, "t0")
    queue(workspace, room)
    room.submit("t0", both(1.0), reader="ann")
    sync(workspace, room)
    assert waiting(room, "ann") == waiting(room, "bob") == []
    room.act("t0", "withdrawn", reader="ann")
    sync(workspace, room)
    assert waiting(room, "ann") == waiting(room, "bob") == ["t0"]
    truth = label_matrix(["t0"], workspace.ledger.labels(), TASK.findings)
    assert np.isnan(truth).all()
    room.submit("t0", both(0.0), reader="ann")
    sync(workspace, room)
    truth = label_matrix(["t0"], workspace.ledger.labels(), TASK.findings)
    assert truth.tolist() == [[0.0, 0.0]]
    assert waiting(room, "ann") == []


def test_who_was_not_asked_is_refused_by_name_and_nothing_else_is_lost(workspace, room):
    queue(workspace, room)
    room.submit("v0", both(1.0), reader="ann")
    room.submit("v0", both(0.0), reader="zoe")
    room.submit("t7", both(0.0), reader="bob")
    room.act("v0", "withdrawn", reader="zoe")  # what was never taken need not be taken back
    room.submit("v1", both(1.0), reader="bob")
    came = sync(workspace, room)
    assert came.reads == 2
    assert [(one.place, one.reason) for one in came.rejections] == [
        ("memory:1", "zoe was never asked about the item 'v0'"),
        ("memory:2", "bob was never asked about the item 't7'"),
    ]
    assert {(r.item_id, r.reader) for r in workspace.ledger.reading.reads()} == {
        ("v0", "ann"),
        ("v1", "bob"),
    }


def test_without_showing_the_queues_are_touched_only_when_something_came(workspace, room):
    queue(workspace, room)
    room.waiting = {}
    sync(workspace, room, show=False)
    assert room.waiting == {}
    room.submit("v0", both(1.0), reader="ann")
    sync(workspace, room, show=False)
    assert waiting(room, "bob") == EVALUATION


# Disagreement


@pytest.mark.parametrize("item", ["v0", "x0"])
def test_a_dispute_goes_to_the_adjudicator_once_and_ends_with_the_answer(workspace, room, item):
    queue(workspace, room)
    room.submit(item, both(1.0), reader="ann")
    assert sync(workspace, room).adjudications == 0
    room.submit(item, {"mass": 1.0, "nodule": 0.0}, reader="bob")
    assert sync(workspace, room).adjudications == 1
    assert waiting(room, "cat") == [item]
    (asked,) = room.waiting["cat"]
    assert (asked.role, asked.hinted, asked.round) == ("adjudicator", False, 0)
    assert sync(workspace, room).adjudications == queue(workspace, room).new == 0
    before = label_matrix([item], all_labels(workspace.ledger), TASK.findings)
    np.testing.assert_array_equal(before, [[1.0, math.nan]])
    room.submit(item, both(0.0), reader="cat")
    sync(workspace, room)
    assert waiting(room, "cat") == []
    after = label_matrix([item], all_labels(workspace.ledger), TASK.findings)
    assert after.tolist() == [[0.0, 0.0]]
    room.submit(item, both(1.0), reader="bob")  # too late: it is decided
    assert sync(workspace, room).adjudications == 0
    after = label_matrix([item], all_labels(workspace.ledger), TASK.findings)
    assert after.tolist() == [[0.0, 0.0]]
    assert workspace.ledger.vault_looks() == []


def test_without_an_adjudicator_a_dispute_stays_unknown(tmp_path, room):
    workspace = make(tmp_path / "w")
    queue(workspace, room)
    room.submit("v0", both(1.0), reader="ann")
    room.submit("v0", both(0.0), reader="bob")
    assert sync(workspace, room).adjudications == 0
    assert np.isnan(label_matrix(["v0"], workspace.ledger.labels(), TASK.findings)).all()


def test_one_who_cannot_use_what_the_other_read_is_a_dispute(workspace, room):
    queue(workspace, room)
    room.submit("v0", both(1.0), reader="ann")
    room.act("v0", "unusable", reader="bob", reason="cut off")
    assert sync(workspace, room).adjudications == 1
    assert workspace.ledger.reading.unusable() == {"v0"}
    room.submit("v0", both(1.0), reader="cat")
    sync(workspace, room)
    assert workspace.ledger.reading.unusable() == set()


# Stopped anywhere


def history(workspace: Workspace) -> dict[str, list[tuple]]:
    return toy.history(workspace.root)


def play(workspace: Workspace, room: Stopping) -> None:
    """Some of everything: agreement, dispute, a change of mind, a withdrawal, a stranger."""
    room.submit("v0", both(1.0), reader="ann")
    room.submit("v0", both(0.0), reader="bob")
    room.submit("x0", both(1.0), reader="ann")
    room.submit("t3", both(1.0), reader="zoe")
    room.submit("x0", both(0.0), reader="ann")
    room.act("v1", "skipped", reader="bob")
    room.act("x1", "unusable", reader="bob")
    room.submit("v1", both(1.0), reader="ann")
    room.act("v1", "withdrawn", reader="ann")


def test_a_sync_stopped_after_any_page_and_repeated_is_one_sync(tmp_path):
    """Every table is the same row by row, bookmarks included; only the clock may differ."""
    undisturbed = make(tmp_path / "undisturbed", adjudicator="cat")
    room = Stopping(PANEL)
    queue(undisturbed, room)
    play(undisturbed, room)
    sync(undisturbed, room)
    for pages in range(5):
        for in_queue in (False, True):
            stopped = make(tmp_path / f"{pages}{in_queue}", adjudicator="cat")
            other = Stopping(PANEL)
            queue(stopped, other)
            play(stopped, other)
            other.pages_left, other.dies_in_queue = (None if in_queue else pages), in_queue
            with pytest.raises(Killed):
                sync(stopped, other)
            other.pages_left, other.dies_in_queue = None, False
            sync(stopped, other)
            assert history(stopped) == history(undisturbed)
            assert other.waiting == room.waiting


def test_a_queue_stopped_before_it_is_shown_is_shown_by_the_next(workspace):
    room = Stopping(PANEL)
    room.dies_in_queue = True
    with pytest.raises(Killed):
        queue(workspace, room)
    before = workspace.ledger.reading.assignments()
    assert len(before) == 8
    room.dies_in_queue = False
    assert queue(workspace, room).new == 0
    assert waiting(room, "ann") == EVALUATION
    assert workspace.ledger.reading.assignments() == before


def killed(*_) -> None:
    raise Killed


def test_a_dispute_found_after_a_kill_is_shown_without_being_asked_to(workspace, monkeypatch):
    room = Stopping(PANEL)
    queue(workspace, room)
    room.submit("v0", both(1.0), reader="ann")
    room.submit("v0", both(0.0), reader="bob")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "adjudications", killed)
        with pytest.raises(Killed):
            sync(workspace, room, show=False)
    assert sync(workspace, room, show=False).adjudications == 1
    assert waiting(room, "cat") == ["v0"]


def test_queue_and_sync_wait_for_each_other(workspace, room):
    with FileLock(workspace.root / reading.LOCK_FILE):
        done = threading.Thread(target=queue, args=(workspace, room))
        done.start()
        done.join(0.3)
        assert done.is_alive()
        assert workspace.ledger.reading.assignments() == []
    done.join(10)
    assert len(workspace.ledger.reading.assignments()) == 8


def test_who_waits_too_long_is_told(workspace, room, monkeypatch):
    monkeypatch.setattr(reading, "LOCK_SECONDS", 0.05)
    with (
        FileLock(workspace.root / reading.LOCK_FILE),
        pytest.raises(WorkspaceError, match=r"Another process is queueing or syncing .*: wait"),
    ):
        sync(workspace, room)


# The simulated reader


def test_an_archive_gives_the_label_events_that_it_gave_before(tmp_path):
    """Key by key as the first release wrote them, in the order of asking."""
    task = Task("multi_label", ("mass", "nodule"))
    answers = [
        Answer("t1", "mass", 1.0),
        Answer("t1", "nodule", 0.0),
        Answer("t0", "mass", math.nan),
        Answer("x0", "mass", 1.0),
    ]
    workspace = make(tmp_path / "w", items=(), task=task)
    workspace.ledger.import_items(ITEMS, answers=answers)
    room = ArchiveRoom(workspace.ledger.answers)
    for _ in range(2):
        queue(workspace, room)
        sync(workspace, room)
    ask(workspace, "t1", "t5", "t0")
    for _ in range(2):
        queue(workspace, room)
        sync(workspace, room)

    def said(item: str, finding: str, value: float, round: int) -> Label:
        key = f"archive:{item}:{finding}"
        return Label(item, finding, value, "archive", "archive", key, round=round)

    assert same(
        all_labels(workspace.ledger),
        [
            said("x0", "mass", 1.0, 0),
            said("t1", "mass", 1.0, 1),
            said("t1", "nodule", 0.0, 1),
            said("t0", "mass", math.nan, 1),
        ],
    )


# A whole round


FOUR = Reading(readers=("ann", "bob"), adjudicator="cat", hints=True)


def play_readers(workspace: Workspace, room: MemoryRoom, unusable=()) -> None:
    """Everyone answers rightly; some images Ann alone can use, and nobody those of training."""
    for reader, assignments in list(room.waiting.items()):
        for one in assignments:
            if one.item_id in unusable and (one.round or reader != "ann"):
                room.act(one.item_id, "unusable", reader=reader, reason="cut off", seconds=2.0)
            else:
                said = {a.finding: a.value for a in workspace.ledger.answers([one.item_id])}
                room.submit(one.item_id, said, reader=reader, seconds=20.0)


@pytest.fixture(scope="module")
def read_toy(tmp_path_factory):
    """A toy workspace whose first question, validation and vault people have read."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "w", reading=FOUR.model_dump(mode="json"))
    workspace, room = open_workspace(root), MemoryRoom(PANEL)
    queue(workspace, room)
    evaluation = {s: [i.id for i in workspace.ledger.items(s)] for s in ("validation", "vault")}
    out = {evaluation["validation"][0], evaluation["vault"][0]}
    play_readers(workspace, room, out)
    run_round(workspace, room)
    asked = [s.item_id for s in workspace.ledger.selections(1)]
    out.add(asked[0])
    play_readers(workspace, room, out)
    return root, room, asked, out


@pytest.fixture
def toy_copy(read_toy, tmp_path):
    root = tmp_path / "w"
    subprocess.run(["cp", "-r", read_toy[0], root], check=True)
    return open_workspace(root)


def test_a_round_trains_on_what_was_read(read_toy, toy_copy):
    """Unusable items are in no part of it, and hints are of the new question alone."""
    _, room, asked, out = read_toy
    assert run_round(toy_copy, room) == 2
    ledger = toy_copy.ledger
    turn = replay(toy_copy, ledger.rounds()[-1], silent)
    assert set(turn.labeled.ids) == set(asked) - out
    assert len(turn.validation.ids) == 12 - 1
    for part in (turn.train, turn.pool, turn.askable, turn.labeled, turn.validation):
        assert not out & set(part.ids)
    assert not out & {s.item_id for s in ledger.selections(2)}
    vault = {m.n for _, m in ledger.measurements(2) if m.split == "vault" and m.name == "accuracy"}
    assert vault == {24 - 1}
    assert {label.source for label in ledger.labels()} == {"label_studio"}

    selections = {s.item_id: s.kind for s in ledger.selections(2)}
    assignments = ledger.reading.assignments()
    hinted = {a.item_id for a in assignments if a.hinted}
    assert hinted <= set(selections)  # none of the first round: there was no model
    for kind in ("random", "strategy"):
        stratum = {i for i, k in selections.items() if k == kind}
        assert len(stratum & hinted) in (len(stratum) // 2, (len(stratum) + 1) // 2)
    hints = ledger.reading.hints()
    assert set(hints) == hinted
    assert set(room.hints) == hinted
    assert {h.model_id for shown in hints.values() for h in shown} == {in_use(toy_copy)[1].id}


def test_a_round_without_a_room_is_the_same_round(read_toy, toy_copy, tmp_path):
    _, room, _, _ = read_toy
    other_root = tmp_path / "other"
    subprocess.run(["cp", "-r", read_toy[0], other_root], check=True)
    run_round(toy_copy, room)
    other = open_workspace(other_root)
    sync(other, room)
    assert run_round(other, None) == 2
    ours, theirs = toy.history(toy_copy.root), toy.history(other_root)
    for table in ("labels", "reads", "models", "measurements", "selections", "pseudo_labels"):
        assert ours[table] == theirs[table], table
    assert {a[3] for a in theirs["assignments"]} == {0, 1}  # nobody was asked
    assert queue(other, room).new > 0
    assert toy.history(other_root)["assignments"] == ours["assignments"]
    assert toy.history(other_root)["hints"] == ours["hints"]


def test_labels_of_what_is_unusable_do_not_make_a_round_train(tmp_path):
    """One reader's two answers on items that another cannot use: there is nothing to learn."""
    config = FOUR.model_copy(update={"overlap": 2, "overlap_share": 1.0})
    root = toy.make(tmp_path / "w", reading=config.model_dump(mode="json"))
    workspace, room = open_workspace(root), MemoryRoom(PANEL)
    run_round(workspace, room)
    first, second = (s.item_id for s in workspace.ledger.selections(1)[:2])
    for item, value in ((first, 1.0), (second, 0.0)):
        room.submit(item, {"Spot": value}, reader="ann")
        room.act(item, "unusable", reader="bob")
    run_round(workspace, room)
    assert [s.name for s in workspace.ledger.stages(2)] == ["select"]
    assert {s.strategy for s in workspace.ledger.selections(2)} == {"cold_start"}
