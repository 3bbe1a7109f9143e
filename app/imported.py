"""What an import said of the manifest: kept beside the ledger, which holds items alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_core.intake import Report

IMPORT_FILE = "import.json"


@dataclass(frozen=True, slots=True)
class Imported:
    """`rows` were read; `duplicates` of them were folded into their item, `refused` left out."""

    rows: int
    duplicates: int
    refused: int


def keep_import(root: Path, report: Report) -> None:
    """Write what came in into a workspace's folder."""
    told = Imported(report.rows, report.duplicates, len(report.refused))
    (root / IMPORT_FILE).write_text(json.dumps(asdict(told)), encoding="utf-8")


def read_import(root: Path) -> Imported | None:
    """The same, or None for a workspace of an earlier release, or one that was copied without."""
    try:
        told = json.loads((root / IMPORT_FILE).read_text(encoding="utf-8"))
        return Imported(*(int(told[key]) for key in ("rows", "duplicates", "refused")))
    except (OSError, ValueError, TypeError, KeyError):
        return None
