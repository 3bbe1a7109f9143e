"""`readloop label-studio`, `queue`, `sync`, `reread`, `readers`: the reading room's commands."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.markup import escape

from app import show
from app.arguments import WorkspacePath
from app.mask_agreement import mask_agreement_of, mask_agreement_table
from app.reading_room import label_studio_room
from app.reading_tables import (
    agreement_table,
    effects_table,
    evidence_of,
    evidence_sentences,
    pace_table,
    readers_of,
)
from app.rooms import is_archive
from connectors.label_studio import server
from connectors.label_studio.room import LabelStudioRoom
from ssl_core.errors import ReadingRoomError, WorkspaceError
from ssl_core.readers import reading
from ssl_core.readers.reader_evidence import pace_told
from ssl_core.readers.reread_result import reread_result
from ssl_core.readers.rereads import ask_rereads, reread_sentences
from ssl_core.records import Rejection
from ssl_core.workspace import Workspace, open_workspace

RETRY_SECONDS = 60.0  # the longest wait of `sync --watch` for a server that is away

label_studio = typer.Typer(
    help="A Label Studio of the workspace's own, on this machine.", no_args_is_help=True
)


@label_studio.command()
def up(
    workspace: WorkspacePath,
    port: Annotated[int, typer.Option(help="The next free one if it is taken.")] = 8080,
) -> None:
    """Start Label Studio for a workspace, or find it running; the first time takes a minute."""
    ws = open_workspace(workspace)
    server.start(ws.root, port, report=print)
    _print_sign_in(ws)
    print(f"Next: readloop queue {workspace}")


@label_studio.command("status")
def status(workspace: WorkspacePath) -> None:
    """Whether the workspace's Label Studio runs, and where."""
    ws = open_workspace(workspace)
    if server.running(ws.root) is None:
        print(f"Label Studio does not run: readloop label-studio up {workspace}")
        return
    _print_sign_in(ws)
    for place in label_studio_room(ws).places():
        print(f"{place.reader}: {place.link}")


@label_studio.command()
def down(workspace: WorkspacePath) -> None:
    """Stop the workspace's Label Studio; what was read stays in its folder."""
    stopped = server.stop(open_workspace(workspace).root)
    print("Stopped Label Studio." if stopped else "Label Studio did not run.")


def _print_sign_in(ws: Workspace) -> None:
    known = server.sign_in(ws.root)
    if known is None:
        raise ReadingRoomError(f"Label Studio of {ws.root} has no sign-in: start it again.")
    kept = server.data_folder(ws.root) / "sign-in.json"
    print(f"Label Studio runs at {known.url} (this machine only).")
    print(f"Sign in as {known.username}; the password is in {kept}, which only you can read.")


def queue(workspace: WorkspacePath) -> None:
    """Put what was asked in front of the readers, each in a project of their own."""
    ws = open_workspace(workspace)
    with show.progress_bars() as report:
        room = label_studio_room(ws, report)
        done = reading.queue(ws, room, report=report)
        places = room.places()
    _print_remarks(room)
    print(f"Newly asked: {done.new:,}, a case that two may read counted twice.")
    for place in places:
        print(f"{place.reader}: {done.waiting.get(place.reader, 0):,} wait, {place.link}")
    if not places:
        print(f"Nothing is to be read yet: run `readloop round {workspace}`.")


def sync(
    workspace: WorkspacePath,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between looks.")] = 10.0,
    everything: Annotated[
        bool, typer.Option("--all", help="Look at every task, not only at what changed.")
    ] = False,
) -> None:
    """Take in what readers did: new, changed, deleted and skipped; running it again is harmless."""
    ws = open_workspace(workspace)
    if not watch:
        _sync_once(ws, everything)
        return
    told: list[Rejection] = []
    wait, mend = every, True
    while True:
        try:
            told = _sync_once(ws, everything, mend, told)
            wait, mend, everything = every, False, False
        except ReadingRoomError as error:
            wait, mend = min(wait * 2, max(RETRY_SECONDS, every)), True
            print(f"{error} Trying again in {wait:.0f} s.", flush=True)
        time.sleep(wait)


def _sync_once(
    ws: Workspace, everything: bool, mend: bool = True, told: list[Rejection] | None = None
) -> list[Rejection]:
    """One look; `told` are the refusals that were printed before."""
    with show.progress_bars() as report:
        room = label_studio_room(ws, report)
        came = reading.sync(ws, room, everything=everything, show=mend, report=report)
    _print_remarks(room)
    quiet = told is not None
    if came.reads or not quiet:
        print(f"New reads: {came.reads:,}.", flush=True)
    if came.adjudications:
        print(
            f"Items on which readers disagree, sent to the adjudicator: {came.adjudications:,}.",
            flush=True,
        )
    for one in came.rejections:
        if one not in (told or ()):
            show.console.print(
                f"[yellow]Not taken:[/yellow] {escape(one.place)}: {escape(one.reason)}.",
                soft_wrap=True,
            )
    return came.rejections


def _print_remarks(room: LabelStudioRoom) -> None:
    for remark in room.remarks:
        show.console.print(escape(remark), soft_wrap=True)


def readers(
    workspace: WorkspacePath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """How fast readers read, how well they agree, and what else their reads say."""
    ws = open_workspace(workspace)
    found, evidence = readers_of(ws), evidence_of(ws)
    if as_json:
        print(json.dumps({**found, "evidence": evidence}, indent=1))
        return
    show.console.print(pace_table(found))
    if found["agreement"]:
        show.console.print(agreement_table(found))
    else:
        print("No two readers have read the same item of train or validation yet.")
    if drawn := mask_agreement_of(ws):
        show.console.print(mask_agreement_table(drawn))
    print(found["truth"])
    if evidence["pace"]["effects"]:
        show.console.print(effects_table(evidence))
    for sentence in evidence_sentences(evidence):
        show.console.print(escape(sentence), soft_wrap=True)


def reread(
    workspace: WorkspacePath,
    limit: Annotated[int, typer.Option(min=1, help="Contradictions, each with a control.")] = 20,
    least: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="How sure the model is of the opposite.")
    ] = 0.8,
) -> None:
    """Ask again, blind, where readers contradict a confident model: others, or a lone reader."""
    ws = open_workspace(workspace)
    if is_archive(ws):
        raise WorkspaceError(
            f"In {ws.root} a simulated reader answers, who would say the same again: nothing is "
            "to be re-read."
        )
    with show.progress_bars() as report:
        asked = ask_rereads(ws, limit=limit, least=least, report=report)
    for sentence in reread_sentences(asked):
        print(sentence)
    show.console.print(escape(reread_result(ws).sentence), soft_wrap=True)
    if asked.pairs:
        print(pace_told(ws).sentence)
        print(f"Next: readloop queue {workspace}")


def add_to(cli: typer.Typer) -> None:
    """Give the commands to the `readloop` command."""
    cli.add_typer(label_studio, name="label-studio")
    for command in (queue, sync, reread, readers):
        cli.command()(command)
