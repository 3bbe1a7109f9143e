"""`readloop map`: lay a round out on a plane again, by other methods than its own."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from app import show
from app.arguments import WorkspacePath
from ssl_core.errors import MapError
from ssl_core.pictures.map_files import load_map, mapped_rounds
from ssl_core.workspace import open_workspace


class MethodName(StrEnum):
    """The methods, as the command line names them."""

    umap = "umap"
    tsne = "tsne"
    pca = "pca"


def lay_out(
    workspace: WorkspacePath,
    method: Annotated[MethodName, typer.Option(help="How.")] = MethodName.umap,
    round_: Annotated[
        int | None, typer.Option("--round", min=1, help="The newest finished one if left out.")
    ] = None,
) -> None:
    """Add a method to the map of a round; what the round's model made of the images is kept."""
    from ssl_core.pictures.maps import make_map

    ws = open_workspace(workspace)
    finished = [r.number for r in ws.ledger.rounds() if ws.ledger.finished(r.number)]
    if round_ is None and not finished:
        raise MapError(f"{workspace} has no finished round: run `readloop round {workspace}`.")
    number = round_ or finished[-1]
    had = list(load_map(ws, number).embeddings) if number in mapped_rounds(ws) else []
    with show.progress_bars() as report:
        found = make_map(ws, number, [*had, method.value], report)
    for name, why in found.failed.items():
        print(f"{name} failed: {why}")
    print(f"The map of round {number} has: {', '.join(found.embeddings) or 'nothing'}.")


def add_to(cli: typer.Typer) -> None:
    """Give the command to the `readloop` command."""
    cli.command("map")(lay_out)
