"""A manifest (CSV, one row an image) becomes a task and typed rows; nothing is opened but the CSV.

A row that cannot be used is refused by line with a reason; a manifest that cannot be used at all
raises `ImportRefusedError`. Text from the manifest enters a message only through `_show`, and a
row with unprintable characters is refused, so that no manifest can drive a terminal.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TypeAlias

from ssl_core.errors import ConfigError, ImportRefusedError
from ssl_core.records import Task, TaskKind

MOST_FINDINGS, LONGEST_NAME = 100, 100

Labels: TypeAlias = tuple[float, ...]
Refusal: TypeAlias = tuple[int, str, str]  # line, path, reason
# What a cell's text says: its labels, or the reason why its rows are refused.
Meanings: TypeAlias = Mapping[str, Labels | str]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; names must match exactly, but blanks around them in the file.

    One kind of label is chosen: `label` with `positive` (binary), `label` alone (multi-class),
    `findings_column` (multi-label), or `masks` (segmentation: a column of paths a finding).
    `group` is the patient; None says on purpose that there is no such column. `path_template`
    turns the path cell into a path ("images/{}.jpg"), and `mask_template` every mask cell.
    `findings` names the findings to keep, in order; empty means every word of the column. For
    masks it names the finding of each column; empty means the columns' own names. `unlabeled`
    says that no row is labeled, and what readers will be asked about the `findings`.
    """

    path: str
    group: str | None
    label: str | None = None
    positive: str | None = None
    findings_column: str | None = None
    separator: str = "|"
    findings: tuple[str, ...] = ()
    negative: str = "No Finding"
    masks: tuple[str, ...] = ()
    split: str | None = None
    path_template: str = "{}"
    mask_template: str = "{}"
    unlabeled: TaskKind | None = None


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
    _check_options(columns)
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
    task, meanings = _understand(set(cells), columns)
    kept: list[Row] = []
    for row, cell in zip(rows, cells, strict=True):
        labels = meanings[cell]
        if isinstance(labels, str):
            refusals.append((row.line, row.path, labels))
        else:
            kept.append(replace(row, labels=labels))
    return Manifest(task, tuple(kept), tuple(sorted(refusals)))


def _check_options(columns: Columns) -> None:
    """Refuse choices of columns that contradict each other."""
    if columns.label and columns.findings_column:
        raise ConfigError("A label column and a findings column were both given; choose one.")
    if columns.unlabeled is not None:
        _check_unlabeled(columns)
    elif not (columns.label or columns.findings_column or columns.masks):
        raise ConfigError(
            "Say where the labels are (a label, findings or mask column), or that no row has any "
            "(unlabeled)."
        )
    if columns.positive is not None and not columns.label:
        raise ConfigError("A positive value needs a label column.")
    if columns.masks and columns.unlabeled is None:
        _check_masks(columns)
    elif columns.findings and not columns.findings_column and columns.unlabeled is None:
        raise ConfigError("A list of findings needs a findings or mask column.")
    if not columns.separator:
        raise ConfigError("The separator between findings is empty; give one, such as '|'.")
    if len(set(columns.findings)) < len(columns.findings) or not all(columns.findings):
        raise ConfigError("The list of findings has an empty or a repeated name.")
    if columns.negative in columns.findings:
        raise ConfigError(
            f"{_show(columns.negative)} is the word for no finding and also named as a finding."
        )
    for what, template in (("path", columns.path_template), ("mask", columns.mask_template)):
        if template.count("{}") != 1:
            raise ConfigError(
                f"The {what} template {_show(template)} needs {{}} once, for the cell."
            )


def _check_masks(columns: Columns) -> None:
    """Refuse columns of masks that are no task of their own, or have no name each."""
    if columns.label or columns.findings_column:
        raise ConfigError(
            "Masks are a task of their own: give mask columns, or a label or findings column, and "
            "not both."
        )
    if len(set(columns.masks)) < len(columns.masks) or not all(columns.masks):
        raise ConfigError("The list of mask columns has an empty or a repeated name.")
    if columns.findings and len(columns.findings) != len(columns.masks):
        raise ConfigError(
            f"{len(columns.findings)} findings were named for {len(columns.masks)} mask columns; "
            "name one for each, in their order, or none."
        )


