"""The process of a job: `readloop round W --job ID` runs a round and tells the ledger how it goes.

One thread of its own writes: the heartbeat, what was reported, the end. So training never waits
for a slow database, and a database that is away for a while costs nothing but a late heartbeat.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import NoReturn

from app.jobs import log_path
from app.rooms import simulated_room
from app.show import number
from ssl_core.config import ledger_url, load_config
from ssl_core.errors import Cancelled, LedgerError, ReadloopError, Replaced, WorkspaceError
from ssl_core.history.jobs import JobLog
from ssl_core.history.ledger import Ledger
from ssl_core.job_progress import Note, Throttle
from ssl_core.job_states import BEAT_SECONDS, DEAD_SECONDS, End, Job
from ssl_core.progress import Progress
from ssl_core.round_options import with_options
from ssl_core.rounds import run_round, unfinished
from ssl_core.workspace import CONFIG_FILE, Workspace, one_process, open_workspace

TICK_SECONDS = 1.0  # rows are not written more often
LOOK_SECONDS = 2.0  # how soon a request to stop is noticed
GRACE_SECONDS = (
    60.0  # a round that does not stop by itself is ended; it can be resumed all the same
)
LOCK_SECONDS = 60.0  # how long to wait for the process of a job that was taken for dead
END_SECONDS = 120.0  # how long to try to tell the ledger of the end


def run_job(root: Path, job_id: int) -> int:
    """Run the round that a job asks for, in this process; returns the round's number.

    It goes on with an interrupted round. A request to cancel, SIGTERM and Ctrl-C stop it as
    Ctrl-C stops a round: what was finished is kept, and the next job goes on with it.

    Raises:
        WorkspaceError: there is no such job, or another process has claimed it.
        Replaced: another job has taken this one's place.
        KeyboardInterrupt: it was cancelled; the ledger says so.
        ReadloopError: the round failed; the ledger says so.
    """
    with Ledger.open(ledger_url(load_config(root / CONFIG_FILE), root)) as ledger:
        job = ledger.jobs.start(job_id, f"process {os.getpid()} on {socket.gethostname()}")
        _log_into(log_path(root, job_id))
        pulse = Pulse(ledger.jobs, job_id)
        end: tuple[End, str] = ("failed", "It ended in a way that nobody foresaw.")
        made: int | None = None
        try:
            signal.signal(signal.SIGTERM, _as_ctrl_c)
            pulse.begin()
            made = _run(root, job, pulse)
            end = ("finished", "")
            return made
        except KeyboardInterrupt:
            end = ("cancelled", "It was stopped; what was finished is kept.")
            raise
        except Replaced as error:  # whichever thread heard it first
            end = ("cancelled", str(error))
            raise
        except Cancelled as error:
            end = ("cancelled", str(error))
            raise KeyboardInterrupt from None
        except ReadloopError as error:
            end = ("failed", str(error))
            raise
        except OSError as error:
            end = ("failed", refused_by_the_system(error))
            raise
        except BaseException as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            end = ("failed", f"{said.rstrip('.')}: see {log_path(root, job_id)}.")
            raise
        finally:
            with suppress(ValueError):  # only the main thread may; a second signal is no news
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            pulse.end(end[0], made if made is not None else _interrupted(root), end[1])


class Pulse:
    """The heartbeat of one job, and its ear: it writes from a thread of its own."""

    def __init__(self, log: JobLog, job_id: int) -> None:
        """Speak to `log`, which nothing else in this process uses at the same time."""
        self._log, self._job = log, job_id
        self._throttle, self._unsent = Throttle(), list[Note]()
        self._beaten = self._heard = time.monotonic()
        self._woken = time.time()  # the clock that runs on while the machine sleeps
        self._why: Cancelled | None = None
        self._since = 0.0
        self._over = Event()
        self._thread = Thread(target=self._live, name=f"job {job_id}", daemon=True)
        self._told = ("", 0)

    def begin(self) -> None:
        """Start beating."""
        self._thread.start()

    def report(self, event: Progress) -> None:
        """Hear of progress. Raises `Cancelled` once the job is to stop."""
        self._throttle.add(event)
        self._say(event)
        if abs(time.time() - self._woken) > DEAD_SECONDS:  # asleep, or cut off: is it still ours?
            self._woken = time.time()
            with suppress(LedgerError):
                self._hear(self._log.is_to_stop(self._job))
        if self._why:
            raise self._why

    def end(self, end: End, round_: int | None, message: str) -> None:
        """Stop beating, write what is left and the end; gives up when the ledger stays away."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            try:
                notes = [*self._unsent, *self._throttle.take()]
                self._unsent = notes
                self._log.beat(self._job, notes)
                self._log.finish(self._job, end, round_, message)
                return
            except Cancelled:
                return
            except LedgerError:
                time.sleep(TICK_SECONDS)

    def _live(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            try:
                self._turn(time.monotonic())
            except Cancelled as error:  # over or replaced
                self._stop(error)
            except LedgerError:
                continue
            if self._why and time.monotonic() - self._since > GRACE_SECONDS:
                self._end_now()

    def _turn(self, now: float) -> None:
        notes = [*self._unsent, *self._throttle.take()]
        self._unsent = _thinned(notes)  # until they are written
        if notes or now - self._beaten >= BEAT_SECONDS - TICK_SECONDS:
            self._hear(self._log.beat(self._job, notes))
            self._beaten, self._unsent = time.monotonic(), []
        elif now - self._heard >= LOOK_SECONDS - TICK_SECONDS:
            self._hear(self._log.is_to_stop(self._job))

    def _hear(self, is_to_stop: bool) -> None:
        self._heard, self._woken = time.monotonic(), time.time()
        if is_to_stop:
            self._stop(Cancelled("It was cancelled; what was finished is kept."))

    def _stop(self, why: Cancelled) -> None:
        if not self._why:
            self._since = time.monotonic()
            self._why = why

    def _end_now(self) -> NoReturn:
        """The round does not report: end the process, which a round survives at any moment."""
        with suppress(ReadloopError):
            self._log.finish(self._job, "cancelled", None, str(self._why))
        os._exit(130)

    def _say(self, event: Progress) -> None:
        """A line in the log for each stage and each epoch."""
        if (event.stage, event.epoch) == self._told:
            return
        self._told = (event.stage, event.epoch)
        line = event.stage
        if event.epoch:
            score = event.note or f"AUROC {number(event.auroc)}"  # the note has its name
            figures = f"loss {number(event.loss)}, {score}"
            line += f": epoch {event.epoch} of {event.epochs}, {figures}"
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def refused_by_the_system(error: OSError) -> str:
    """No permission, no space, a file where a folder should be: one sentence."""
    where = f"{error.filename!r} cannot be used" if error.filename else "The system refused"
    return f"{where} ({error.strerror or error}): check the path and the disk."


def _run(root: Path, job: Job, pulse: Pulse) -> int:
    ws = open_workspace(root)
    ws.ledger.jobs.fence(job.id)
    ws = replace(ws, config=with_options(ws.config, job.options))
    _wait_for_workspace(ws, job, pulse)
    pending = unfinished(ws) is not None
    return run_round(ws, simulated_room(ws), resume=pending, report=pulse.report)


def _wait_for_workspace(ws: Workspace, job: Job, pulse: Pulse) -> None:
    """Let the process of a job before this one leave: if it only slept, it notices and stops."""
    before = ws.ledger.jobs.state(job.id - 1) if job.id > 1 else None
    slept = before is not None and before.state == "dead"
    if slept:
        pulse.report(Progress(f"wait for job {job.id - 1} to leave", 0, 0))
    try:
        with one_process(ws.root, "running a round in", LOCK_SECONDS if slept else BEAT_SECONDS):
            pass
    except WorkspaceError:
        if before is None or not slept:
            raise
        raise WorkspaceError(
            f"Job {before.job.id} ({before.place}) was taken for dead and still holds {ws.root}: "
            "end that process, then start again."
        ) from None


def _interrupted(root: Path) -> int | None:
    """The number of the round that waits to be resumed, if that can be told."""
    with suppress(Exception), Ledger.open(ledger_url(load_config(root / CONFIG_FILE), root)) as own:
        rounds = own.rounds()
        if rounds and not own.finished(rounds[-1].number):
            return rounds[-1].number
    return None


def _thinned(notes: list[Note]) -> list[Note]:
    """What is worth keeping while the ledger is away: all curves, the newest step."""
    steps = [note for note in notes if note[0] == "progress"]
    return [note for note in notes if note[0] != "progress"] + steps[-1:]


def _as_ctrl_c(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough: the end must be written
    raise KeyboardInterrupt


def _log_into(path: Path) -> None:
    """Let what this process says go to the job's log, wherever it was launched."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as log:
        if os.path.sameopenfile(log.fileno(), 1):
            return
        print(f"This job's log is {path}.", flush=True)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
