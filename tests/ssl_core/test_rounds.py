"""The loop: one round after the other, killed anywhere, ends as if it had never been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from connectors.archive import ArchiveRoom
from ssl_core.arms import vault_scores
from ssl_core.errors import Cancelled, ConfigError, WorkspaceError
from ssl_core.progress import Progress
from ssl_core.records import Assignment, Pulled, Read
from ssl_core.rounds import run_round, unfinished
from tests import toy
from tests.toy import copied

SPOT = (("Spot", 1.0),)
STAGES = ["teacher", "pseudo-labels", "intermediate", "student", "evaluate", "select"]


def test_the_first_round_only_asks(finished):
    ledger = toy.opened(finished)[0].ledger
    assert [s.name for s in ledger.stages(1)] == ["select"]
    assert {s.strategy for s in ledger.selections(1)} == {"cold_start"}
    assert len(ledger.selections(1)) == 8


def test_a_later_round_trains_measures_and_asks(finished):
    ledger = toy.opened(finished)[0].ledger
    assert [s.name for s in ledger.stages(2)] == STAGES
    assert [m.stage for _, m in ledger.models(2)] == ["teacher", "intermediate", "student"]
    assert {s.strategy for s in ledger.selections(2)} == {"margin"}
    vault = [m for _, m in ledger.measurements(2) if m.split == "vault" and m.name == "auroc"]
    assert {m.stage for m in vault} == {"teacher", "intermediate", "student"}
    assert all(0 <= m.low <= m.value <= m.high <= 1 for m in vault)


def test_it_trains_on_what_was_asked_and_counts_evaluation_apart(finished):
    ledger = toy.opened(finished)[0].ledger
    asked = {s.item_id for s in ledger.selections(1)}
    trained = {label.item_id for label in ledger.labels(before_round=2)}
    train_ids = {item.id for item in ledger.items("train")}
    assert trained & train_ids == asked
    assert ledger.label_counts(2) == {"train": 8, "validation": 12, "vault": 24}


def test_no_item_is_asked_twice(finished):
    ledger = toy.opened(finished)[0].ledger
    first, second = ({s.item_id for s in ledger.selections(r)} for r in (1, 2))
    assert not first & second


def test_what_was_asked_and_not_answered_is_not_asked_again(tmp_path):
    """A reader who cannot tell, or has not read yet, does not get the item in every query."""
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(workspace, room)
    asked = [s.item_id for s in workspace.ledger.selections(1)]
    silent = set(asked[:3])

    class Hesitant(ArchiveRoom):
        def pull(self, bookmark):
            for page in super().pull(bookmark):
                told = tuple(read for read in page.reads if read.item_id not in silent)
                yield Pulled(told)

    run_round(workspace, Hesitant(workspace.ledger.answers))
    assert workspace.ledger.label_counts(2)["train"] == 5
    again = {s.item_id for s in workspace.ledger.selections(2)}
    assert len(again) == 8
    assert not again & set(asked)


def test_every_query_carries_its_random_slice(finished):
    ledger = toy.opened(finished)[0].ledger
    for number in (1, 2):
        kinds = [s.kind for s in ledger.selections(number)]
        assert kinds.count("random") == 1  # 15 % of 8
        for s in ledger.selections(number):
            assert 0 < s.slice_probability <= s.probability <= 1
            assert s.reason


def test_pseudo_labels_are_of_the_pool_alone_and_kept_apart(finished):
    ledger = toy.opened(finished)[0].ledger
    pool = {i.id for i in ledger.items("train")} - {s.item_id for s in ledger.selections(1)}
    rows = ledger.pseudo_labels(2)
    assert {row.item_id for row in rows} <= pool
    assert 0.6 < len(rows) / len(pool) < 0.85  # κ = 0.75
    assert {row.value for row in rows} == {0.0, 1.0}
    assert {label.source for label in ledger.labels()} == {"archive"}


def test_one_look_into_the_vault_a_round(finished):
    looks = toy.opened(finished)[0].ledger.vault_looks()
    assert [look.round for look in looks] == [2]
    assert "student" in looks[0].purpose


def test_vault_scores_are_kept_in_import_order(finished):
    workspace, _ = toy.opened(finished)
    scores = vault_scores(workspace, 2)
    assert set(scores) == {"teacher", "intermediate", "student"}
    assert scores["student"].shape == (24, 1)


def test_checkpoints_are_gone_after_a_round(finished):
    assert not list(finished.rglob("*.pt"))


def test_same_seed_same_history(finished, tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(workspace, room)
    run_round(workspace, room)
    ours, theirs = toy.history(tmp_path / "w"), toy.history(finished)
    for rows in (ours, theirs):  # the configuration names the folder
        rows["rounds"] = [row[:-1] for row in rows["rounds"]]
    assert ours == theirs


def test_another_seed_another_history(finished, tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w", seed=1))
    run_round(workspace, room)
    run_round(workspace, room)
    assert toy.history(tmp_path / "w")["models"] != toy.history(finished)["models"]


class Stop:
    """Raises `Cancelled` at the n-th event, and counts events."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count, self.events = at, 0, []

    def __call__(self, event: Progress) -> None:
        self.count += 1
        self.events.append(event)
        if self.count == self.at:
            raise Cancelled("stopped by the test")


