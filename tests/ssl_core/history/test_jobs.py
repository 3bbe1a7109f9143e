"""Jobs in the ledger: states by hand-computed times, two that ask at once, the fence, on both
databases; and any order of events against a plain model."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy.exc import DBAPIError

from ssl_core.errors import Cancelled, WorkspaceError
from ssl_core.history import schema
from ssl_core.history.jobs import JobLog, database_clock
from ssl_core.history.ledger import Ledger
from ssl_core.job_progress import Point
from ssl_core.job_states import LIVE, Event, Job, state_of
from tests.ledger_records import ITEMS, TASK, count, label, raw, round_, stage

ROOT = Path(__file__).parents[2]
START = datetime(2030, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Clock:
    """The database's clock, set by hand: seconds since `START`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, connection) -> datetime:
        return after(self.seconds)


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK, ITEMS) as made:
        yield made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(ledger, clock):
    return JobLog(ledger._engine, clock)


def detail(stage_="teacher", done=1, total=2):
    return {
        "stage": stage_,
        "done": done,
        "total": total,
        "note": "",
        "part": stage_,
        "part_seconds": 1.0,
        "first": 0,
        "seconds": 1.0,
        "epoch": 0,
        "epochs": 0,
        "loss": None,
        "auroc": None,
    }


# --- asking --------------------------------------------------------------------------------


def test_a_job_is_kept_as_it_was_asked_for(log, clock):
    clock.seconds = 3.5
    options = {"selection": {"query_size": 7}, "seed": 2}
    job, new = log.ask("round", options, "ann")
    assert new
    assert job == Job(1, "round", options, "ann", after(3.5), None)
    found = log.state(1)
    assert (found.job, found.state, found.lives) == (job, "asked", True)
    assert log.newest() == found
    assert (found.place, found.round, found.message, found.step) == ("", None, "", None)


def test_before_the_first_job_there_is_none(log):
    assert log.newest() is None
    assert log.history() == []
    with pytest.raises(WorkspaceError, match="no job 4 in this workspace"):
        log.state(4)
    with pytest.raises(WorkspaceError, match="no job 1 "):
        log.start(1, "here")


def test_while_a_job_lives_asking_gives_that_one(log, clock):
    first, _ = log.ask("round", {}, "ann")
    assert log.ask("round", {"seed": 1}, "bob") == (first, False)
    log.start(1, "here")
    clock.seconds = 24.0
    assert log.ask("round", {}, "bob") == (first, False)
    log.request_cancel(1, "bob")
    assert log.ask("round", {}, "bob") == (first, False)
    log.finish(1, "cancelled")
    job, new = log.ask("round", {}, "bob")
    assert (job.id, new) == (2, True)


def test_many_threads_that_ask_at_once_get_one_job(ledger):
    together = threading.Barrier(8)

    def ask(n: int):
        together.wait()
        return ledger.jobs.ask("round", {}, f"reader {n}")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert sum(new for _, new in found) == 1
    assert len({job.by for job, _ in found}) == 1
    assert count(ledger, schema.jobs) == 1


def test_processes_that_ask_at_once_get_one_job(ledger, ledger_url, tmp_path):
    program = (
        "import sys, time, pathlib\n"
        "from ssl_core.history.ledger import Ledger\n"
        "url, ready, go = sys.argv[1:]\n"
        "with Ledger.open(url) as ledger:\n"
        "    pathlib.Path(ready).touch()\n"
        "    while not pathlib.Path(go).exists(): time.sleep(0.001)\n"
        "    job, new = ledger.jobs.ask('round', {}, ready)\n"
        "    print(job.id, new)\n"
    )
    ready, go = [tmp_path / f"ready{n}" for n in range(3)], tmp_path / "go"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, ledger_url, str(one), str(go)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in ready
    ]
    while not all(one.exists() for one in ready):
        assert all(process.poll() is None for process in started)
    go.touch()
    said = sorted(process.communicate(timeout=60)[0].strip() for process in started)
    assert said == ["1 False", "1 False", "1 True"]


