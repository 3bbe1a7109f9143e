"""`readloop bench …`: each prints a table; accuracy and speed are measured, never asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app import show
from app.arguments import numbers, words
from app.bench import selection_cli, studies_cli
from ssl_core.errors import ConfigError
from ssl_core.training.predict import choose_device

cli = typer.Typer(help="Benchmarks that print a table.")
studies_cli.add_to(cli)
selection_cli.add_to(cli)


@cli.command()
def augment(
    sizes: Annotated[str, typer.Option(help="Sides in pixels, by commas.")] = "28,64,256",
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
) -> None:
    """Compare the augmentation's speed with the same transforms in kornia."""
    from app.bench import augment as bench  # kornia is slow to import, and for developers only

    sides = tuple(numbers(sizes, "--sizes"))
    if not sides or min(sides) < 8:
        raise ConfigError(f"--sizes {sizes!r}: give sides of 8 pixels or more.")
    rows = bench.run(sizes=sides, batch=batch, device=choose_device(device))
    show.console.print(bench.table(rows))


@cli.command()
def throughput(
    backbones: Annotated[str, typer.Option(help="By commas.")] = "densenet121,resnet18,resnet50",
    batches: Annotated[str, typer.Option(help="Images a batch, by commas.")] = "64,128,256",
    size: Annotated[int, typer.Option(min=32, help="Side in pixels.")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Steps that count.")] = 20,
    out: Annotated[Path, typer.Option(help="JSON file of the rows.")] = Path(
        "bench/throughput.json"
    ),
) -> None:
    """Images a second: training in float32, bf16 and compiled, and ten-crop inference."""
    from app.bench import throughput as bench

    rows = []
    out.parent.mkdir(parents=True, exist_ok=True)
    asked = {"batches": numbers(batches, "--batches"), "size": size, "steps": steps}
    for row in bench.run(words(backbones), device=device, **asked):
        rows.append(row)
        found = {"device": bench.device_name(device), **asked, "rows": rows}
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    show.console.print(bench.table(rows, size, device))
    print(f"Saved {out}.")


@cli.command("label-studio")
def label_studio(
    items: Annotated[int, typer.Option(min=2, help="Items to queue, and to sync.")] = 10_000,
) -> None:
    """Queue and sync many items on a real Label Studio."""
    from app.bench import label_studio as bench

    show.console.print(bench.table(bench.run(items, print)))


@cli.command("selection-speed")
def selection_speed() -> None:
    """Seconds and memory of every query strategy on made-up pools."""
    from app.bench import selection_speed as bench

    show.console.print(bench.table(list(bench.run())))


@cli.command("mask-step")
def mask_step(
    backbone: Annotated[str, typer.Option(help="A network that draws masks.")] = "shallow_unet",
    size: Annotated[int, typer.Option(min=16, help="Side in pixels.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
) -> None:
    """A training step of masks beside the bare forward and backward of its network."""
    from app.bench import mask_step as bench

    asked = {"size": size, "batch": batch, "device": choose_device(device)}
    show.console.print(bench.table(bench.run(backbone, **asked)))


@cli.command()
def alarm(
    prevalences: Annotated[str, typer.Option(help="By commas.")] = "0.05,0.1,0.3",
    reads: Annotated[str, typer.Option(help="Reads of the slice a round, by commas.")] = "8,15,30",
    planted: Annotated[str, typer.Option(help="Planted errors, by commas.")] = "0,0.2,0.4,0.6",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of a history.")] = 12,
    times: Annotated[int, typer.Option(min=1, help="Histories a row.")] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """How soon an alarm on pseudo-labels is raised, and how often without cause."""
    from app.bench import alarm as bench

    shares, errors = _shares(prevalences, "--prevalences"), _shares(planted, "--planted")
    counts = numbers(reads, "--reads")
    if not counts or min(counts) < 1:
        raise ConfigError(f"--reads {reads!r}: give whole numbers of 1 or more.")
    found = bench.run(shares, counts, errors, rounds=rounds, times=times, seed=seed)
    show.console.print(bench.table(list(found), rounds))


def _shares(text: str, option: str) -> list[float]:
    try:
        found = [float(word) for word in words(text)]
    except ValueError:
        found = []
    if not found or not all(0 <= share <= 1 for share in found):
        raise ConfigError(f"{option} {text!r}: give shares from 0 to 1, by commas.")
    return found
