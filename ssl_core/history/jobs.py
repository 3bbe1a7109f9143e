"""Jobs: rounds that run in a process of their own, as the ledger sees them.

Who asks writes a job; the process that runs it writes events: that it started, a heartbeat, its
progress, its end. Whether a job lives follows from those and the time; nothing is ever changed.

All times are of one clock, the database's: PostgreSQL's own, whatever machines share it. SQLite
has none but that of the machine that writes, and one file is written on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select

from ssl_core.errors import Replaced, WorkspaceError
from ssl_core.history import database, round_events, schema
from ssl_core.job_progress import Curve, Note, curves_of, step_of
from ssl_core.job_states import (
    ENDS,
    KINDS,
    LIVE,
    End,
    Event,
    Job,
    JobKind,
    JobState,
    seen,
    state_of,
)

Clock = Callable[[Connection], datetime]


def database_clock(connection: Connection) -> datetime:
    """The database's time, in UTC."""
    if connection.dialect.name == "postgresql":
        found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return found.astimezone(UTC)
    return datetime.now(UTC)


class JobLog:
    """Jobs and their events, append-only; `Ledger.jobs` is one.

    Safe to use from several threads, processes and machines at once. Every method raises
    `LedgerError` when the database cannot be reached, read or written.
    """

    def __init__(self, engine: Engine, clock: Clock = database_clock) -> None:
        self._engine = engine
        self._clock = clock

    # For whoever asks and watches

    def ask(self, kind: JobKind, options: Mapping[str, Any], by: str) -> tuple[Job, bool]:
        """Ask for a job; returns it, and whether it is new.

        While one lives, that one is returned and nothing is written: of two that ask at once,
        one gets a new job, and only that one is to launch it.
        """
        with database.writing(self._engine) as connection:
            before = self._newest(connection)
            if before is not None and before.lives:
                return before.job, False
            open_round = round_events.latest(connection)
            goes_on = open_round > 0 and not round_events.is_finished(connection, open_round)
            job = Job(
                id=before.job.id + 1 if before else 1,
                kind=kind,
                options=dict(options),
                by=by,
                at=datetime.fromisoformat(_text(self._clock(connection))),
                resumes=before.job.id if before and before.can_be_resumed and goes_on else None,
            )
            connection.execute(insert(schema.jobs), _row(job))
        return job, True

    def state(self, job_id: int) -> JobState:
        """A job as it stands. Raises `WorkspaceError` if there is none of this number."""
        with database.reading(self._engine) as connection:
            return self._state(connection, job_id)

    def newest(self) -> JobState | None:
        """The job that was asked for last; None before the first."""
        with database.reading(self._engine) as connection:
            return self._newest(connection)

    def history(self, limit: int = 100) -> list[JobState]:
        """The newest jobs as they stand, newest first."""
        with database.reading(self._engine) as connection:
            newest = _newest_id(connection)
            return [self._state(connection, n) for n in range(newest, max(newest - limit, 0), -1)]

    def curves(self, job_id: int) -> list[Curve]:
        """How the stages of a job's round trained, with what the jobs that it resumes had done."""
        chain: list[int] = []
        with database.reading(self._engine) as connection:
            following: int | None = self._state(connection, job_id).job.id
            while following is not None:
                chain.append(following)
                following = _job(connection, following).resumes
            table = schema.job_events
            told = table.c.job.in_(chain) & (table.c.kind == "curve")
            rows = connection.scalars(select(table.c.detail).where(told).order_by(table.c.seq))
            return curves_of(json.loads(row) for row in rows)

    def request_cancel(self, job_id: int, by: str) -> None:
        """Ask a job to stop; it does within a few seconds, and its round can be resumed.

        Raises `WorkspaceError` if it does not live.
        """
        with database.writing(self._engine) as connection:
            state = self._state(connection, job_id).state
            if state not in LIVE:
                raise WorkspaceError(f"Job {job_id} is {state}: there is nothing to cancel.")
            if state != "cancelling":
                self._append(connection, job_id, "cancel_requested", {"by": by})

    # For the process that runs the job

    def start(self, job_id: int, place: str) -> Job:
        """Claim a job for this process; `place` says to people where that runs.

        Raises `WorkspaceError` if there is no such job or another process has claimed it, and
        `Replaced` if it is over or another job has taken its place.
        """
        with database.writing(self._engine) as connection:
            found = self._state(connection, job_id)
            refuse_over(connection, job_id)
            if found.started_at is not None:
                raise WorkspaceError(
                    f"Job {job_id} was started already ({found.place}): start another round."
                )
            self._append(connection, job_id, "started", {"place": place})
        return found.job

    def beat(self, job_id: int, notes: Iterable[Note] = ()) -> bool:
        """Say that the process lives, and what it came to; returns whether it is to stop.

        Any of `notes` stands for the beat. Raises `Replaced` if the job is over, or if another
        has taken its place since it was taken for dead (the machine slept, or was cut off).
        """
        with database.writing(self._engine) as connection:
            refuse_over(connection, job_id)
            for kind, detail in list(notes) or [("beat", {})]:
                self._append(connection, job_id, kind, detail)
            return "cancel_requested" in _events(connection, job_id)

    def is_to_stop(self, job_id: int) -> bool:
        """Whether the job was asked to stop; as `beat`, without writing."""
        with database.reading(self._engine) as connection:
            refuse_over(connection, job_id)
            return "cancel_requested" in _events(connection, job_id)

    def finish(self, job_id: int, end: End, round_: int | None = None, message: str = "") -> None:
        """Say how the job ended. Raises `Replaced` as `beat` does."""
        with database.writing(self._engine) as connection:
            refuse_over(connection, job_id)
            self._append(connection, job_id, end, {"round": round_, "message": message})

    def fence(self, job_id: int) -> None:
        """Let this ledger be written only as long as the job is not over and not replaced.

        Every later write through the same `Ledger` raises `Replaced` otherwise: a process that
        slept while another took its place cannot add to the history, not even once.
        """
        database.put_fence(self._engine, lambda connection: refuse_over(connection, job_id))

    def _append(
        self, connection: Connection, job_id: int, kind: str, detail: Mapping[str, Any]
    ) -> None:
        at = _text(self._clock(connection))
        row = {"job": job_id, "kind": kind, "detail": json.dumps(detail), "at": at}
        connection.execute(insert(schema.job_events), row)

    def _newest(self, connection: Connection) -> JobState | None:
        newest = _newest_id(connection)
        return self._state(connection, newest) if newest else None

    def _state(self, connection: Connection, job_id: int) -> JobState:
        job, events = _job(connection, job_id), _events(connection, job_id)
        now = self._clock(connection)
        replaced = _newest_id(connection) > job_id
        end = next((events[kind] for kind in ENDS if kind in events), None)
        started, told = events.get("started"), events.get("progress")
        return JobState(
            job=job,
            state=state_of(events, job.at, now, replaced=replaced),
            now=now,
            seen_at=seen(events, job.at),
            started_at=started.at if started else None,
            ended_at=end.at if end else None,
            place=started.detail["place"] if started else "",
            round=end.detail["round"] if end else None,
            message=end.detail["message"] if end else "",
            step=step_of(told.detail) if told else None,
        )


