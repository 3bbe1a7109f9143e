"""A manifest (CSV, one row an image) becomes a task and typed rows; nothing is opened but the CSV.

A row that cannot be used is refused by line with a reason; a manifest that cannot be used at all
raises `ImportRefusedError`. Text from the manifest enters a message only through `quoting`, and a
row with unprintable characters is refused, so that no manifest can drive a terminal.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TypeAlias

from connectors.columns import Columns, check_columns
from connectors.label_cells import Labels, check_names, known, understand
from connectors.quoting import closest, listed, show, some
from ssl_core.errors import ImportRefusedError
from ssl_core.records import Task

Refusal: TypeAlias = tuple[int, str, str]  # line, path, reason


@dataclass(frozen=True, slots=True)
class Row:
    """One usable row: `line` is where it starts in the file (the header is usually line 1).

    `path` and `masks` are relative POSIX paths without "..". `labels` has one value a finding of
    the task: 1.0, 0.0 or NaN. `group` and `split` are None where no such column was chosen;
    `masks` has one entry a finding where columns of masks were, None for a blank cell.
    """

    line: int
    path: str
    group: str | None
    labels: Labels
    split: str | None
    masks: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a CSV said: the task, and its rows parted into usable and refused."""

    task: Task
    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]


def read_manifest(path: Path, columns: Columns) -> Manifest:
    """Read a comma-separated UTF-8 manifest.

    An empty label cell (or "nan") is unlabeled: all NaN. Labels compare as text; a `positive`
    that is a number also equals the same number written otherwise (1 and 1.0). In a multi-label
    cell a finding that is not listed is negative, as the row lists something. For segmentation
    1.0 says that a mask is named; a blank cell is NaN, since nobody has looked.

    Raises `ConfigError` for options that contradict each other, `ImportRefusedError` for a file
    that cannot be used, or that points outside the image folder.
    """
    check_columns(columns)
    records = _records(path)
    header = next(records, None)
    if header is None:
        raise ImportRefusedError(f"{path} is empty; it needs a header and one row an image.")
    at = _positions(path, header[1], columns)
    rows, cells, refusals = _rows(path, records, at, columns, len(header[1]))
    if not rows:
        first = "".join(f"; line {line}: {reason}" for line, _, reason in refusals[:1])
        raise ImportRefusedError(f"{path} has no usable row below its header{first}.")
    if columns.masks:
        return _outlined(rows, refusals, columns)
    task, meanings = understand(set(cells), columns)
    kept: list[Row] = []
    for row, cell in zip(rows, cells, strict=True):
        labels = meanings[cell]
        if isinstance(labels, str):
            refusals.append((row.line, row.path, labels))
        else:
            kept.append(replace(row, labels=labels))
    return Manifest(task, tuple(kept), tuple(sorted(refusals)))


def _text(path: Path) -> str:
    """Read the whole file as UTF-8, with or without a byte-order mark."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ImportRefusedError(
            f"The manifest {path} cannot be read ({error.strerror}); check the path."
        ) from error
    if b"\0" in raw:
        raise ImportRefusedError(
            f"{path} holds NUL bytes, so it is UTF-16 or no text; save it as 'CSV UTF-8'."
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ImportRefusedError(
            f"{path} is not UTF-8 (first at line {line}; perhaps Latin-1); save it as 'CSV UTF-8'."
        ) from error


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank, with the line that it starts on; cells are stripped."""
    # strict: an open quote would otherwise swallow the rest of the file as one cell.
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    line = 1
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ImportRefusedError(
            f"{path}, line {line}: the row is not proper CSV ({error}); look for a stray quote."
        ) from error