@pytest.fixture(scope="module")
def undisturbed(one_round, tmp_path_factory) -> tuple[dict, list[Progress]]:
    root = copied(one_round, tmp_path_factory.mktemp("toy") / "w")
    stop = Stop(None)
    run_round(*toy.opened(root), report=stop)
    return toy.history(root), stop.events


def test_cancelled_at_any_event_and_resumed_it_ends_the_same(one_round, undisturbed, tmp_path):
    """Stopped at the border of every stage and twice within each, one after the other."""
    expected, events = undisturbed
    borders = [i for i, e in enumerate(events, start=1) if e.total == 0]
    inside = [i + 2 for i in borders[:-1]] + [i + 4 for i in borders[:4]]
    root = copied(one_round, tmp_path / "w")
    first = True
    for stage in STAGES:
        for skip in (0, 2, 4):
            seen = [e.stage for e in events]
            if seen.count(stage) <= skip:
                continue
            stopper = _StopInside(stage, skip)
            workspace, room = toy.opened(root)
            with pytest.raises(Cancelled):
                run_round(workspace, room, resume=not first, report=stopper)
            first = False
            workspace.ledger.close()
    assert unfinished(toy.opened(root)[0]) is not None
    run_round(*toy.opened(root), resume=True)
    assert toy.history(root) == expected
    assert borders
    assert inside


class _StopInside:
    """Raises at the (skip + 1)-th event of one stage."""

    def __init__(self, stage: str, skip: int) -> None:
        self.stage, self.left = stage, skip

    def __call__(self, event: Progress) -> None:
        if event.stage == self.stage:
            if self.left == 0:
                raise Cancelled("stopped by the test")
            self.left -= 1


_CHILD = """
import sys
from pathlib import Path
from ssl_core.rounds import run_round, unfinished
from tests import toy
workspace, room = toy.opened(Path(sys.argv[1]))
def report(event):
    print(event.stage, event.done, flush=True)
run_round(workspace, room, resume=unfinished(workspace) is not None, report=report)
"""