def refuse_over(connection: Connection, job_id: int) -> None:
    """Raise `Replaced` unless the job may still write."""
    newest = _newest_id(connection)
    if newest > job_id:
        raise Replaced(
            f"Job {job_id} was silent for so long that job {newest} has taken its place: "
            "this one stops."
        )
    over = next((kind for kind in ENDS if kind in _events(connection, job_id)), None)
    if over:
        raise Replaced(f"Job {job_id} is {over} and writes nothing more: start another round.")


def _newest_id(connection: Connection) -> int:
    found: int | None = connection.scalar(select(func.max(schema.jobs.c.id)))
    return found or 0


def _job(connection: Connection, job_id: int) -> Job:
    table = schema.jobs
    row = connection.execute(select(table).where(table.c.id == job_id)).first()
    if row is None:
        raise WorkspaceError(
            f"There is no job {job_id} in this workspace: `readloop jobs` lists them."
        )
    options, at = json.loads(row.options), datetime.fromisoformat(row.at)
    return Job(row.id, row.kind, options, row.asked_by, at, row.resumes)


def _events(connection: Connection, job_id: int) -> dict[str, Event]:
    """The newest event of each kind."""
    table = schema.job_events
    newest = [
        select(func.max(table.c.seq)).filter_by(job=job_id, kind=kind).scalar_subquery()
        for kind in KINDS
    ]
    seqs = [seq for seq in connection.execute(select(*newest)).one() if seq is not None]
    rows = connection.execute(select(table).where(table.c.seq.in_(seqs)))
    return {
        row.kind: Event(row.kind, datetime.fromisoformat(row.at), json.loads(row.detail))
        for row in rows
    }


def _row(job: Job) -> dict[str, object]:
    options = json.dumps(job.options, sort_keys=True)
    at = _text(job.at)
    return {
        "id": job.id,
        "kind": job.kind,
        "options": options,
        "asked_by": job.by,
        "resumes": job.resumes,
        "at": at,
    }


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