def _positions(path: Path, header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Map each chosen column name to its place; the header must hold it exactly once."""
    if len(header) == 1 and (found := [mark for mark in ";\t|" if mark in header[0]]):
        raise ImportRefusedError(
            f"{path} has one column, {show(header[0])}; its cells seem to be parted by "
            f"{found[0]!r}: save it with commas."
        )
    labels = (columns.label, columns.findings_column, *columns.masks)
    names = [n for n in (columns.path, columns.group, *labels, columns.split) if n is not None]
    for name in names:
        if header.count(name) > 1:
            raise ImportRefusedError(
                f"{path} has {header.count(name)} columns named {show(name)}; rename all but one."
            )
        if name not in header or not name:
            raise ImportRefusedError(
                f"{path} has no column {show(name)}{closest(name, header)}; "
                f"its columns are {listed(header)}."
            )
    return {name: header.index(name) for name in names}


def _rows(
    path: Path,
    records: Iterable[tuple[int, list[str]]],
    at: Mapping[str, int],
    columns: Columns,
    width: int,
) -> tuple[list[Row], list[str], list[Refusal]]:
    """Part the records into rows (labels still empty), their label cells, and refusals."""
    rows: list[Row] = []
    labels: list[str] = []
    refusals: list[Refusal] = []
    outside: list[str] = []
    column = columns.label or columns.findings_column or ""
    for line, cells in records:
        if len(cells) != width:
            refusals.append((line, "", f"it has {len(cells)} cells where the header has {width}"))
            continue
        used = {name: cells[i] for name, i in at.items()}
        image = used[columns.path]
        if reason := _unusable(used, columns):
            refusals.append((line, image if image.isprintable() else show(image), reason))
        elif isinstance(row := _row(line, used, columns), Row):
            rows.append(row)
            labels.append(known(used[column]) if column else "")
        else:
            outside.append(f"line {line}: {show(row)}")
    if outside:
        raise ImportRefusedError(
            f"{path} has paths that leave the image folder ({some(outside)}); every path must be "
            "relative to the folder, without '..'."
        )
    return rows, labels, refusals


def _unusable(used: Mapping[str, str], columns: Columns) -> str:
    """Say why a row cannot be used, or nothing."""
    for name, cell in used.items():
        if not cell.isprintable():
            return f"column {show(name)} holds unprintable characters: {show(cell)}"
    if not used[columns.path]:
        return f"column {show(columns.path)} is empty"
    # An unknown patient could stand in any split, so the row cannot be placed.
    if columns.group is not None and not used[columns.group]:
        return f"column {show(columns.group)} (the patient) is empty"
    return ""


def _row(line: int, used: Mapping[str, str], columns: Columns) -> Row | str:
    """Make one row without its labels; the path of its image or mask that leaves the folder."""
    told = columns.path_template.replace("{}", used[columns.path])
    image = _inside(told)
    if image is None:
        return told
    masks: list[str | None] = []
    for column in columns.masks:
        cell = known(used[column])
        told = columns.mask_template.replace("{}", cell)
        masks.append(_inside(told) if cell else None)
        if cell and masks[-1] is None:
            return told
    group = None if columns.group is None else used[columns.group]
    split = None if columns.split is None else used[columns.split]
    return Row(line, image, group, (), split, tuple(masks))


def _inside(text: str) -> str | None:
    """POSIX form of a relative path; None when it is absolute or climbs.

    Windows rules on every system: they know all of "/x", "C:x", "\\\\server\\x" and "..\\x".
    """
    path = PureWindowsPath(text)
    return None if path.anchor or ".." in path.parts else path.as_posix()


def _outlined(rows: Sequence[Row], refusals: Sequence[Refusal], columns: Columns) -> Manifest:
    """Segmentation: what has a mask is there, and where there is none, nobody has looked."""
    findings = columns.findings or columns.masks
    check_names(findings, columns.masks[0], "findings")
    if not any(mask for row in rows for mask in row.masks):
        raise ImportRefusedError(
            f"No row names a mask ({listed(columns.masks)}); draw some, or leave the mask column "
            "out and say that the images are unlabeled."
        )
    kept = [
        replace(row, labels=tuple(math.nan if mask is None else 1.0 for mask in row.masks))
        for row in rows
    ]
    return Manifest(Task("segmentation", findings), tuple(kept), tuple(sorted(refusals)))