def test_one_process_may_start_a_job(log):
    log.ask("round", {}, "ann")
    assert log.start(1, "process 7 on alder").by == "ann"
    with pytest.raises(WorkspaceError, match=r"started already \(process 7 on alder\)"):
        log.start(1, "process 8 on birch")
    assert log.state(1).place == "process 7 on alder"


# --- states by time ------------------------------------------------------------------------


def test_a_job_that_never_starts_is_dead_after_25_s(log, clock):
    log.ask("round", {}, "ann")
    clock.seconds = 25.0
    assert log.state(1).state == "asked"
    clock.seconds = 25.001
    assert log.state(1).state == "dead"
    assert log.state(1).can_be_resumed


def test_a_heartbeat_keeps_a_job_alive_for_25_s(log, clock):
    log.ask("round", {}, "ann")
    clock.seconds = 20.0
    log.start(1, "here")
    clock.seconds = 40.0
    assert not log.beat(1)
    clock.seconds = 64.0
    assert not log.beat(1, [("progress", detail())])
    clock.seconds = 89.0
    found = log.state(1)
    assert (found.state, found.seen_at, found.now) == ("running", after(64), after(89))
    assert found.started_at == after(20)
    clock.seconds = 89.001
    assert log.state(1).state == "dead"


def test_a_request_to_cancel_is_no_sign_of_life(log, clock):
    log.ask("round", {}, "ann")
    log.start(1, "here")
    clock.seconds = 20.0
    log.request_cancel(1, "bob")
    assert log.state(1).state == "cancelling"
    clock.seconds = 25.5
    assert log.state(1).state == "dead"
    with pytest.raises(WorkspaceError, match="Job 1 is dead: there is nothing to cancel"):
        log.request_cancel(1, "bob")


def test_a_job_that_only_slept_lives_again_unless_it_was_replaced(log, clock):
    log.ask("round", {}, "ann")
    log.start(1, "here")
    clock.seconds = 300.0
    assert log.state(1).state == "dead"
    assert not log.beat(1)
    assert log.state(1).state == "running"
    clock.seconds = 600.0
    assert log.ask("round", {}, "bob")[0].id == 2
    for write in (
        lambda: log.beat(1),
        lambda: log.is_to_stop(1),
        lambda: log.finish(1, "finished"),
        lambda: log.start(1, "here"),
    ):
        with pytest.raises(Cancelled, match="job 2 has taken its place"):
            write()
    assert log.state(1).state == "dead"
    assert log.state(2).state == "asked"


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled"])
def test_an_end_is_an_end(log, clock, end):
    log.ask("round", {}, "ann")
    log.start(1, "here")
    clock.seconds = 9.0
    log.finish(1, end, 4, "The disk is full.")
    clock.seconds = 1000.0
    found = log.state(1)
    assert (found.state, found.round, found.message) == (end, 4, "The disk is full.")
    assert found.ended_at == after(9)
    assert found.can_be_resumed == (end != "finished")
    for write in (lambda: log.beat(1), lambda: log.finish(1, "finished")):
        with pytest.raises(Cancelled, match=f"Job 1 is {end} and writes nothing more"):
            write()
    with pytest.raises(WorkspaceError, match="nothing to cancel"):
        log.request_cancel(1, "ann")


def test_whoever_runs_a_job_hears_that_it_is_to_stop(log):
    log.ask("round", {}, "ann")
    log.start(1, "here")
    assert not log.beat(1)
    assert not log.is_to_stop(1)
    log.request_cancel(1, "bob")
    log.request_cancel(1, "bob")
    assert log.is_to_stop(1)
    assert log.beat(1)


def test_the_history_is_newest_first(log):
    for number in range(1, 5):
        log.ask("round", {}, f"ann {number}")
        log.finish(number, "failed", message=f"No. {number}.")
    assert [one.job.id for one in log.history()] == [4, 3, 2, 1]
    assert [one.message for one in log.history(2)] == ["No. 4.", "No. 3."]


