"""From reports to rows: nothing that counts is lost, pace by hand, and what training reports."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_core.job_progress import (
    Curve,
    Point,
    Throttle,
    curves_of,
    round_seconds_left,
    step_of,
)
from ssl_core.progress import Progress
from ssl_core.records import Stage
from tests.training import network, schedule, train


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock):
    return Throttle(clock)


def steps(notes):
    return [step_of(detail) for kind, detail in notes if kind == "progress"]


def curves(notes):
    return curves_of(detail for kind, detail in notes if kind == "curve")


def test_a_thousand_reports_are_one_row(throttle):
    for done in range(1, 1001):
        throttle.add(Progress("teacher", done, 1000))
    (step,) = steps(throttle.take())
    assert (step.stage, step.done, step.total) == ("teacher", 1000, 1000)
    assert throttle.take() == []


def test_the_last_report_of_each_stage_is_kept(throttle):
    for name in ("teacher", "student"):
        throttle.add(Progress(name, 0, 0))
        throttle.add(Progress(name, 1, 2))
        throttle.add(Progress(name, 2, 2, "done"))
    assert [(s.stage, s.done, s.note) for s in steps(throttle.take())] == [
        ("teacher", 2, "done"),
        ("student", 2, "done"),
    ]


def test_pace_is_of_what_this_job_did(throttle, clock):
    throttle.add(Progress("teacher", 0, 0))
    clock.seconds += 7  # what comes before the first step is no step's time
    throttle.add(Progress("teacher", 40, 100))  # resumed at step 40
    (step,) = steps(throttle.take())
    assert step.seconds_left is None
    clock.seconds += 10
    throttle.add(Progress("teacher", 60, 100))
    (step,) = steps(throttle.take())
    assert (step.first, step.seconds) == (40, 10.0)
    assert step.seconds_left == pytest.approx(20.0)  # 20 steps in 10 s, 40 to go
    assert step.part_seconds == 17.0
    throttle.add(Progress("teacher", 100, 100))
    assert steps(throttle.take())[0].seconds_left == 0


def test_work_within_a_stage_knows_its_stage(throttle, clock):
    throttle.add(Progress("select", 0, 0))
    clock.seconds += 3
    throttle.add(Progress("score the pool", 5, 10))
    _, step = steps(throttle.take())
    assert (step.stage, step.part, step.part_seconds, step.seconds) == (
        "score the pool",
        "select",
        3.0,
        0.0,
    )


def test_the_same_work_done_twice_is_paced_anew(throttle, clock):
    throttle.add(Progress("evaluate teacher", 50, 50))
    clock.seconds += 5
    throttle.add(Progress("evaluate teacher", 10, 80))
    clock.seconds += 1
    throttle.add(Progress("evaluate teacher", 20, 80))
    (step,) = steps(throttle.take())
    assert step.seconds_left == pytest.approx(6.0)


def test_every_epoch_is_a_point_though_rows_are_few(throttle):
    history = tuple((0.5 / epoch, 0.9) for epoch in range(1, 5))
    for epoch in range(5):
        throttle.add(Progress("teacher", epoch, 5, "", 5, history[:epoch]))
    throttle.add(Progress("teacher", 5, 5, "", 5, (*history, (0.1, math.nan))))
    notes = throttle.take()
    assert len(notes) == 2
    (curve,) = curves(notes)
    assert (curve.stage, curve.epochs) == ("teacher", 5)
    assert [p.epoch for p in curve.points] == [1, 2, 3, 4, 5]
    assert curve.points[1] == Point(2, 0.25, 0.9)
    assert math.isnan(curve.points[4].auroc)


def test_a_stage_that_began_anew_begins_its_curve_anew():
    rows = [
        {"stage": "a", "epochs": 3, "points": [[1, 0.5, None], [2, 0.4, None], [3, 0.3, None]]},
        {"stage": "a", "epochs": 2, "points": [[1, 0.6, 0.5]]},
        {"stage": "a", "epochs": 2, "points": [[2, 0.2, 0.6]]},
    ]
    assert curves_of(rows) == [Curve("a", 2, (Point(1, 0.6, 0.5), Point(2, 0.2, 0.6)))]


def test_a_round_s_time_left_by_an_earlier_round(throttle, clock):
    earlier = [
        Stage(1, n, name, "fit", "{}", seconds)
        for n, (name, seconds) in enumerate([("teacher", 60.0), ("student", 30.0), ("select", 5.0)])
    ]
    throttle.add(Progress("teacher", 0, 0))
    clock.seconds += 20
    throttle.add(Progress("frozen blocks", 1, 4))
    step = steps(throttle.take())[-1]
    assert round_seconds_left(step, earlier) == pytest.approx(40 + 35)
    throttle.add(Progress("teacher", 1, 11))
    clock.seconds += 2
    throttle.add(Progress("teacher", 2, 11))
    step = steps(throttle.take())[-1]
    assert round_seconds_left(step, earlier) == pytest.approx(18 + 35)  # by its own pace
    assert round_seconds_left(step, earlier[1:]) is None


event = st.builds(
    lambda stage, done, total: Progress(stage, min(done, total), total),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 9),
    st.integers(0, 9),
)


@given(st.lists(st.one_of(event, st.none())))
def test_whenever_rows_are_taken_no_stage_s_last_report_is_lost(script):
    throttle, written, heard = Throttle(lambda: 0.0), [], []
    for one in script:
        if one is None:
            written += steps(throttle.take())
        else:
            throttle.add(one)
            heard.append(one)
    written += steps(throttle.take())
    told = [(s.stage, s.done, s.total) for s in written]
    lasts = [
        (one.stage, one.done, one.total)
        for position, one in enumerate(heard)
        if position + 1 == len(heard) or heard[position + 1].stage != one.stage
    ]
    left = iter(told)
    assert all(last in left for last in lasts)  # in order
    assert len(told) <= len(heard)


# --- what training reports -----------------------------------------------------------------


def test_training_reports_loss_and_auroc_of_each_epoch():
    heard: list[Progress] = []
    result = train(network(), schedule(epochs=3), report=heard.append, stage="teacher")
    assert [e.epoch for e in heard] == [0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert {e.epochs for e in heard} == {3}
    assert math.isnan(heard[0].loss)
    assert math.isnan(heard[0].auroc)
    throttle = Throttle()
    for one in heard:
        throttle.add(one)
    (curve,) = curves(throttle.take())
    assert [(p.loss, p.auroc) for p in curve.points] == [(e.loss, e.score) for e in result.history]


def test_resumed_training_tells_the_epochs_that_nobody_here_has_seen(tmp_path):
    class Stopped(Exception):
        pass

    def stop(event: Progress) -> None:
        if event.done == 7:
            raise Stopped

    options = {"stage": "teacher", "checkpoint": tmp_path / "c", "checkpoint_seconds": 0.0}
    with pytest.raises(Stopped):
        train(network(), schedule(epochs=3), report=stop, **options)
    heard: list[Progress] = []
    result = train(network(), schedule(epochs=3), report=heard.append, **options)
    assert [(e.done, e.epoch) for e in heard] == [(8, 2), (9, 3)]
    throttle = Throttle()
    for one in heard:
        throttle.add(one)
    (curve,) = curves(throttle.take())
    assert [(p.epoch, p.loss) for p in curve.points] == [
        (number, epoch.loss) for number, epoch in enumerate(result.history, 1)
    ]
