"""`readloop jobs`: rounds that were started as jobs, and how to cancel the one that runs."""

from __future__ import annotations

import getpass
import json
import os
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from app import show
from app.arguments import WorkspacePath
from app.jobs import cancel, facts
from ssl_core.job_states import JobState
from ssl_core.workspace import open_workspace


class _ListedByDefault(TyperGroup):
    """`readloop jobs W` is `readloop jobs list W`."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        """Put the command's name in front where none was given."""
        named = any(word in self.commands for word in arguments[:1])
        if arguments and not named and "--help" not in arguments:
            arguments = ["list", *arguments]
        return super().parse_args(context, arguments)


jobs = typer.Typer(
    help="Rounds that were started as jobs: `readloop jobs W`, `readloop jobs cancel W`.",
    cls=_ListedByDefault,
    no_args_is_help=True,
)


@jobs.command("list")
def list_(
    workspace: WorkspacePath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The jobs of a workspace, newest first, and where each stands."""
    found = open_workspace(workspace).ledger.jobs.history()
    if as_json:
        print(json.dumps([facts(one) for one in found], indent=1))
    elif found:
        show.console.print(job_table(found))
    else:
        print(f"No round of {workspace} was started as a job yet.")


@jobs.command("cancel")
def cancel_(workspace: WorkspacePath) -> None:
    """Ask the job that runs to stop; what it finished is kept, and the next one goes on with it."""
    found = cancel(open_workspace(workspace), _user())
    print(f"Asked job {found.job.id} to stop ({found.place or 'not started yet'}).")


def job_table(found: list[JobState]) -> Table:
    """One line a job."""
    made = show.table("Jobs", ("job", "state", "asked", "by", "took", "round", "what"), left=7)
    made.columns[-1].no_wrap = False
    for one in found:
        cells = (
            str(one.job.id),
            one.state,
            f"{one.job.at.astimezone():%Y-%m-%d %H:%M}",
            one.job.by,
            _took(one),
            str(one.round or ""),
            _what(one),
        )
        made.add_row(*map(escape, cells))
    return made


def _took(one: JobState) -> str:
    if one.started_at is None:
        return ""
    last = one.ended_at or (one.now if one.lives else one.seen_at)
    return show.duration(max((last - one.started_at).total_seconds(), 0.0))


def _what(one: JobState) -> str:
    parts = [f"resumes job {one.job.resumes}"] if one.job.resumes else []
    if one.message:
        parts.append(one.message)
    elif one.step is not None and one.state != "finished":
        step = one.step
        parts.append(f"{step.stage}, {step.done} of {step.total}" if step.total else step.stage)
    return "; ".join(parts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def add_to(cli: typer.Typer) -> None:
    """Give the commands to the `readloop` command."""
    cli.add_typer(jobs, name="jobs")
