"""From a round's many reports to the few rows that a page needs: throttling, curves, time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from ssl_core.progress import Progress
from ssl_core.records import Stage

Note = tuple[str, dict[str, Any]]  # the kind of a job's event ("progress" or "curve"), its detail


@dataclass(frozen=True, slots=True)
class Step:
    """Where a job stands.

    `part` is the round's stage; `stage` the work within it ("score the pool"), often the same.
    `done` of `total` steps of `stage` (0 of 0: unknown) took `seconds` since the job began with
    it at step `first`; `part_seconds` is how long `part` has been running. `epoch` of at most
    `epochs` are over (0 of 0: no training); `loss` and `auroc` are the last one's, or NaN.
    """

    stage: str
    done: int
    total: int
    note: str
    part: str
    part_seconds: float
    first: int
    seconds: float
    epoch: int
    epochs: int
    loss: float
    auroc: float

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `stage` is over at the pace so far; None while unknown.

        Training that stops early, for want of patience, is over sooner.
        """
        gone = self.done - self.first
        if gone <= 0 or self.total <= 0:
            return None
        return max(self.total - self.done, 0) * self.seconds / gone


@dataclass(frozen=True, slots=True)
class Point:
    """One epoch of a training curve, counted from 1; `auroc` is NaN where nothing was measured."""

    epoch: int
    loss: float
    auroc: float


@dataclass(frozen=True, slots=True)
class Curve:
    """How one stage trained: its epochs so far, of at most `epochs`."""

    stage: str
    epochs: int
    points: tuple[Point, ...]


@dataclass
class _Stage:
    """The stage that reports now: when it began to count steps, at which, and the epochs told."""

    name: str
    began: float
    first: int = -1
    told: int = 0


class Throttle:
    """Keeps the newest report of each stage, and every epoch's point, until they are taken.

    `add` is called by the work, often; `take` by whoever writes, as often as rows may be written:
    the last report of a stage is never lost, and no epoch is. Safe to use from two threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Count by `clock`, in seconds."""
        self._clock = clock
        self._lock = Lock()
        self._notes: list[Note] = []
        self._last: dict[str, Any] | None = None
        self._stage = _Stage("", 0.0)
        self._part = ("", 0.0)

    def add(self, event: Progress) -> None:
        """Hear one report."""
        now = self._clock()
        with self._lock:
            if event.done == event.total == 0 or not self._part[0]:
                self._part = (event.stage, now)
            if self._stage.name != event.stage:
                self._put_last()
                self._stage = _Stage(event.stage, now)
            stage = self._stage
            if event.total and not 0 <= stage.first <= event.done:
                stage.began, stage.first = now, event.done
            if event.epoch > stage.told:
                self._note_points(event, stage.told)
                stage.told = event.epoch
            self._last = self._detail(event, now)

    def take(self) -> list[Note]:
        """What is to be written now, oldest first; empty when nothing was heard since."""
        with self._lock:
            self._put_last()
            notes, self._notes = self._notes, []
            return notes

    def _put_last(self) -> None:
        if self._last is not None:
            self._notes.append(("progress", self._last))
            self._last = None

    def _note_points(self, event: Progress, told: int) -> None:
        new = enumerate(event.history[told:], told + 1)
        points = [[epoch, _or_none(loss), _or_none(auroc)] for epoch, (loss, auroc) in new]
        for kind, detail in self._notes:
            if kind == "curve" and detail["stage"] == event.stage:
                detail["points"] += points
                return
        curve = {"stage": event.stage, "epochs": event.epochs, "points": points}
        self._notes.append(("curve", curve))

    def _detail(self, event: Progress, now: float) -> dict[str, Any]:
        part, began = self._part
        step = Step(
            stage=event.stage,
            done=event.done,
            total=event.total,
            note=event.note,
            part=part,
            part_seconds=round(now - began, 3),
            first=max(self._stage.first, 0),
            seconds=round(now - self._stage.began, 3),
            epoch=event.epoch,
            epochs=event.epochs,
            loss=event.loss,
            auroc=event.auroc,
        )
        return {name: _or_none(value) for name, value in asdict(step).items()}


def step_of(detail: Mapping[str, Any]) -> Step:
    """The step that the detail of a "progress" event holds."""
    return Step(**{**detail, "loss": _number(detail["loss"]), "auroc": _number(detail["auroc"])})


def curves_of(details: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """The curves in the details of "curve" events, oldest first: the newest word on an epoch holds.

    A stage that a later job began anew (its checkpoint was lost) begins anew here.
    """
    points: dict[str, dict[int, Point]] = {}
    epochs: dict[str, int] = {}
    for detail in details:
        stage = detail["stage"]
        epochs[stage] = detail["epochs"]
        held = points.setdefault(stage, {})
        for epoch, loss, auroc in detail["points"]:
            if epoch == 1:
                held.clear()
            held[epoch] = Point(epoch, _number(loss), _number(auroc))
    return [
        Curve(stage, epochs[stage], tuple(held[n] for n in sorted(held)))
        for stage, held in points.items()
    ]


def round_seconds_left(step: Step, earlier: Sequence[Stage]) -> float | None:
    """Seconds until the round is over, by what the stages of an earlier round took.

    The stage that runs is told by its own pace where that is known. None where the earlier round
    had no such stage.
    """
    names = [stage.name for stage in earlier]
    if step.part not in names:
        return None
    position = names.index(step.part)
    following = sum(stage.seconds for stage in earlier[position + 1 :])
    own = step.seconds_left if step.stage == step.part else None
    if own is None:
        own = max(earlier[position].seconds - step.part_seconds, 0.0)
    return own + following


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
