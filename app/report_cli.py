"""`readloop report`: what a lead forwards, as one HTML file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.arguments import WorkspacePath
from app.report.build import report
from ssl_core.errors import ConfigError
from ssl_core.workspace import open_workspace


def report_(
    workspace: WorkspacePath,
    out: Annotated[
        Path | None, typer.Option(help="The file; without it, NAME-report.html in this folder.")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Number readers and deciders instead of names.")
    ] = False,
    target: Annotated[
        float | None,
        typer.Option(help="An AUROC (Dice of masks), as .95: forecast and savings speak of it."),
    ] = None,
) -> None:
    """Write curve, claims with intervals, data card, audit, readers and lineage into one HTML."""
    if target is not None and not 0 < target < 1:
        raise ConfigError(f"--target {target}: give an AUROC between 0 and 1, as .95.")
    place = out or Path(f"{workspace.resolve().name or 'workspace'}-report.html")
    if place.is_dir() or place.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {place}: give the name of a file that ends in .html.")
    ws = open_workspace(workspace)
    text = report(ws, datetime.now(UTC), anonymous=anonymous, target=target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {place} cannot be written ({error.strerror}).") from None
    print(f"Saved {place} ({len(text.encode()) / 1000:,.0f} kB): one file, to open or to forward.")


def add_to(cli: typer.Typer) -> None:
    """Give the command to the `readloop` command."""
    cli.command("report")(report_)