def test_a_job_says_which_one_it_resumes(ledger, log):
    log.ask("round", {}, "ann")
    log.finish(1, "failed")
    assert log.ask("round", {}, "ann")[0].resumes is None  # no round was opened
    ledger.open_round(round_(1))
    log.finish(2, "cancelled")
    assert log.ask("round", {}, "ann")[0].resumes == 2
    log.finish(3, "failed")
    ledger.finish_round(1, "{}")
    assert log.ask("round", {}, "ann")[0].resumes is None  # that round is over


def test_a_round_that_the_terminal_left_open_resumes_no_job(ledger, log):
    log.ask("round", {}, "ann")
    log.finish(1, "finished")
    ledger.open_round(round_(1))
    assert log.ask("round", {}, "ann")[0].resumes is None


# --- progress ------------------------------------------------------------------------------


def test_the_newest_step_is_where_a_job_stands(log):
    log.ask("round", {}, "ann")
    log.start(1, "here")
    log.beat(1, [("progress", detail(done=1)), ("progress", detail("student", done=5, total=9))])
    log.beat(1)
    step = log.state(1).step
    assert (step.stage, step.done, step.total) == ("student", 5, 9)


def test_curves_go_on_over_the_jobs_that_are_resumed(ledger, log):
    def curve(name, *points):
        return [("curve", {"stage": name, "epochs": 9, "points": [list(p) for p in points]})]

    log.ask("round", {}, "ann")
    ledger.open_round(round_(1))
    log.beat(1, curve("teacher", (1, 0.5, None), (2, 0.4, 0.8)))
    log.beat(1, curve("student", (1, 0.9, 0.6)))
    log.finish(1, "cancelled")
    log.ask("round", {}, "ann")
    log.beat(2, curve("student", (1, 0.9, 0.6), (2, 0.7, 0.7)))
    teacher, student = log.curves(2)
    assert (teacher.stage, teacher.epochs, student.stage) == ("teacher", 9, "student")
    assert teacher.points[1] == Point(2, 0.4, 0.8)
    assert teacher.points[0].auroc != teacher.points[0].auroc
    assert student.points == (Point(1, 0.9, 0.6), Point(2, 0.7, 0.7))
    assert [len(one.points) for one in log.curves(1)] == [2, 1]


# --- the ledger's part ---------------------------------------------------------------------


@pytest.mark.parametrize("table", ["jobs", "job_events"])
def test_jobs_are_never_changed(ledger, table):
    ledger.jobs.ask("round", {}, "ann")
    ledger.jobs.start(1, "here")
    for change in (f"UPDATE {table} SET kind = 'round'", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match=f"{table} is append-only"):
            raw(ledger, change)


def test_behind_a_fence_nothing_is_written_once_another_took_over(ledger, ledger_url, clock):
    watcher = JobLog(ledger._engine, clock)
    watcher.ask("round", {}, "ann")
    with Ledger.open(ledger_url) as runner:
        runner.jobs.fence(1)
        runner.open_round(round_(1))
        runner.add_stage(stage())
        clock.seconds = 60.0
        assert watcher.ask("round", {}, "bob")[0] == Job(2, "round", {}, "bob", after(60), 1)
        for write in (
            lambda: runner.add_stage(stage(name="student", position=1)),
            lambda: runner.finish_round(1, "{}"),
            lambda: runner.add_labels([label("t1")]),
            lambda: runner.reading.assign([]),
            lambda: runner.look_into_vault(1, "m", "measure"),
        ):
            with pytest.raises(Cancelled, match="job 2 has taken its place"):
                write()
        assert len(runner.stages(1)) == 1  # reading is free
    assert ledger.add_stage(stage(name="student", position=1))  # the others write as before


def test_the_database_s_clock_goes(ledger):
    with ledger._engine.connect() as connection:
        first, second = database_clock(connection), database_clock(connection)
    assert first.tzinfo == UTC
    assert timedelta(0) <= second - first < timedelta(seconds=5)
    assert abs(datetime.now(UTC) - first) < timedelta(seconds=60)


