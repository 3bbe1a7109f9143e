"""Jobs as they run: real processes, watched, cancelled, killed, put to sleep and resumed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from app import jobs
from app.cli import run
from ssl_core.errors import ConfigError, WorkspaceError
from ssl_core.history import database
from ssl_core.rounds import run_round, unfinished
from ssl_core.workspace import one_process
from tests import toy

ROOT = Path(__file__).parents[2]
LONG = {**toy.RECIPE, "teacher": {**toy.RECIPE["teacher"], "epochs": 100_000}}
EPOCHS = 40
PLAN = ["teacher", "pseudo-labels", "intermediate", "student", "evaluate", "select"]


def some_seconds(epochs: int = EPOCHS) -> dict:
    """A recipe whose teacher trains for some seconds."""
    return {**toy.RECIPE, "teacher": {**toy.RECIPE["teacher"], "epochs": epochs}}


@pytest.fixture
def ws(tmp_path):
    """A workspace whose next round trains; whatever still runs at the end of a test is killed."""
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(workspace, room)
    yield workspace
    for found in workspace.ledger.jobs.history():
        if found.place and is_there(pid_of(found)):
            os.kill(pid_of(found), signal.SIGKILL)


def pid_of(found) -> int:
    return int(found.place.split()[1])


def is_there(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds: float = 60.0):
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def over(ws, job_id: int, seconds: float = 90.0):
    """The job once it does not live any more."""

    def look():
        found = ws.ledger.jobs.state(job_id)
        return None if found.lives else found

    return until(look, seconds)


def training(ws, job_id: int, steps: int = 10):
    """The job once its teacher has done some steps."""

    def look():
        found = ws.ledger.jobs.state(job_id)
        assert found.lives, found.message
        step = found.step
        return found if step and step.stage == "teacher" and step.done >= steps else None

    return until(look)


def ready(ws, job_id: int) -> None:
    """Wait until the last row of an ended job stands, and its process is gone."""
    until(lambda: not is_there(pid_of(ws.ledger.jobs.state(job_id))))


def test_a_job_is_a_round_that_can_be_watched(ws):
    options = {"selection": {"query_size": 5, "random_share": 0.15}, "recipe": some_seconds()}
    job = jobs.start_round(ws, options, "ann")
    assert job.options == {"selection": {"query_size": 5}, "recipe": some_seconds()}
    live = training(ws, job.id)
    assert (live.state, live.step.part, live.step.epochs, live.step.total) == (
        "running",
        "teacher",
        EPOCHS,
        3 * EPOCHS,
    )
    ours = os.getpid()
    assert os.getsid(pid_of(live)) == pid_of(live) != ours  # no terminal, no session of ours
    command = Path(f"/proc/{pid_of(live)}/cmdline").read_text().split("\0")
    assert command[-6:] == ["app.cli", "round", str(ws.root), "--job", "1", ""]
    found = over(ws, job.id)
    assert (found.state, found.round, found.message) == ("finished", 2, "")
    assert [s.name for s in ws.ledger.stages(2)] == PLAN
    made = ws.ledger.rounds()[-1]
    assert made.query_size == len(ws.ledger.selections(2)) == 5
    assert json.loads(made.config)["recipe"] == some_seconds()
    curves = {curve.stage: curve for curve in ws.ledger.jobs.curves(1)}
    for stage in ws.ledger.stages(2)[:1] + ws.ledger.stages(2)[2:4]:
        told = [[p.loss, p.auroc] for p in curves[stage.name].points]
        assert told == [epoch[:2] for epoch in json.loads(stage.detail)["epochs"]]
    log = jobs.log_tail(ws.root, 1)
    assert any(f"teacher: epoch {EPOCHS} of {EPOCHS}, loss ." in line for line in log)
    assert jobs.log_tail(ws.root, 1, lines=2) == log[-2:]


def test_rows_are_written_at_most_about_once_a_second(ws):
    job = jobs.start_round(ws, {"recipe": some_seconds()}, "ann")
    found = over(ws, job.id)
    with ws.ledger._engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT count(*) FROM job_events WHERE kind IN ('beat', 'progress')"
        ).scalar_one()
    took = (found.ended_at - found.started_at).total_seconds()
    ends_of_stages = 12  # the last report of each is kept
    assert rows <= took + ends_of_stages


def test_a_cancelled_job_stops_and_the_next_one_goes_on(ws):
    jobs.start_round(ws, {"recipe": some_seconds(100)}, "ann")  # it looks every 2 s
    live = training(ws, 1)
    began = time.monotonic()
    assert jobs.cancel(ws, "bob").state == "cancelling"
    found = over(ws, 1)
    assert time.monotonic() - began < 10
    assert (found.state, found.round) == ("cancelled", 2)
    assert found.message == "It was cancelled; what was finished is kept."
    until(lambda: not is_there(pid_of(live)))
    assert unfinished(ws).number == 2
    with pytest.raises(WorkspaceError, match="No job runs"):
        jobs.cancel(ws, "bob")
    with pytest.raises(ConfigError, match="Round 2 was interrupted and keeps the settings"):
        jobs.start_round(ws, {"seed": 3}, "ann")
    second = jobs.start_round(ws, {}, "ann")
    assert (second.id, second.resumes) == (2, 1)
    assert over(ws, 2).state == "finished"
    assert [s.name for s in ws.ledger.stages(2)] == PLAN
    teacher = next(c for c in ws.ledger.jobs.curves(2) if c.stage == "teacher")
    assert [p.epoch for p in teacher.points] == list(range(1, 101))


def test_sigterm_cancels(ws):
    jobs.start_round(ws, {"recipe": LONG}, "ann")
    os.kill(pid_of(training(ws, 1)), signal.SIGTERM)
    found = over(ws, 1, 10)
    assert (found.state, found.round) == ("cancelled", 2)
    ready(ws, 1)
    assert any("stopped; what was finished is kept" in line for line in jobs.log_tail(ws.root, 1))


def test_a_killed_job_is_seen_to_be_dead_within_30_s_and_can_be_resumed(ws):
    jobs.start_round(ws, {"recipe": some_seconds()}, "ann")
    os.kill(pid_of(training(ws, 1)), signal.SIGKILL)
    killed = time.monotonic()
    found = over(ws, 1, 31)
    assert (found.state, found.can_be_resumed) == ("dead", True)
    assert 15 < time.monotonic() - killed < 30
    second = jobs.start_round(ws, {}, "ann")
    assert (second.id, second.resumes) == (2, 1)
    assert over(ws, 2).state == "finished"
    assert [r.number for r in ws.ledger.rounds()] == [1, 2]
    assert [s.name for s in ws.ledger.stages(2)] == PLAN


def test_a_job_that_slept_while_another_took_its_place_stops_before_it_writes(ws):
    jobs.start_round(ws, {"recipe": some_seconds(2000)}, "ann")
    first = pid_of(training(ws, 1))
    os.kill(first, signal.SIGSTOP)
    over(ws, 1, 31)
    second = jobs.start_round(ws, {}, "bob")
    assert second.id == 2
    until(lambda: (s := ws.ledger.jobs.state(2).step) and s.stage == "wait for job 1 to leave")
    assert is_there(first)  # it holds the lock in its sleep
    before = rows_of(ws, 1)
    os.kill(first, signal.SIGCONT)
    until(lambda: not is_there(first), 20)
    assert rows_of(ws, 1) == before
    assert ws.ledger.jobs.state(1).state == "dead"
    said = "\n".join(jobs.log_tail(ws.root, 1))
    assert "job 2 has taken its place" in said
    training(ws, 2)
    jobs.cancel(ws, "bob")
    assert over(ws, 2).state == "cancelled"


def rows_of(ws, job_id: int) -> int:
    with ws.ledger._engine.connect() as connection:
        query = f"SELECT count(*) FROM job_events WHERE job = {job_id}"
        return connection.exec_driver_sql(query).scalar_one()


STARTER = """
import sys, time
from pathlib import Path
from app.jobs import start_round
from ssl_core.workspace import open_workspace
ws = open_workspace(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(start_round(ws, {}, "app").id, flush=True)
time.sleep(600)
"""


def starter(ws) -> subprocess.Popen:
    """A process that starts a round when told to, and then stays: an app."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(ws.root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_job_outlives_the_app(ws):
    ws.ledger.jobs.ask("round", {"recipe": some_seconds()}, "ann")
    ws.ledger.jobs.finish(1, "failed")  # its options are no longer of use
    app = starter(ws)
    app.stdin.write("go\n")
    app.stdin.flush()
    assert app.stdout.readline() == "2\n"
    os.killpg(app.pid, signal.SIGKILL)
    app.wait()
    assert over(ws, 2).state == "finished"
    assert [s.name for s in ws.ledger.stages(2)] == PLAN


def test_two_apps_that_start_at_once_start_one_process(ws):
    apps = [starter(ws), starter(ws)]
    try:
        for app in apps:
            app.stdin.write("go\n")
            app.stdin.flush()
        assert [app.stdout.readline() for app in apps] == ["1\n", "1\n"]
        assert over(ws, 1).state == "finished"
        assert [found.job.id for found in ws.ledger.jobs.history()] == [1]
        assert [p.name for p in (ws.root / "jobs").iterdir()] == ["1.log"]
        assert [r.number for r in ws.ledger.rounds()] == [1, 2]
    finally:
        for app in apps:
            os.killpg(app.pid, signal.SIGKILL)
            app.wait()


def test_a_job_trains_on_while_the_ledger_is_locked(ws):
    """A writer that takes 12 s holds up neither the steps nor, afterwards, the heartbeat."""
    jobs.start_round(ws, {"recipe": some_seconds(2000)}, "ann")
    training(ws, 1)
    with database.writing(ws.ledger._engine):
        time.sleep(4)  # what was under way is over
        rows, lines = rows_of(ws, 1), len(jobs.log_tail(ws.root, 1, 9999))
        time.sleep(8)
        assert len(jobs.log_tail(ws.root, 1, 9999)) > lines + 5  # one an epoch
        assert rows_of(ws, 1) == rows
        assert ws.ledger.jobs.state(1).state == "running"
    until(lambda: rows_of(ws, 1) > rows, 5)
    jobs.cancel(ws, "ann")
    assert over(ws, 1).state == "cancelled"


def test_a_job_on_postgresql_without_a_password_on_its_command_line(
    postgres_server, tmp_path, monkeypatch
):
    place = make_url(postgres_server)
    schema = f"jobs_{secrets.token_hex(4)}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    monkeypatch.setenv("PGPASSWORD", place.password)
    host = f"{place.username}@{place.host}:{place.port}"
    ledger = f"postgresql://{host}/postgres?options=-csearch_path%3D{schema}"
    ws, room = toy.opened(toy.make(tmp_path / "w", ledger=ledger))
    run_round(ws, room)
    jobs.start_round(ws, {"recipe": some_seconds()}, "ann")
    live = training(ws, 1)
    assert place.password not in Path(f"/proc/{pid_of(live)}/cmdline").read_text()
    os.kill(pid_of(live), signal.SIGTERM)
    assert over(ws, 1).state == "cancelled"
    assert jobs.start_round(ws, {}, "ann").resumes == 1
    found = over(ws, 2)
    assert (found.state, found.round) == ("finished", 2)
    assert place.password not in "\n".join(jobs.log_tail(ws.root, 2))
    ws.ledger.close()


def test_a_round_in_a_terminal_is_not_run_over(ws):
    """The job fails with the sentence that the terminal would give."""
    with one_process(ws.root, "running a round in"):
        jobs.start_round(ws, {}, "ann")
        found = over(ws, 1)
    assert found.state == "failed"
    assert found.message.startswith("Another process is running a round in")
    assert ws.ledger.rounds()[-1].number == 1


def test_a_job_that_fails_says_why(ws):
    (ws.root / "models").write_text("in the way")
    jobs.start_round(ws, {}, "ann")
    found = over(ws, 1)
    assert found.state == "failed"
    models = str(ws.root / "models")
    assert found.message.startswith(f"{models!r} cannot be used (File exists): check the path")
    assert found.round == 2


def test_settings_that_cannot_be_used_start_nothing(ws):
    wrong = {"selection": {"query_size": -1, "strategy": "margin"}}
    assert set(jobs.option_faults(ws, wrong)) == {"selection.query_size"}
    for options in (wrong, {"selection": {"strategy": "marjin"}}, {"ledger": "x"}):
        with pytest.raises(ConfigError, match="The round's settings: "):
            jobs.start_round(ws, options, "ann")
    assert ws.ledger.jobs.newest() is None
    assert jobs.option_faults(ws, {"selection": {"strategy": "entropy"}}) == {}


def test_a_launch_that_fails_is_on_record(ws):
    (ws.root / "jobs").write_text("in the way")
    with pytest.raises(WorkspaceError, match="Job 1 cannot be started with its log at"):
        jobs.start_round(ws, {}, "ann")
    found = ws.ledger.jobs.state(1)
    assert found.state == "failed"
    assert "cannot be started" in found.message


def test_the_command_line_lists_and_cancels(ws, capsys):
    assert run(["jobs", str(ws.root)]) == 0
    assert "No round of" in capsys.readouterr().out
    assert run(["jobs", "cancel", str(ws.root)]) == 2
    assert "there is nothing to cancel" in capsys.readouterr().err
    jobs.start_round(ws, {"recipe": LONG}, "ann")
    training(ws, 1)
    assert run(["jobs", "cancel", str(ws.root)]) == 0
    assert "Asked job 1 to stop (process " in capsys.readouterr().out
    over(ws, 1)
    assert run(["jobs", str(ws.root), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["job"], found["state"], found["by"], found["round"]) == (1, "cancelled", "ann", 2)
    assert run(["jobs", "list", str(ws.root)]) == 0
    assert "cancelled" in capsys.readouterr().out


def test_a_job_that_nobody_asked_for_is_one_sentence(ws, capsys):
    assert run(["round", str(ws.root), "--job", "7"]) == 2
    assert "There is no job 7 in this workspace" in capsys.readouterr().err


def test_an_address_that_is_none_is_refused():
    assert jobs.launcher("") is jobs.launch_here
    with pytest.raises(ConfigError, match="--jobs 'cluster' is not usable"):
        jobs.launcher("cluster")
