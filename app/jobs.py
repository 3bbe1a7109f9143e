"""Starting rounds as jobs: asked for in the ledger, run by the command line in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from app.ray_jobs import dashboard_of, launch_on_ray
from ssl_core.errors import Cancelled, ConfigError, ReadloopError, WorkspaceError
from ssl_core.job_states import Job, JobState
from ssl_core.round_options import Options, differing, field_faults, round_faults, with_options
from ssl_core.rounds import unfinished
from ssl_core.workspace import Workspace

TAIL_BYTES = 1 << 18

Launch = Callable[[Path, int], None]
"""Sets off the process of a job, given the workspace's folder and the job's number, and returns.

Raises `ReadloopError` if there will be no process.
"""


def start_round(ws: Workspace, options: Options, by: str, launch: Launch | None = None) -> Job:
    """Start the next round, or go on with the interrupted one, in a process of its own.

    The process outlives this one. While a job lives, that job is returned and none is started:
    two starts at once give one. An interrupted round keeps the settings that it was opened with.

    Args:
        ws: an open workspace.
        options: settings for this round alone, by table (see `round_options`).
        by: who asks, for the history.
        launch: how (see `launcher`); None starts it on this machine.

    Raises:
        ConfigError: the settings cannot be used, or are of no use to an interrupted round.
        WorkspaceError: the process cannot be started; the job stands in the history as failed.
    """
    newest = ws.ledger.jobs.newest()
    if newest is not None and newest.lives:
        return newest.job
    launch = launch or launch_here
    _check(ws, options, here=launch is launch_here)
    wanted = differing(ws.config, with_options(ws.config, options))
    job, new = ws.ledger.jobs.ask("round", wanted, by)
    if new:
        try:
            launch(ws.root.resolve(), job.id)
        except ReadloopError as error:
            with suppress(Cancelled):  # it took so long that another job was started
                ws.ledger.jobs.finish(job.id, "failed", message=str(error))
            raise
    return job


def cancel(ws: Workspace, by: str) -> JobState:
    """Ask the job that lives to stop. Raises `WorkspaceError` if none does."""
    newest = ws.ledger.jobs.newest()
    if newest is None or not newest.lives:
        raise WorkspaceError(f"No job runs in {ws.root}: there is nothing to cancel.")
    ws.ledger.jobs.request_cancel(newest.job.id, by)
    return ws.ledger.jobs.state(newest.job.id)


def option_faults(ws: Workspace, options: Options) -> dict[str, str]:
    """What a form is to show: one sentence for each dotted field that cannot be used.

    Settings that are refused as a whole stand under "".
    """
    pending = unfinished(ws)
    if pending is not None and options:
        return {"": _keeps(pending.number)}
    return round_faults(ws.config, options, len(ws.ledger.task.findings))


def launcher(address: str) -> Launch:
    """The launcher for an address: "" for this machine, ray://… or http://… for a Ray cluster.

    A ray:// address takes seconds, since the cluster is asked for its dashboard: call this once.
    Raises `ConfigError` for anything else, and `WorkspaceError` if that cluster does not answer.
    """
    if not address:
        return launch_here
    if address.startswith(("ray://", "http://", "https://")):
        return partial(launch_on_ray, dashboard_of(address), command)
    raise ConfigError(
        f"--jobs {address!r} is not usable: give ray://HOST:PORT, or the address of the cluster's "
        "dashboard, as http://HOST:8265."
    )


def command(root: Path, job_id: int) -> list[str]:
    """The command line of a job. Secrets are not in it: they stay in the environment."""
    # -P: a folder "app" where this process happens to run is not this program.
    python = [sys.executable, "-P", "-m", "app.cli"]
    return [*python, "round", str(root), "--job", str(job_id)]


def launch_here(root: Path, job_id: int) -> None:
    """Start a job as a process of a session of its own: no page, app or terminal takes it along."""
    path = log_path(root, job_id)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as log:
            process = subprocess.Popen(
                command(root, job_id),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise WorkspaceError(
            f"Job {job_id} cannot be started with its log at {path} ({error.strerror}): check the "
            "folder and the disk."
        ) from None
    Thread(target=process.wait, daemon=True).start()  # else an ended one would stay a zombie


def log_path(root: Path, job_id: int) -> Path:
    """Where a job's process writes what it says."""
    return root / "jobs" / f"{job_id}.log"


def log_tail(root: Path, job_id: int, lines: int = 200) -> list[str]:
    """The last lines of a job's log, oldest first; none while there is no log."""
    try:
        with log_path(root, job_id).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def facts(found: JobState) -> dict[str, Any]:
    """A job as plain data, for programs."""
    step = found.step
    return {
        "job": found.job.id,
        "kind": found.job.kind,
        "state": found.state,
        "options": dict(found.job.options),
        "by": found.job.by,
        "resumes": found.job.resumes,
        "asked_at": found.job.at.isoformat(),
        "started_at": found.started_at.isoformat() if found.started_at else None,
        "seen_at": found.seen_at.isoformat(),
        "ended_at": found.ended_at.isoformat() if found.ended_at else None,
        "place": found.place,
        "round": found.round,
        "message": found.message,
        "stage": step.stage if step else None,
        "done": step.done if step else None,
        "total": step.total if step else None,
        "seconds_left": step.seconds_left if step else None,
    }


def _check(ws: Workspace, options: Options, *, here: bool) -> None:
    pending = unfinished(ws)
    if pending is not None and options:
        raise ConfigError(_keeps(pending.number))
    # Another machine may have the device or the weights that this one lacks: the job itself looks.
    findings = len(ws.ledger.task.findings)
    found = (
        round_faults(ws.config, options, findings)
        if here and pending is None
        else field_faults(ws.config, options)
    )
    if found:
        raise ConfigError(f"The round's settings: {next(iter(found.values()))}")


def _keeps(number: int) -> str:
    return (
        f"Round {number} was interrupted and keeps the settings that it was opened with: start "
        "without new ones to finish it, or give it up first."
    )