# --- any order -----------------------------------------------------------------------------


class Jobs(RuleBasedStateMachine):
    """The model: of each job when it was asked for, seen, started, asked to stop, and its end."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{self.folder.name}/ledger.db"
        self.ledger = Ledger.create(url, TASK)
        self.clock = Clock()
        self.log = JobLog(self.ledger._engine, self.clock)
        self.model: list[dict] = []

    def teardown(self):
        if hasattr(self, "folder"):
            self.ledger.close()
            self.folder.cleanup()

    def expected(self, number: int) -> str:
        one = self.model[number - 1]
        if one["end"]:
            return one["end"]
        if number < len(self.model) or self.clock.seconds - one["seen"] > 25:
            return "dead"
        return "cancelling" if one["stop"] else "running" if one["started"] else "asked"

    def may_write(self, number: int) -> bool:
        return number == len(self.model) and not self.model[number - 1]["end"]

    @rule(seconds=st.sampled_from([1, 5, 24, 25, 26, 100]))
    def time_goes_by(self, seconds):
        self.clock.seconds += seconds

    @rule()
    def ask(self):
        lives = self.model and self.expected(len(self.model)) in LIVE
        job, new = self.log.ask("round", {}, "ann")
        assert new == (not lives)
        if new:
            fresh = {"seen": self.clock.seconds, "started": False, "stop": False, "end": ""}
            self.model.append(fresh)
        assert job.id == len(self.model)

    def attempt(self, number: int, action, allowed: bool) -> bool:
        if allowed:
            action()
        else:
            with pytest.raises((Cancelled, WorkspaceError)):
                action()
        return allowed

    @rule(data=st.data())
    def start(self, data):
        number = data.draw(st.integers(1, len(self.model) + 1))
        there = number <= len(self.model)
        free = there and self.may_write(number) and not self.model[number - 1]["started"]
        if self.attempt(number, lambda: self.log.start(number, "here"), free):
            self.model[number - 1] |= {"started": True, "seen": self.clock.seconds}

    @rule(data=st.data(), told=st.booleans())
    def beat(self, data, told):
        if not self.model:
            return
        number = data.draw(st.integers(1, len(self.model)))
        notes = [("progress", detail())] if told else []
        if self.attempt(number, lambda: self.log.beat(number, notes), self.may_write(number)):
            self.model[number - 1]["seen"] = self.clock.seconds

    @rule(data=st.data())
    def cancel(self, data):
        if not self.model:
            return
        number = data.draw(st.integers(1, len(self.model)))
        lives = self.expected(number) in LIVE
        if self.attempt(number, lambda: self.log.request_cancel(number, "bob"), lives):
            self.model[number - 1]["stop"] = True

    @rule(data=st.data(), end=st.sampled_from(["finished", "failed", "cancelled"]))
    def finish(self, data, end):
        if not self.model:
            return
        number = data.draw(st.integers(1, len(self.model)))
        if self.attempt(number, lambda: self.log.finish(number, end), self.may_write(number)):
            self.model[number - 1]["end"] = end

    @invariant()
    def states_are_the_model_s(self):
        if not hasattr(self, "model"):
            return
        found = self.log.history()
        numbers = range(len(self.model), 0, -1)
        assert [one.state for one in found] == [self.expected(number) for number in numbers]
        assert sum(one.lives for one in found) <= 1


Jobs.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyOrder = Jobs.TestCase


def test_the_state_is_a_function_of_events_and_time():
    def event(kind, at):
        return {kind: Event(kind, after(at), {})}

    assert state_of({}, after(0), after(25), replaced=False) == "asked"
    assert state_of({}, after(0), after(1), replaced=True) == "dead"
    beats = event("started", 1) | event("beat", 30)
    assert state_of(beats, after(0), after(55), replaced=False) == "running"
    assert state_of(beats | event("failed", 2), after(0), after(99), replaced=True) == "failed"
