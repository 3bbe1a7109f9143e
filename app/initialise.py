"""`readloop init`: from a folder of images and a manifest to a workspace, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from connectors.folder import FolderSource
from connectors.manifest import Columns, read_manifest
from ssl_core.config import Config, ledger_url, save_config, validated
from ssl_core.errors import ReadloopError, WorkspaceError
from ssl_core.images import ImageStore, looks_grey
from ssl_core.intake import Intake, Policy, content_digests, take_in
from ssl_core.ledger import Ledger
from ssl_core.models import build_model
from ssl_core.presets import preset
from ssl_core.progress import Progress, Report, silent
from ssl_core.recipes import plan
from ssl_core.records import Answer, Item, Label
from ssl_core.workspace import CONFIG_FILE, IMAGES_FOLDER

COLOUR_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """What `init` is asked for besides the columns; `overrides` are tables of the configuration."""

    preset: str
    overrides: dict[str, dict[str, Any]]
    fit: Literal["pad", "squash"] = "pad"
    channels: Literal["auto", "1", "3"] = "auto"
    ledger: str = "sqlite"


def initialise(
    root: Path,
    images: Path,
    manifest: Path,
    columns: Columns,
    policy: Policy,
    settings: Settings,
    report: Report = silent,
) -> Intake:
    """Make a workspace at `root`.

    It is built in a folder beside `root` and moved there when it is whole. A refusal removes that
    folder; a kill leaves it, and the next `init` goes on with the images it holds.

    Raises:
        ReadloopError: whatever is wrong with the input, in one sentence; there is no workspace.
    """
    if root.exists():
        raise WorkspaceError(f"{root} exists already: choose a new folder for the workspace.")
    if not images.is_dir():
        raise WorkspaceError(f"--images {images} is not a folder.")
    preset(settings.preset)  # refused before any work
    staging = root.with_name(f".{root.name}.unfinished")
    try:
        intake = _build(staging, images, manifest, columns, policy, settings, report)
        staging.replace(root)
    except ReadloopError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise WorkspaceError(f"{root} cannot be written: {error.strerror}.") from None
    return intake


def _build(
    staging: Path,
    images: Path,
    manifest: Path,
    columns: Columns,
    policy: Policy,
    settings: Settings,
    report: Report,
) -> Intake:
    source = FolderSource(images)
    rows = read_manifest(manifest, columns)
    report(Progress("read the manifest", 1, 1, f"{len(rows.rows)} rows"))
    intake = take_in(rows, content_digests(rows, source), policy)
    staging.mkdir(parents=True, exist_ok=True)
    config = _config(images, intake.items, source, settings, policy.seed)
    plan(config.recipe)  # a faulty recipe or network is refused now, not in the first round
    build_model(config.model.backbone, len(intake.task.findings), weights=config.model.weights)
    store, refused = ImageStore.build(
        staging / IMAGES_FOLDER,
        [(item.id, item.path) for item in intake.items],
        source,
        size=config.images.size,
        fit=config.images.fit,
        channels=config.images.channels,
        progress=lambda done, total: report(Progress("decode images", done, total)),
        skip_unreadable=policy.skip_unreadable,
    )
    _write_ledger(staging, config, intake, set(store.ids), policy.archive)
    save_config(config, staging / CONFIG_FILE)
    warnings = [f"{one.path} was left out: {one.message}" for one in refused]
    told = replace(intake.report, warnings=(*intake.report.warnings, *warnings))
    return replace(intake, report=told)


def _config(
    images: Path, items: Sequence[Item], source: FolderSource, settings: Settings, seed: int
) -> Config:
    tables = preset(settings.preset)
    for table, values in settings.overrides.items():
        tables[table] = {**tables.get(table, {}), **values}
    channels = int(settings.channels) if settings.channels != "auto" else _channels(items, source)
    tables["images"] |= {
        "folder": str(images.resolve()),
        "fit": settings.fit,
        "channels": channels,
    }
    return validated(
        Config, {**tables, "ledger": settings.ledger, "seed": seed}, "the options given"
    )


def _channels(items: Sequence[Item], source: FolderSource) -> int:
    """3 when any of a spread of images has colour, else 1."""
    for position in np.linspace(0, len(items) - 1, min(COLOUR_SAMPLE, len(items)), dtype=int):
        try:
            if not looks_grey(source.read(items[position].path)):
                return 3
        except ReadloopError:  # named when all images are decoded
            continue
    return 1


def _write_ledger(
    staging: Path, config: Config, intake: Intake, readable: set[str], archive: bool
) -> None:
    url = ledger_url(config, staging)
    if config.ledger == "sqlite":
        for half_made in staging.glob("ledger.db*"):
            half_made.unlink()
    known = [
        (item.id, finding, float(value))
        for item, values in zip(intake.items, intake.labels, strict=True)
        for finding, value in zip(intake.task.findings, values, strict=True)
        if item.id in readable and not np.isnan(value)
    ]
    answers = [Answer(*entry) for entry in known] if archive else []
    labels = [] if archive else [_imported(*entry) for entry in known]
    with Ledger.create(url, intake.task) as ledger:
        items = [item for item in intake.items if item.id in readable]
        ledger.import_items(items, labels, answers)


def _imported(item_id: str, finding: str, value: float) -> Label:
    return Label(item_id, finding, value, "import", "import", f"import:{item_id}:{finding}")