def _check_unlabeled(columns: Columns) -> None:
    """Refuse a question to readers that has no, or too few, findings."""
    if columns.label or columns.findings_column or columns.masks:
        raise ConfigError("Unlabeled images and a column of labels contradict each other.")
    wanted = {"binary": (1, 1), "multi_class": (2, MOST_FINDINGS)}
    least, most = wanted.get(str(columns.unlabeled), (1, MOST_FINDINGS))
    if not least <= len(columns.findings) <= most:
        raise ConfigError(
            f"Unlabeled {columns.unlabeled} images need {least} to {most} named findings, and "
            f"{len(columns.findings)} were given."
        )


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
            f"{path} has one column, {_show(header[0])}; its cells seem to be parted by "
            f"{found[0]!r}: save it with commas."
        )
    labels = (columns.label, columns.findings_column, *columns.masks)
    names = [n for n in (columns.path, columns.group, *labels, columns.split) if n is not None]
    for name in names:
        if header.count(name) > 1:
            raise ImportRefusedError(
                f"{path} has {header.count(name)} columns named {_show(name)}; rename all but one."
            )
        if name not in header or not name:
            raise ImportRefusedError(
                f"{path} has no column {_show(name)}{_closest(name, header)}; "
                f"its columns are {_listed(header)}."
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
            refusals.append((line, image if image.isprintable() else _show(image), reason))
        elif isinstance(row := _row(line, used, columns), Row):
            rows.append(row)
            labels.append(_known(used[column]) if column else "")
        else:
            outside.append(f"line {line}: {_show(row)}")
    if outside:
        raise ImportRefusedError(
            f"{path} has paths that leave the image folder ({_some(outside)}); every path must be "
            "relative to the folder, without '..'."
        )
    return rows, labels, refusals


def _unusable(used: Mapping[str, str], columns: Columns) -> str:
    """Say why a row cannot be used, or nothing."""
    for name, cell in used.items():
        if not cell.isprintable():
            return f"column {_show(name)} holds unprintable characters: {_show(cell)}"
    if not used[columns.path]:
        return f"column {_show(columns.path)} is empty"
    # An unknown patient could stand in any split, so the row cannot be placed.
    if columns.group is not None and not used[columns.group]:
        return f"column {_show(columns.group)} (the patient) is empty"
    return ""


def _row(line: int, used: Mapping[str, str], columns: Columns) -> Row | str:
    """Make one row without its labels; the path of its image or mask that leaves the folder."""
    told = columns.path_template.replace("{}", used[columns.path])
    image = _inside(told)
    if image is None:
        return told
    masks: list[str | None] = []
    for column in columns.masks:
        cell = _known(used[column])
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


def _understand(cells: set[str], columns: Columns) -> tuple[Task, Meanings]:
    """Find the task, and what each distinct label cell says."""
    values = sorted(cells - {""})
    column = columns.label or columns.findings_column or ""
    if columns.unlabeled is not None:
        _check_names(columns.findings, "", "findings")
        unknown: Labels = (math.nan,) * len(columns.findings)
        return Task(columns.unlabeled, columns.findings), {"": unknown}
    if not values:
        raise ImportRefusedError(
            f"Column {_show(column)} is empty in every row; label a few rows of each class, or "
            "leave the column out and say that the images are unlabeled."
        )
    if columns.label and columns.positive is not None:
        return _binary(values, columns.label, columns.positive)
    if columns.label:
        return _multi_class(values, columns.label)
    return _multi_label(values, columns)


def _outlined(rows: Sequence[Row], refusals: Sequence[Refusal], columns: Columns) -> Manifest:
    """Segmentation: what has a mask is there, and where there is none, nobody has looked."""
    findings = columns.findings or columns.masks
    _check_names(findings, columns.masks[0], "findings")
    if not any(mask for row in rows for mask in row.masks):
        raise ImportRefusedError(
            f"No row names a mask ({_listed(columns.masks)}); draw some, or leave the mask column "
            "out and say that the images are unlabeled."
        )
    kept = [
        replace(row, labels=tuple(math.nan if mask is None else 1.0 for mask in row.masks))
        for row in rows
    ]
    return Manifest(Task("segmentation", findings), tuple(kept), tuple(sorted(refusals)))


def _binary(values: Sequence[str], column: str, positive: str) -> tuple[Task, Meanings]:
    """One finding: the positive value against every other."""
    present = [value for value in values if _same(value, positive)]
    if not present:
        raise ImportRefusedError(
            f"Column {_show(column)} never holds the positive value {_show(positive)}"
            f"{_closest(positive, values)}; its values are {_listed(values)}."
        )
    if len(present) == len(values):
        raise ImportRefusedError(
            f"Column {_show(column)} holds {_show(positive)} alone; a binary label needs "
            "negatives too (an empty cell is unlabeled)."
        )
    # "1" says nothing as a finding's name; the column does.
    bare = _number(positive) is not None or positive.casefold() in ("true", "yes")
    meanings: dict[str, Labels | str] = {value: (float(value in present),) for value in values}
    return Task("binary", (column if bare else positive,)), meanings | {"": (math.nan,)}


def _multi_class(values: Sequence[str], column: str) -> tuple[Task, Meanings]:
    """One finding a class, in sorted order; exactly one holds."""
    if len(values) < 2:
        raise ImportRefusedError(
            f"Column {_show(column)} holds the one class {_show(values[0])}; at least two are "
            "needed."
        )
    _check_names(values, column, "classes; is it the right column?")
    meanings: dict[str, Labels | str] = {
        value: tuple(float(value == other) for other in values) for value in values
    }
    return Task("multi_class", tuple(values)), meanings | {"": (math.nan,) * len(values)}


def _multi_label(values: Sequence[str], columns: Columns) -> tuple[Task, Meanings]:
    """Any number of findings; the listed ones are positive, the rest negative."""
    column = columns.findings_column or ""
    words = {value: {w.strip() for w in value.split(columns.separator)} - {""} for value in values}
    there = sorted(set().union(*words.values()) - {columns.negative})
    findings = columns.findings or tuple(there)
    if absent := [finding for finding in findings if finding not in there]:
        raise ImportRefusedError(
            f"Column {_show(column)} never lists the finding {_show(absent[0])}"
            f"{_closest(absent[0], there)}; it lists {_listed(there)}."
        )
    if not findings:
        raise ImportRefusedError(f"Column {_show(column)} lists no finding in any row.")
    _check_names(findings, column, "findings; are the column and the separator right?")
    meanings: dict[str, Labels | str] = {"": (math.nan,) * len(findings)}
    for value, listed in words.items():
        if columns.negative in listed and listed.intersection(findings):
            meanings[value] = f"it lists {_show(columns.negative)} beside a finding: {_show(value)}"
        elif listed:
            meanings[value] = tuple(float(finding in listed) for finding in findings)
        else:
            meanings[value] = meanings[""]
    return Task("multi_label", findings), meanings


def _check_names(names: Sequence[str], column: str, what: str) -> None:
    longest = max(names, key=len)
    if len(longest) > LONGEST_NAME:
        raise ImportRefusedError(
            f"Column {_show(column)} holds {_show(longest)} of {len(longest):,} characters among "
            f"its {what} (at most {LONGEST_NAME})"
        )
    if len(names) > MOST_FINDINGS:
        raise ImportRefusedError(
            f"Column {_show(column)} holds {len(names)} {what} (at most {MOST_FINDINGS}; "
            f"first: {_listed(names[:3])})"
        )


def _known(cell: str) -> str:
    """Read "nan", which is how numpy and pandas print a missing value, as an empty cell."""
    return "" if cell.casefold() == "nan" else cell


def _same(value: str, other: str) -> bool:
    return value == other or ((n := _number(value)) is not None and n == _number(other))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _show(text: str) -> str:
    """Quote text for a message: escaped, and short."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _some(texts: Sequence[str], most: int = 10) -> str:
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def _listed(names: Sequence[str]) -> str:
    return _some([_show(name) for name in names], 20)


def _closest(name: str, there: Iterable[str]) -> str:
    """' (did you mean ...?)' for the nearest name, whatever its case; else nothing."""
    folded = {other.casefold(): other for other in there}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {_show(folded[near[0]])}?)" if near else ""
