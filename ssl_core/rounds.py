"""The only loop: `run_round()` trains, measures, selects and asks, and can be killed anywhere.

A round is a list of stages. A stage reads what it needs from the ledger and from files that the
ledger names, and ends with one transaction that says that it is done and what it made. So a round
that was killed goes on with the first stage that is not in the ledger, and within a training stage
with its checkpoint; randomness is derived from the round's seed and the stage's name. The result
is that of a round that was never killed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from ssl_core.errors import WorkspaceError
from ssl_core.evaluation import evaluate_stage
from ssl_core.made import Made
from ssl_core.mask_evaluation import evaluate_masks_stage
from ssl_core.mask_work import fit_masks_stage, pseudo_masks_stage
from ssl_core.pictures.maps import forget_pieces, map_round
from ssl_core.preflight import check_settings, check_task
from ssl_core.progress import Progress, Report, silent
from ssl_core.readers import reading
from ssl_core.recipes import Fit, FitMasks, Pretrain, PseudoLabel, PseudoMasks, plan
from ssl_core.recipes import Stage as Stage_
from ssl_core.records import CONTROL, Round, Stage
from ssl_core.shadow import shadow_of, spared
from ssl_core.source import ReadingRoom
from ssl_core.training.distributed import barrier, check_devices, is_main
from ssl_core.training.predict import choose_device
from ssl_core.turn import Turn, can_teach, replay
from ssl_core.work import fit_stage, pretrain_stage, pseudo_label_stage, select_stage
from ssl_core.workspace import Workspace, one_process, part


def run_round(
    workspace: Workspace,
    room: ReadingRoom | None,
    *,
    query_size: int | None = None,
    resume: bool = False,
    report: Report = silent,
) -> int:
    """Run the next round, or with `resume` finish the one that was interrupted.

    What the room's readers have answered is taken in first. Until the training labels hold two
    sides of a finding there is nothing to learn, and the round only selects, from features (a cold
    start). Otherwise the recipe's stages train, the models are measured on validation and, one
    counted look, on the vault; then the next query is drawn and put in front of the readers. Now
    and then the recipe is also trained on the random labels alone, as control (see `shadow`).

    Args:
        workspace: an open workspace; no other process may run a round in it.
        room: where answers come from and questions go; None takes the labels as they are in the
            ledger and asks nobody (`reading.queue` and `reading.sync` do that at another time).
        query_size: how many items to ask for; None takes the configuration's; 0 asks for none.
        resume: go on with an unfinished round. Its configuration is the one it was opened with.
        report: told of progress; it may raise `Cancelled`.

    Returns:
        The round's number.

    Raises:
        WorkspaceError: another process runs a round, or an unfinished round is in the way (or,
            with `resume`, there is none).
        ConfigError: the settings cannot be used; no round was opened.
        TrainingError: the training diverged.
    """
    with _one_at_a_time(workspace):
        turn = _begin(workspace, room, query_size, resume, report)
        ledger = workspace.ledger
        done = {stage.name for stage in ledger.stages(turn.round.number)}
        barrier()  # the first stage must not end before all have read which ones are done
        for position, (name, kind, work) in enumerate(_stages(turn)):
            report(Progress(name, 0, 0))
            if name not in done:
                _run_stage(turn, position, name, kind, work)
        number = turn.round.number
        mapped = map_round(turn)
        if is_main():
            end = {"labels": ledger.label_counts(number), **mapped}
            ledger.finish_round(number, json.dumps(end))
            shutil.rmtree(turn.folder / "checkpoints", ignore_errors=True)
            if room is not None:
                reading.queue(workspace, room)
        barrier()
        return number


def unfinished(workspace: Workspace) -> Round | None:
    """The round that was opened and not finished, if there is one."""
    rounds = workspace.ledger.rounds()
    return rounds[-1] if rounds and not workspace.ledger.finished(rounds[-1].number) else None


def abandon_round(workspace: Workspace) -> int:
    """Close the interrupted round as it stands, and return its number.

    For a round that cannot end, as one whose training diverges: it keeps the settings that it was
    opened with, so mending them helps the next one only. What its stages made stays on record.

    Raises:
        WorkspaceError: another process runs a round, or none was interrupted.
    """
    with _one_at_a_time(workspace):
        pending = unfinished(workspace)
        if pending is None:
            raise WorkspaceError("There is no interrupted round to give up: leave --abandon out.")
        workspace.ledger.finish_round(pending.number, json.dumps({"abandoned": True}))
        folder = workspace.round_folder(pending.number)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        forget_pieces(folder)
        return pending.number


def _one_at_a_time(workspace: Workspace) -> AbstractContextManager[None]:
    return one_process(workspace.root, "running a round in") if is_main() else nullcontext()


def _begin(
    workspace: Workspace,
    room: ReadingRoom | None,
    query_size: int | None,
    resume: bool,
    report: Report,
) -> Turn:
    pending = unfinished(workspace)
    if pending and not resume:
        raise WorkspaceError(
            f"Round {pending.number} was interrupted: finish it with `readloop round --resume`, "
            "or give it up with --abandon."
        )
    if resume and not pending:
        raise WorkspaceError("There is no interrupted round to resume: leave --resume out.")
    check_devices(choose_device(workspace.config.compute.device))  # every process, or some wait
    barrier()
    if pending is None and is_main():
        check_task(workspace.ledger.task, workspace.config)
        check_settings(workspace.config, len(workspace.ledger.task.findings))
        if room is not None:
            reading.queue(workspace, room)  # mends a push that was cut off after the last round
            reading.sync(workspace, room)
        workspace.ledger.open_round(_next_round(workspace, query_size))
    barrier()
    return replay(workspace, workspace.ledger.rounds()[-1], report)


def _next_round(workspace: Workspace, query_size: int | None) -> Round:
    config, ledger = workspace.config, workspace.ledger
    if query_size:  # a configuration cannot say 0; the round itself holds that
        config = config.changed(selection={"query_size": query_size})
    items, findings = ledger.items("train"), ledger.task.findings
    number = len(ledger.rounds()) + 1
    size = config.selection.query_size if query_size is None else query_size
    out = ledger.reading.unusable()
    usable = [item for item in items if item.id not in out]
    train = part(usable, ledger.labels(), findings, workspace.images)
    trained = can_teach(train.labels, ledger.task)
    strategy = config.selection.strategy if trained else config.selection.cold_start
    recipe = plan(config.recipe).name
    return Round(number, config.seed, min(size, len(items)), strategy, recipe, config.to_json())


_Stages = list[tuple[str, str, Callable[[], Made]]]


def _stages(turn: Turn) -> _Stages:
    """Name, kind and work of every stage, in order."""
    stages: _Stages = []
    if turn.trains:
        stages += _recipe_stages(turn)
        if (control := shadow_of(turn)) is not None:
            known = {name for name, _, _ in stages}  # what is learned without labels is shared
            stages += [
                (name, CONTROL, partial(spared, control, work))
                for name, _, work in _recipe_stages(control)
                if name not in known
            ]
        measure = evaluate_masks_stage if turn.segmentation else evaluate_stage
        stages.append(("evaluate", "evaluate", partial(measure, turn)))
    if turn.round.query_size:
        stages.append(("select", "select", partial(select_stage, turn)))
    return stages


WORK: dict[type[Stage_], tuple[str, Callable[[Turn, Any], Made]]] = {
    Fit: ("fit", fit_stage),
    Pretrain: ("pretrain", pretrain_stage),
    PseudoLabel: ("pseudo-label", pseudo_label_stage),
    FitMasks: ("fit", fit_masks_stage),
    PseudoMasks: ("pseudo-label", pseudo_masks_stage),
}
"""What the ledger calls each type of a recipe's stages, and what does its work."""


def _recipe_stages(turn: Turn) -> _Stages:
    found = ((stage, *WORK[type(stage)]) for stage in turn.plan.stages)
    return [(stage.name, kind, partial(work, turn, stage)) for stage, kind, work in found]


def _run_stage(turn: Turn, position: int, name: str, kind: str, work: Callable[[], Made]) -> None:
    began = time.monotonic()
    made = work()
    if is_main():
        detail = json.dumps(made.pop("detail"), sort_keys=True)
        seconds = time.monotonic() - began
        row = Stage(turn.round.number, position, name, kind, detail, seconds)
        turn.workspace.ledger.add_stage(row, **made)
    barrier()
