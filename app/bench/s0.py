"""S0's table on real radiographs: the loop's own `simulate` with random labels, two splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from app import show
from app.initialise import Settings, initialise
from app.rooms import archive_room
from connectors.manifest import Columns
from ssl_core.errors import ConfigError
from ssl_core.evidence import Estimate
from ssl_core.intake import Policy
from ssl_core.progress import Report
from ssl_core.simulate import Row, simulate
from ssl_core.workspace import open_workspace

# Frozen ImageNet features and logistic regression, 10 label draws, all labels once.
ANCHORS = {
    "grouped": {
        "52": (0.972, 0.913),
        "104": (0.979, 0.930),
        "260": (0.984, 0.948),
        "all": (0.994, 0.968),
    },
    "official": {
        "52": (0.899, 0.717),
        "104": (0.922, None),
        "260": (0.933, None),
        "all": (0.960, 0.800),
    },
}


def run(
    data: Path,
    out: Path,
    *,
    weights: str,
    preset: str,
    seeds: Sequence[int],
    budgets: Sequence[str],
    splits: Sequence[str],
    report: Report,
) -> list[dict[str, Any]]:
    """Measure every cell that is not finished yet; return one plain row a split and budget."""
    if not splits or not ANCHORS.keys() >= set(splits):
        raise ConfigError(f"--splits {','.join(splits)!r}: give grouped, official or both.")
    rows: list[dict[str, Any]] = []
    for split in splits:
        workspace = out / f"{split}-{preset}"
        if not workspace.exists():
            _make(workspace, data, split, weights, preset, report)
        found = simulate(
            open_workspace(workspace),
            archive_room,
            budgets=budgets,
            strategies=["random"],
            seeds=seeds,
            control=None,
            report=report,
        )
        rows += [_plain(split, asked, row) for asked, row in zip(budgets, found.rows, strict=True)]
    return rows


def _make(
    workspace: Path, data: Path, split: str, weights: str, preset: str, report: Report
) -> None:
    columns = Columns(
        path="path",
        group="patient_id",
        label="label",
        positive="PNEUMONIA",
        split="split" if split == "official" else None,
    )
    policy = Policy(seed=0, archive=True, allow_shared_groups=True)
    weights = weights if weights in ("imagenet", "none") else str(Path(weights).resolve())
    settings = Settings(preset, {"model": {"weights": weights}})
    workspace.parent.mkdir(parents=True, exist_ok=True)
    initialise(workspace, data, data / "manifest.csv", columns, policy, settings, report)


def _plain(split: str, asked: str, row: Row) -> dict[str, Any]:
    def values(estimates: dict[str, Estimate]) -> dict[str, list[float]]:
        return {stage: [e.value, e.low, e.high] for stage, e in estimates.items()}

    return {
        "split": split,
        "budget": asked,
        "labels": row.labels,
        "auroc": values(row.auroc),
        "accuracy": values(row.accuracy),
        "seconds": row.seconds,
        "seeds": row.seeds,
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """AUROC and accuracy of each stage beside the anchor, two lines a cell."""
    stages = list(rows[0]["auroc"])
    seeds = rows[0]["seeds"]
    over = (
        f"mean of {seeds} seeds, 95 % over seeds" if seeds > 1 else "one seed, 95 % over patients"
    )
    result = show.table(
        f"S0 on kermany ({over}); anchor: frozen ImageNet features + logistic regression",
        ("split", "labels", "", *stages, "anchor", "time"),
        left=1,
    )
    for row in rows:
        anchor = ANCHORS[row["split"]].get(row["budget"], (None, None))
        for name, known in zip(("auroc", "accuracy"), anchor, strict=True):
            first = name == "auroc"
            result.add_row(
                row["split"] if first else "",
                row["budget"] if first else "",
                "AUROC" if first else name,
                *(show.interval(Estimate(*row[name][s], row["seeds"]), "\n") for s in stages),
                "–" if known is None else show.number(known),
                f"{row['seconds']:.0f} s" if first else "",
                end_section=not first,
            )
    return result
