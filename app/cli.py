"""The `readloop` command: parses, calls, prints. No thinking lives here."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from app import (
    api_cli,
    jobs_cli,
    map_cli,
    promotion_cli,
    reading_cli,
    replay_cli,
    report_cli,
    serve_cli,
    show,
)
from app import export as exporting
from app.arguments import WorkspacePath, numbers, words
from app.bench import cli as bench
from app.initialise import Settings, initialise
from app.job_runner import refused_by_the_system, run_job
from app.memory import keep_freed_memory
from app.rooms import archive_room, simulated_room
from app.status import status_of, status_table
from connectors.columns import Columns
from ssl_core.config import load_config
from ssl_core.errors import ConfigError, ReadloopError
from ssl_core.intake import Intake, Policy
from ssl_core.preflight import check_settings
from ssl_core.recipes import MASK_RECIPES, RECIPES
from ssl_core.records import METRICS
from ssl_core.rounds import abandon_round, run_round
from ssl_core.simulate import Cell, simulate
from ssl_core.training.distributed import is_main, join_torchrun, leave_torchrun
from ssl_core.workspace import CONFIG_FILE, Workspace, open_workspace

cli = typer.Typer(
    help="Spend a radiologist's reads where they teach the model most, and prove what that saved.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(bench.cli, name="bench")
reading_cli.add_to(cli)
jobs_cli.add_to(cli)
promotion_cli.add_to(cli)
serve_cli.add_to(cli)
map_cli.add_to(cli)
api_cli.add_to(cli)
replay_cli.add_to(cli)
report_cli.add_to(cli)

# typer keeps its own copy of click to itself; this is the parent of all its usage errors.
UsageFault: Any = typer.BadParameter.__bases__[0]

STOPPED = 130  # the exit code of a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a mendable error is one sentence on stderr and exit code 2."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 2 (cannot), 130 (stopped)."""
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks "–" gets "?", no traceback
    try:
        join_torchrun()
        code = cli(list(arguments) or ["--help"], standalone_mode=False)
        if code == STOPPED:  # typer returns what Ctrl-C would have raised
            raise KeyboardInterrupt
        leave_torchrun()
    except UsageFault as error:
        return _refuse(" ".join(error.format_message().split()).rstrip(".") + ".")
    except ReadloopError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(refused_by_the_system(error))
    except (KeyboardInterrupt, typer.Abort):
        print("readloop: stopped; what was finished is kept.", file=sys.stderr)
        return STOPPED
    return 0


def _refuse(sentence: str) -> int:
    if is_main():
        print(f"readloop: {sentence}", file=sys.stderr)
    return 2


