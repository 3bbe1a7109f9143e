"""`readloop init`: from a folder of images and a manifest to a workspace, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from app.imported import keep_import
from connectors.columns import Columns
from connectors.folder import FolderSource
from connectors.manifest import Manifest, read_manifest
from ssl_core.config import Config, ledger_url, save_config, validated
from ssl_core.errors import ImageError, ReadloopError, WorkspaceError
from ssl_core.history.ledger import Ledger
from ssl_core.images import ImageStore, looks_grey
from ssl_core.intake import Intake, Policy, content_digests, take_in
from ssl_core.masks.imported import keep_masks
from ssl_core.preflight import check_settings, check_task
from ssl_core.presets import default_recipe, preset
from ssl_core.progress import Progress, Report, silent
from ssl_core.records import Answer, Item, Label
from ssl_core.workspace import CONFIG_FILE, IMAGES_FOLDER, MASKS_FOLDER, one_process

COLOUR_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """What `init` is asked for besides the columns; `overrides` are tables of the configuration.

    Without a `recipe` it is the task's own. `empty_masks` says what an all-empty mask is: a
    mistake, or that its finding is absent.
    """

    preset: str
    overrides: dict[str, dict[str, Any]]
    fit: Literal["pad", "squash"] = "pad"
    channels: Literal["auto", "1", "3"] = "auto"
    ledger: str = "sqlite"
    recipe: str = ""
    empty_masks: Literal["refuse", "absent"] = "refuse"


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
    root = root.resolve()  # where a link or ".." leads
    if root.exists():
        raise WorkspaceError(f"{root} exists already: choose a new folder for the workspace.")
    if not images.is_dir():
        raise WorkspaceError(f"--images {images} is not a folder: give the one of the images.")
    masks = columns.masks or columns.unlabeled == "segmentation"
    recipe = settings.recipe or default_recipe(
        "segmentation" if masks else "binary", settings.preset
    )
    preset(settings.preset, recipe)  # refused before any work
    settings = replace(settings, recipe=recipe)
    staging = root.with_name(f".{root.name}.unfinished")
    missing = [folder for folder in staging.parents if not folder.exists()]
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with one_process(staging, "making"), _gone_if_refused(staging, missing):
            intake = _build(staging, images, manifest, columns, policy, settings, report)
            staging.replace(root)
    except OSError as error:
        raise WorkspaceError(f"{root} cannot be written: {error.strerror}.") from None
    return intake


@contextmanager
def _gone_if_refused(staging: Path, missing: Sequence[Path]) -> Iterator[None]:
    """Remove what was made for a workspace that fails, but not on a Ctrl-C: that can go on."""
    try:
        yield
    except Exception:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # somebody else may have put something there
            for folder in missing:
                folder.rmdir()
        raise


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
    digests = content_digests(rows, source)
    if columns.masks:
        rows, unusable = _with_masks(rows, digests, source, staging, settings, report)
        digests |= unusable
    intake = take_in(rows, digests, policy)
    config = _config(images, intake.items, source, settings, policy.seed)
    check_task(intake.task, config)  # now, not in the first round
    check_settings(config, len(intake.task.findings))
    if config.ledger != "sqlite":
        Ledger.check_vacant(config.ledger)
    _, refused = ImageStore.build(
        staging / IMAGES_FOLDER,
        [(item.id, item.path) for item in intake.items],
        source,
        size=config.images.size,
        fit=config.images.fit,
        channels=config.images.channels,
        progress=lambda done, total: report(Progress("decode images", done, total)),
        skip_unreadable=policy.skip_unreadable,
    )
    if refused:  # what has no pixels cannot be counted, nor stand in a split
        left_out = {one.id: ImageError(one.message) for one in refused}
        digests = {line: left_out.get(str(found), found) for line, found in digests.items()}
        intake = take_in(rows, digests, policy)
    _drop_strays(staging / MASKS_FOLDER, {mask for masks in intake.masks for mask in masks})
    save_config(config, staging / CONFIG_FILE)
    keep_import(staging, intake.report)
    _write_ledger(staging, config, intake, policy.archive)
    return intake


def _with_masks(
    manifest: Manifest,
    digests: Mapping[int, str | ImageError],
    source: FolderSource,
    staging: Path,
    settings: Settings,
    report: Report,
) -> tuple[Manifest, dict[int, ImageError]]:
    """The manifest with its masks kept, and named by digest; and, by line, what is wrong."""
    readable = [row for row in manifest.rows if isinstance(digests[row.line], str)]
    said = keep_masks(
        readable,
        source,
        staging / MASKS_FOLDER,
        empty=settings.empty_masks == "absent",
        progress=lambda done, total: report(Progress("read masks", done, total)),
    )
    unusable = {line: found for line, found in said.items() if isinstance(found, ImageError)}
    rows = []
    for row in manifest.rows:
        found = said.get(row.line)
        if isinstance(found, tuple):
            labels, masks = zip(*found, strict=True)
            row = replace(row, labels=labels, masks=masks)
        rows.append(row)
    return replace(manifest, rows=tuple(rows)), unusable


def _drop_strays(folder: Path, used: set[str | None]) -> None:
    """Remove the masks of rows that were refused in the end, or of an import that was killed."""
    if folder.is_dir():
        for stray in folder.iterdir():
            if stray.stem not in used:
                stray.unlink()


def _config(
    images: Path, items: Sequence[Item], source: FolderSource, settings: Settings, seed: int
) -> Config:
    tables = preset(settings.preset, settings.recipe)
    for table, values in settings.overrides.items():
        tables[table] = {**tables.get(table, {}), **values}
    channels = _channels(items, source) if settings.channels == "auto" else int(settings.channels)
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


def _write_ledger(staging: Path, config: Config, intake: Intake, archive: bool) -> None:
    for half_made in staging.glob("ledger.db*"):
        half_made.unlink()
    findings = intake.task.findings
    known = [
        Answer(item.id, finding, float(value), mask)
        for item, values, masks in zip(intake.items, intake.labels, intake.masks, strict=True)
        for finding, value, mask in zip(
            findings, values, masks or (None,) * len(findings), strict=True
        )
        if not np.isnan(value)
    ]
    answers = known if archive else []
    labels = [] if archive else [_imported(answer) for answer in known]
    Ledger.create(ledger_url(config, staging), intake.task, intake.items, labels, answers).close()


def _imported(known: Answer) -> Label:
    key = f"import:{known.item_id}:{known.finding}"
    value, mask = known.value, known.mask
    return Label(known.item_id, known.finding, value, "import", "import", key, mask=mask)
