"""What the terminal shows: progress, tables and one plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ssl_core.evidence import Difference, Estimate
from ssl_core.intake import Report as ImportReport
from ssl_core.progress import Progress, Report
from ssl_core.records import METRICS
from ssl_core.simulate import Row, Simulation

console = Console(highlight=False)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A callback that shows each stage as a bar; finished stages leave one line."""
    columns = (
        TextColumn("{task.description}", justify="left"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    terminal = Console(stderr=True)
    with Bars(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bars:

        def report(event: Progress) -> None:
            if event.done == 0 or event.stage not in tasks:
                for stale in tasks.values():
                    bars.remove_task(stale)
                tasks.clear()
                tasks[event.stage] = bars.add_task(event.stage, total=event.total or None, note="")
            bars.update(
                tasks[event.stage],
                completed=event.done,
                total=event.total or None,
                note=event.note,
            )

        yield report


def number(value: float, digits: int = 3) -> str:
    """A share without its leading zero, as papers print it; "–" when unknown."""
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def interval(estimate: Estimate, gap: str = " ") -> str:
    """ "value [low, high]"; `gap` stands between the two."""
    if math.isnan(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)}{gap}[{number(estimate.low)}, {number(estimate.high)}]"


def difference(found: Difference | None, gap: str = " ") -> str:
    """A signed difference with its interval, and a star when the interval excludes zero."""
    if found is None or math.isnan(found.value):
        return "–"
    sign = "+" if found.value >= 0 else "−"
    head = sign + number(abs(found.value))
    if math.isnan(found.low):
        return head
    star = " *" if found.low > 0 or found.high < 0 else ""
    low, high = (("+" if b >= 0 else "−") + number(abs(b)) for b in (found.low, found.high))
    return f"{head}{star}{gap}[{low}, {high}]"


def duration(seconds: float) -> str:
    """Seconds as "42 s" or "3 min 05 s"."""
    whole = round(seconds)
    return f"{seconds:.1f} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def import_table(report: ImportReport) -> Table:
    """What came in, per split and finding."""
    columns = ("split", "finding", "items", "patients", "present", "absent", "unknown")
    made = table("What came in", columns, left=2)
    for c in report.counts:
        cells = (c.items, c.groups, c.positives, c.negatives, c.unknown)
        made.add_row(c.split, escape(c.finding), *(f"{n:,}" for n in cells))
    return made


def label_cost_table(simulation: Simulation) -> Table:
    """The label-cost table: one line a budget and strategy, its intervals below."""
    first = simulation.rows[0]
    stages = list(first.score)
    over = "mean of seeds, 95 % over seeds" if first.seeds > 1 else "one seed, 95 % over patients"
    held = f"{first.labels['validation']:,} validation and {first.labels['vault']:,} vault labels"
    made = table(
        f"Label cost of {simulation.recipe}: {METRICS[simulation.metric]} on the vault ({over})",
        (
            "labels",
            "strategy",
            *stages,
            f"vs {simulation.control or 'control'}",
            "time",
        ),
        left=0,
    )
    made.caption = f"also read: {held}; seeds: {first.seeds}"
    for row, following in zip(simulation.rows, [*simulation.rows[1:], None], strict=True):
        ends = following is None or following.budget != row.budget
        made.add_row(*_label_cost_cells(row, stages), end_section=ends)
    return made


def _label_cost_cells(row: Row, stages: Sequence[str]) -> list[str]:
    return [
        f"{row.labels['train']:,}",
        row.strategy,
        *(interval(row.score[stage], "\n") for stage in stages),
        difference(row.difference, "\n"),
        f"{row.seconds:.0f} s",
    ]


def table(title: str, columns: Sequence[str], left: int) -> Table:
    """An empty table of this project's look; the first `left` columns are text."""
    made = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    made.padding = (0, 0)
    made.pad_edge = False
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position < left else "right", no_wrap=True)
    return made


def plot_label_cost(simulation: Simulation, path: Path) -> None:
    """Save the student's AUROC against the budget, with intervals, as a picture."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    student = list(simulation.rows[0].score)[-1]
    strategies = list(dict.fromkeys(row.strategy for row in simulation.rows))
    # Okabe and Ito's colours: told apart with any colour vision; the control is grey.
    colours = iter(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"))
    for strategy in strategies:
        rows = [row for row in simulation.rows if row.strategy == strategy]
        is_control = strategy == simulation.control
        colour = "#666666" if is_control else next(colours, "#000000")
        x = [row.labels["train"] for row in rows]
        estimates = [row.score[student] for row in rows]
        label = f"{strategy} (control)" if is_control else strategy
        style = "--" if is_control else "-"
        axes.plot(x, [e.value for e in estimates], style, marker="o", color=colour, label=label)
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    seeds = simulation.rows[0].seeds
    band = f"band: 95 % over {seeds} seeds" if seeds > 1 else "band: 95 % over vault patients"
    axes.set_xlabel("training labels (items read)")
    axes.set_ylabel(f"{METRICS[simulation.metric]} of the {student} on the vault")
    axes.set_title(f"What the labels bought: {simulation.recipe} ({band})", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path)