@cli.command()
def init(
    workspace: WorkspacePath,
    images: Annotated[Path, typer.Option(help="Folder that holds the images.")],
    manifest: Annotated[Path, typer.Option(help="CSV with a header and one row an image.")],
    path_column: Annotated[str, typer.Option(help="Column of the image's path.")] = "path",
    path_template: Annotated[
        str, typer.Option(help="Turns that cell into a path, as 'images/{}.jpg'.")
    ] = "{}",
    group_column: Annotated[str, typer.Option(help="Column of the patient.")] = "",
    no_groups: Annotated[
        bool, typer.Option("--no-groups", help="Say that no column names the patient.")
    ] = False,
    label_column: Annotated[str, typer.Option(help="Column of the label or class.")] = "",
    positive: Annotated[str, typer.Option(help="The value that is positive: a binary task.")] = "",
    findings_column: Annotated[str, typer.Option(help="Column that lists findings.")] = "",
    separator: Annotated[str, typer.Option(help="What parts the findings of a cell.")] = "|",
    findings: Annotated[
        str, typer.Option(help="The findings to keep, or one for each mask column, by commas.")
    ] = "",
    negative: Annotated[str, typer.Option(help="The word for none of them.")] = "No Finding",
    unlabeled: Annotated[
        Literal["", "binary", "multi_label", "multi_class", "segmentation"],
        typer.Option(help="No row has a label: what readers will be asked about --findings."),
    ] = "",
    mask_column: Annotated[
        str, typer.Option(help="Columns of the masks' paths, one a finding, by commas.")
    ] = "",
    mask_template: Annotated[
        str, typer.Option(help="Turns that cell into a path, as 'masks/{}.png'.")
    ] = "{}",
    empty_masks: Annotated[
        Literal["refuse", "absent"],
        typer.Option(help="What a mask without a pixel is: a mistake, or the finding's absence."),
    ] = "refuse",
    split_column: Annotated[str, typer.Option(help="Column of the official split.")] = "",
    archive: Annotated[
        bool, typer.Option("--archive", help="Hide known labels; a simulated reader answers.")
    ] = False,
    validation: Annotated[float, typer.Option(help="Share of patients for validation.")] = 0.1,
    vault: Annotated[float, typer.Option(help="Share of patients for the test vault.")] = 0.2,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of the split and of the rounds.")
    ] = 0,
    preset: Annotated[
        str, typer.Option(help="paper, fast or tiny; else fast with --weights, tiny without.")
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            help=f"How rounds train: {', '.join(RECIPES)}; for masks {', '.join(MASK_RECIPES)}."
        ),
    ] = "",
    backbone: Annotated[str, typer.Option(help="Instead of the preset's.")] = "",
    weights: Annotated[
        str, typer.Option(help="none, imagenet or a file, instead of the preset's.")
    ] = "",
    size: Annotated[int, typer.Option(min=0, help="Working size in pixels; 0: the preset's.")] = 0,
    squash: Annotated[
        bool, typer.Option("--squash", help="Fill the square instead of padding to it.")
    ] = False,
    channels: Annotated[
        Literal["auto", "1", "3"], typer.Option(help="Found out, grey or colour.")
    ] = "auto",
    ledger: Annotated[str, typer.Option(help="sqlite, or postgresql:// without password.")] = (
        "sqlite"
    ),
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave unusable images and masks out.")
    ] = False,
    allow_shared_patients: Annotated[
        bool,
        typer.Option("--allow-shared-patients", help="Accept an official split that shares them."),
    ] = False,
) -> None:
    """Import images and labels into a new workspace."""
    columns = Columns(
        path=path_column,
        group=_group(group_column, no_groups),
        label=label_column or None,
        positive=positive or None,
        findings_column=findings_column or None,
        separator=separator,
        findings=tuple(words(findings)),
        negative=negative,
        masks=tuple(words(mask_column)),
        split=split_column or None,
        path_template=path_template,
        mask_template=mask_template,
        unlabeled=unlabeled or None,
    )
    policy = Policy(
        seed=seed,
        validation=validation,
        vault=vault,
        archive=archive,
        allow_shared_groups=allow_shared_patients,
        skip_unreadable=skip_unreadable,
    )
    settings = Settings(
        # Without weights at hand nothing is fetched: the default works on a closed network.
        preset=preset or ("fast" if weights not in ("", "none") else "tiny"),
        overrides=_overrides(backbone, weights, size),
        fit="squash" if squash else "pad",
        channels=channels,
        ledger=ledger,
        recipe=recipe,
        empty_masks=empty_masks,
    )
    with show.progress_bars() as report:
        intake = initialise(workspace, images, manifest, columns, policy, settings, report)
    _print_import(intake.report)
    print(f"Made {workspace} (preset {settings.preset}).{_following(workspace, intake)}")


def _following(workspace: Path, intake: Intake) -> str:
    if all(c.positives + c.negatives == 0 for c in intake.report.counts):
        return f" Next: readloop label-studio up {workspace}, then readloop queue {workspace}"
    return f" Next: readloop round {workspace}"


def _group(column: str, no_groups: bool) -> str | None:
    if column and no_groups:
        raise ConfigError("--group-column and --no-groups contradict each other: give one.")
    if not column and not no_groups:
        raise ConfigError(
            "--group-column is missing: name the patient's column, or say --no-groups if there is "
            "none (then one patient's images may stand on both sides of the test split)."
        )
    return column or None


def _overrides(backbone: str, weights: str, size: int) -> dict[str, dict[str, Any]]:
    """What was said instead of the preset's, by table."""
    if weights not in ("", "none", "imagenet"):
        weights = str(Path(weights).resolve())
    model = {"backbone": backbone, "weights": weights}
    return {
        "model": {key: value for key, value in model.items() if value},
        "images": {"size": size} if size else {},
    }


def _print_import(report: Any) -> None:
    show.console.print(show.import_table(report))
    print(f"{report.rows:,} rows read, {report.duplicates:,} duplicates folded into their item.")
    if report.refused:
        print(f"{len(report.refused):,} rows refused:")
    for refusal in report.refused[:20]:
        print(f"  line {refusal.line}: {refusal.path!r}: {refusal.reason}")
    if len(report.refused) > 20:
        print(f"  … and {len(report.refused) - 20:,} more.")
    for warning in report.warnings:
        show.console.print(f"[yellow]Mind:[/yellow] {escape(warning)}")