def _kill_at(root: Path, stage: str, done: int) -> None:
    """Run the round in a process of its own, and kill it -9 at one event."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for line in child.stdout:
        if line.strip() == f"{stage} {done}":
            child.send_signal(signal.SIGKILL)
            break
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL, f"never reached {stage} {done}"


def test_killed_with_kill_9_and_resumed_it_ends_the_same(one_round, undisturbed, tmp_path):
    root = copied(one_round, tmp_path / "w")
    for stage, done in (("teacher", 4), ("intermediate", 0), ("student", 5), ("select", 0)):
        _kill_at(root, stage, done)
    run_round(*toy.opened(root), resume=True)
    assert toy.history(root) == undisturbed[0]


def test_an_interrupted_round_is_in_the_way_until_it_is_resumed(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    with pytest.raises(Cancelled):
        run_round(*toy.opened(root), report=Stop(3))
    with pytest.raises(WorkspaceError, match=r"Round 2 was interrupted.*--resume"):
        run_round(*toy.opened(root))


def test_nothing_to_resume_is_said(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    with pytest.raises(WorkspaceError, match="no interrupted round"):
        run_round(*toy.opened(root), resume=True)


def test_two_rounds_at_once_are_refused(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    complaints = []

    def while_running(event: Progress) -> None:
        if not complaints:
            with pytest.raises(WorkspaceError, match="Another process is running a round") as told:
                run_round(*toy.opened(root), resume=True)
            complaints.append(str(told.value))

    run_round(*toy.opened(root), report=while_running)
    assert complaints


def test_labels_that_arrive_during_a_round_count_from_the_next(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    workspace, room = toy.opened(root)
    late = next(
        i
        for i in workspace.ledger.items("train")
        if i.id not in {s.item_id for s in workspace.ledger.selections(1)}
    )

    def answer_late(event: Progress) -> None:
        if event.stage == "teacher":
            log = workspace.ledger.reading
            log.assign([Assignment(late.id, "archive", 1, 0)])
            log.take(
                "archive", Pulled((Read("late", late.id, "archive", "archive", answers=SPOT),))
            )

    run_round(workspace, room, report=answer_late)
    assert workspace.ledger.label_counts(2)["train"] == 8
    assert late.id not in {label.item_id for label in workspace.ledger.labels(before_round=2)}
    assert late.id in {label.item_id for label in workspace.ledger.labels(before_round=3)}


def test_a_query_of_none_selects_nothing(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    workspace, room = toy.opened(root)
    number = run_round(workspace, room, query_size=0)
    assert [s.name for s in workspace.ledger.stages(number)] == STAGES[:-1]


def test_the_whole_pool_labeled_the_teacher_stands_in(tmp_path):
    root = toy.make(tmp_path / "w")
    workspace, room = toy.opened(root)
    run_round(workspace, room, query_size=1000)
    number = run_round(workspace, room, query_size=4)
    models = {m.stage: m.id for _, m in workspace.ledger.models(number)}
    assert models["intermediate"] == models["teacher"] != models["student"]
    assert workspace.ledger.selections(number) == []


def test_labels_of_one_side_alone_make_a_round_that_only_asks(tmp_path):
    root = toy.make(tmp_path / "w")
    workspace, room = toy.opened(root)
    run_round(workspace, room, query_size=1)
    number = run_round(workspace, room, query_size=20)
    assert [s.name for s in workspace.ledger.stages(number)] == ["select"]
    assert workspace.ledger.rounds()[-1].strategy == "cold_start"
    first, second = (workspace.ledger.selections(n) for n in (1, 2))
    assert len({s.item_id for s in (*first, *second)}) == 21
    number = run_round(workspace, room, query_size=1)
    assert workspace.ledger.rounds()[-1].strategy == "margin"
    assert "evaluate" in [s.name for s in workspace.ledger.stages(number)]


def test_several_findings_one_of_them_never_seen(tmp_path):
    root = toy.make(tmp_path / "w", toy.TASKS["multi_label"])
    workspace, room = toy.opened(root)
    run_round(workspace, room, query_size=20)
    number = run_round(workspace, room)
    detail = json.loads(workspace.ledger.stages(number)[0].detail)
    assert detail["not_learned"] == ["Rare"]
    by_finding = {
        m.finding: m.value
        for _, m in workspace.ledger.measurements(number)
        if (m.stage, m.split, m.name) == ("student", "vault", "auroc")
    }
    assert np.isnan(by_finding["Rare"])
    assert not np.isnan(by_finding["macro"])


def test_exclusive_classes_get_one_pseudo_label_each(tmp_path):
    root = toy.make(tmp_path / "w", toy.TASKS["multi_class"])
    workspace, room = toy.opened(root)
    run_round(workspace, room, query_size=20)
    number = run_round(workspace, room)
    ones: dict[str, float] = {}
    for row in workspace.ledger.pseudo_labels(number):
        ones[row.item_id] = ones.get(row.item_id, 0) + row.value
    assert set(ones.values()) == {1.0}


@pytest.mark.parametrize("strategy", ["random", "entropy", "margin", "augmentation"])
def test_every_strategy_runs_in_the_loop(one_round, tmp_path, strategy):
    root = copied(one_round, tmp_path / "w")
    workspace, room = toy.opened(root)
    config = workspace.config.changed(selection={"strategy": strategy})
    workspace = type(workspace)(root, config, workspace.ledger, workspace.images)
    number = run_round(workspace, room)
    chosen = [s for s in workspace.ledger.selections(number) if s.kind == "strategy"]
    assert len(chosen) == (0 if strategy == "random" else 7)
    assert all(np.isfinite(s.score) for s in chosen)


def test_an_unknown_strategy_is_refused_before_the_round_opens(one_round, tmp_path):
    root = copied(one_round, tmp_path / "w")
    workspace, room = toy.opened(root)
    config = workspace.config.changed(selection={"strategy": "marjin"})
    workspace = type(workspace)(root, config, workspace.ledger, workspace.images)
    with pytest.raises(ConfigError, match="'marjin' is unknown; use one of"):
        run_round(workspace, room)
    assert len(workspace.ledger.rounds()) == 1


def test_an_alarm_that_ignores_no_finding_is_refused_before_the_round_opens(one_round, tmp_path):
    workspace, room = toy.opened(copied(one_round, tmp_path / "w"))
    config = workspace.config.changed(alarm={"ignore": ["Spots"]})
    with pytest.raises(ConfigError, match="ignore names 'Spots', which is no finding here; use"):
        run_round(replace(workspace, config=config), room)
    assert len(workspace.ledger.rounds()) == 1


def test_time_is_written_down(finished):
    ledger = toy.opened(finished)[0].ledger
    assert all(0 <= s.seconds < time.monotonic() for s in ledger.stages(2))
