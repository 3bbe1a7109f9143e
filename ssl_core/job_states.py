"""What a job is, and what its events say about it: plain records and pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ssl_core.job_progress import Step

BEAT_SECONDS = 5.0  # a process writes something at least this often
DEAD_SECONDS = 25.0  # one that wrote nothing for longer is taken for dead

JobKind = Literal["round"]
End = Literal["finished", "failed", "cancelled"]
State = Literal["asked", "running", "cancelling", "finished", "failed", "cancelled", "dead"]
LIVE: tuple[State, ...] = ("asked", "running", "cancelling")
ENDS: tuple[End, ...] = ("finished", "failed", "cancelled")
SIGNS = ("started", "beat", "progress", "curve")  # events that only a living process writes
KINDS = (*SIGNS, "cancel_requested", *ENDS)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was asked for.

    `options` are the settings that differ from the workspace's configuration, by table (see
    `round_options`). `resumes` is the job whose round this one goes on with; None for none.
    """

    id: int
    kind: JobKind
    options: Mapping[str, Any]
    by: str
    at: datetime
    resumes: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job; `detail` is plain data."""

    kind: str
    at: datetime
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobState:
    """A job and what has become of it by `now`.

    `seen_at` is the last sign of life. `place` says where it runs ("process 71 on alder"), once
    it started; `round` is its round's number, once it ended; `message` is one sentence about a
    job that failed or was cancelled. `step` is None until the first report.
    """

    job: Job
    state: State
    now: datetime
    seen_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    place: str = ""
    round: int | None = None
    message: str = ""
    step: Step | None = None

    @property
    def lives(self) -> bool:
        """Whether it is asked for, running or cancelling."""
        return self.state in LIVE

    @property
    def can_be_resumed(self) -> bool:
        """Whether it ended before its work did, so that a new job would go on with it."""
        return self.state in ("dead", "failed", "cancelled")


def state_of(events: Mapping[str, Event], at: datetime, now: datetime, *, replaced: bool) -> State:
    """The state of a job from its newest event of each kind.

    Args:
        events: by kind.
        at: when it was asked for.
        now: of the same clock.
        replaced: a later job was asked for, which happens only when this one was over or dead.
    """
    for end in ENDS:
        if end in events:
            return end
    if replaced or (now - seen(events, at)).total_seconds() > DEAD_SECONDS:
        return "dead"
    if "cancel_requested" in events:
        return "cancelling"
    return "running" if "started" in events else "asked"


def seen(events: Mapping[str, Event], at: datetime) -> datetime:
    """The last sign of life; of a job that shows none, when it was asked for."""
    return max([at, *(events[kind].at for kind in SIGNS if kind in events)])