@cli.command("round")
def round_(
    workspace: WorkspacePath,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the round that was interrupted.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give that round up; the next one starts afresh.")
    ] = False,
    query_size: Annotated[
        int | None, typer.Option(min=0, help="Items to ask for, instead of the configuration's.")
    ] = None,
    job: Annotated[int | None, typer.Option(hidden=True, min=1)] = None,
) -> None:
    """Take in what readers answered, train, measure, and ask for the next cases."""
    if job is not None:
        run_job(workspace, job)
        return
    ws = open_workspace(workspace)
    if abandon and (resume or query_size is not None):
        raise ConfigError("--abandon only closes the interrupted round: give it alone.")
    if abandon:
        print(f"Gave up round {abandon_round(ws)}.")
    else:
        with show.progress_bars() as report:
            run_round(ws, simulated_room(ws), query_size=query_size, resume=resume, report=report)
    if is_main():
        _print_status(ws)


@cli.command("simulate")
def simulate_(
    workspace: WorkspacePath,
    budgets: Annotated[str, typer.Option(help="Rising numbers of labels, as 52,104,260,all.")],
    strategy: Annotated[
        str, typer.Option(help="Query strategies, by commas; none: the workspace's own.")
    ] = "",
    control: Annotated[str, typer.Option(help="Strategy to compare with; empty: none.")] = "random",
    recipe: Annotated[str, typer.Option(help="Instead of the workspace's recipe.")] = "",
    seeds: Annotated[str, typer.Option(help="By commas; one arm each.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="JSON file; a PNG is saved beside it.")] = None,
) -> None:
    """Replay the loop on an archive and compare with a random control."""
    if out is not None:
        _check_out(out)
    ws = open_workspace(workspace)
    if recipe and recipe != ws.config.recipe.get("name"):
        ws = replace(ws, config=ws.config.changed(recipe={"name": recipe}))
    with show.progress_bars() as report:
        found = simulate(
            ws,
            archive_room,
            budgets=words(budgets),
            strategies=words(strategy) or [ws.config.selection.strategy],
            seeds=numbers(seeds, "--seeds"),
            control=control or None,
            report=report,
            on_cell=_print_cell,
        )
    if out is not None:
        out.write_text(found.to_json(), encoding="utf-8")
        show.plot_label_cost(found, out.with_suffix(".png"))
    show.console.print(show.label_cost_table(found))
    print("* the 95 % interval of the difference excludes zero.")
    if found.rows[0].seeds == 1:
        print("One seed compares two models, not two strategies: give several --seeds for those.")
    if out is not None:
        print(f"Saved {out} and {out.with_suffix('.png')}.")


def _check_out(out: Path) -> None:
    """Refuse a place for the result now rather than after hours of training."""
    if out.suffix == ".png" or out.is_dir():
        raise ConfigError(
            f"--out {out}: give the name of a file, such as result.json; a plot is saved beside it "
            "as .png."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written ({error.strerror}).") from None


def _print_cell(cell: Cell) -> None:
    student = list(cell.stages)[-1]
    metric = next(name for name in METRICS if name in cell.stages[student])
    score = show.interval(cell.stages[student][metric])
    where = f"{cell.strategy}, seed {cell.seed}, {cell.budget} labels"
    print(
        f"{where}: {student} {METRICS[metric]} {score}, {show.duration(cell.seconds)}",
        file=sys.stderr,
    )


@cli.command()
def status(
    workspace: WorkspacePath,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What the workspace holds and where its loop stands."""
    ws = open_workspace(workspace)
    if as_json:
        print(json.dumps(status_of(ws), indent=1))
    else:
        _print_status(ws)


def _print_status(ws: Workspace) -> None:
    found = status_of(ws)
    show.console.print(status_table(found))
    print(found["next"])


@cli.command()
def predict(
    workspace: WorkspacePath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Score image files with the model in use."""
    ws = open_workspace(workspace)
    found = exporting.predict_files(ws, images)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show.console.print(exporting.prediction_table(found))


@cli.command()
def export(
    workspace: WorkspacePath,
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Write the labels with their provenance, and the model in use with its card."""
    for line in exporting.export(open_workspace(workspace), out):
        print(line)


@cli.command()
def config(workspace: WorkspacePath) -> None:
    """Check the workspace's configuration and print its digest."""
    found = load_config(workspace / CONFIG_FILE)
    check_settings(found, findings=1)
    print(found.digest())


if __name__ == "__main__":
    main()
