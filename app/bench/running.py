"""The arms of a study, one after the other here or several at a time in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from app import show
from app.bench import tables
from app.bench.arm import order_for
from app.bench.rows import Row, rows_of
from app.bench.study import Found, Run, Study, check, runs
from app.rooms import archive_room
from ssl_core.arm_runs import run_arm
from ssl_core.arms import arm_finished
from ssl_core.errors import ReadloopError, TrainingError
from ssl_core.progress import Report, silent
from ssl_core.records import METRICS
from ssl_core.training.predict import choose_device

Outcome = tuple[Run, list[Found] | str]
"""A run with what was found, or with the sentence that says why nothing was."""


def run_study(
    study: Study,
    out: Path,
    *,
    report: Report = silent,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Run every arm that is not finished, and save the table after each of them.

    Finished arms are only read. `say` is told of each other arm, when it is done.

    Raises:
        ConfigError: the study cannot be run as asked; nothing was written.
        TrainingError: some arms failed; the table holds the others.
    """
    check(study)
    asked = runs(study, out, report)
    done = [run for run in asked if arm_finished(run.workspace, run.arm)]
    waiting = [run for run in asked if run not in done]
    found = [cell for run in done for cell in collect(run)]
    tables.save(study, out, found)
    failed: list[str] = []
    few = study.jobs == 1 or len(waiting) < 2
    warm = {cache for run in done for cache in run.caches}
    work = _here(waiting, report) if few else _beside(waiting, study.jobs, warm)
    for count, (run, outcome) in enumerate(work, start=len(done) + 1):
        if isinstance(outcome, str):
            failed.append(outcome)
        else:
            found += outcome
            tables.save(study, out, found)
        say(f"{count} of {len(asked)}: {_line(run, outcome)}")
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(asked)} arms failed and are not in {out / study.name}.md; the "
            f"first said: {failed[0]}"
        )
    return rows_of(study, found)


def arms_at_a_time(device: str) -> int:
    """One for each core, since a small network's step gains little from a second; 1 on a GPU."""
    return _cores() if choose_device(device) == "cpu" else 1


def collect(run: Run, report: Report = silent) -> list[Found]:
    """The cells of a run that the study asked for; computed where they are not finished."""
    cells = run_arm(run.workspace, archive_room, run.arm, report)
    return [Found(run, cell, evidence) for cell, evidence in cells if cell.budget in run.asked]


def _line(run: Run, outcome: list[Found] | str) -> str:
    name = f"{run.data} {run.split}, {run.variant}, seed {run.arm.seed}"
    if isinstance(outcome, str):
        return f"{name} failed: {outcome}"
    values = (f"{show.number(_last(f))} at {f.cell.budget:,} labels" for f in outcome)
    seconds = sum(f.cell.seconds for f in outcome)
    metric = METRICS[run.workspace.ledger.task.metric]
    return f"{name}: {metric} {', '.join(values)} ({show.duration(seconds)})"


def _last(found: Found) -> float:
    student = list(found.cell.stages.values())[-1]
    return student[found.run.workspace.ledger.task.metric].value


def _here(waiting: Iterable[Run], report: Report) -> Iterator[Outcome]:
    for run in waiting:
        yield _collected(run, report)


def _collected(run: Run, report: Report = silent) -> Outcome:
    try:
        return run, collect(run, report)
    except ReadloopError as error:  # the other arms can still be run
        return run, str(error)


@dataclass(frozen=True, slots=True)
class _Child:
    run: Run
    process: subprocess.Popen[str]
    said: IO[str]

    def sentence(self) -> str:
        """What it said before it failed; "" if it did not."""
        code = self.process.wait()
        self.said.seek(0)
        lines = self.said.read().strip().splitlines()
        return "" if code == 0 else (lines[-1] if lines else f"its process ended with {code}.")


def _beside(waiting: list[Run], jobs: int, warm: set[tuple[Path, str]]) -> Iterator[Outcome]:
    """As many at a time as there are jobs; what arms share is computed by the first of them.

    warm: what earlier runs have computed.
    """
    waiting, busy, warm = list(waiting), list[_Child](), set(warm)
    try:
        while waiting or busy:
            while len(busy) < jobs and (run := _startable(waiting, busy, warm)) is not None:
                waiting.remove(run)
                busy.append(_start(run, jobs))
            child = _ended(busy)
            busy.remove(child)
            sentence = child.sentence()
            warm |= set() if sentence else child.run.caches
            yield (child.run, sentence) if sentence else _collected(child.run)
    finally:
        for child in busy:
            child.process.terminate()
        for child in busy:
            child.process.wait()


def _startable(waiting: list[Run], busy: list[_Child], warm: set[tuple[Path, str]]) -> Run | None:
    """The first that would not compute what a running one is computing."""
    being_made = {cache for child in busy for cache in child.run.caches} - warm
    return next((run for run in waiting if not run.caches & being_made), None)


def _start(run: Run, jobs: int) -> _Child:
    threads = str(max(1, _cores() // jobs))
    said = TemporaryFile("w+")  # noqa: SIM115 (the child's; a pipe would fill up unread)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "app.bench.arm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended already, and what it said tells why
        process.stdin.write(order_for(run.workspace, run.arm) + "\n")
        process.stdin.flush()
    return _Child(run, process, said)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ended(busy: list[_Child]) -> _Child:
    while True:
        for child in busy:
            if child.process.poll() is not None:
                return child
        time.sleep(0.1)
