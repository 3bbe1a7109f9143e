"""What the cells of a manifest's label column say: a task, and the labels of each distinct cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from connectors.columns import MOST_FINDINGS, Columns
from connectors.quoting import closest, listed, show
from ssl_core.errors import ImportRefusedError
from ssl_core.records import Task

LONGEST_NAME = 100

Labels: TypeAlias = tuple[float, ...]
# What a cell's text says: its labels, or the reason why its rows are refused.
Meanings: TypeAlias = Mapping[str, Labels | str]


def understand(cells: set[str], columns: Columns) -> tuple[Task, Meanings]:
    """Find the task, and what each distinct label cell says."""
    values = sorted(cells - {""})
    column = columns.label or columns.findings_column or ""
    if columns.unlabeled is not None:
        check_names(columns.findings, "", "findings")
        unknown: Labels = (math.nan,) * len(columns.findings)
        return Task(columns.unlabeled, columns.findings), {"": unknown}
    if not values:
        raise ImportRefusedError(
            f"Column {show(column)} is empty in every row; label a few rows of each class, or "
            "leave the column out and say that the images are unlabeled."
        )
    if columns.label and columns.positive is not None:
        return _binary(values, columns.label, columns.positive)
    if columns.label:
        return _multi_class(values, columns.label)
    return _multi_label(values, columns)


def _binary(values: Sequence[str], column: str, positive: str) -> tuple[Task, Meanings]:
    """One finding: the positive value against every other."""
    present = [value for value in values if _same(value, positive)]
    if not present:
        raise ImportRefusedError(
            f"Column {show(column)} never holds the positive value {show(positive)}"
            f"{closest(positive, values)}; its values are {listed(values)}."
        )
    if len(present) == len(values):
        raise ImportRefusedError(
            f"Column {show(column)} holds {show(positive)} alone; a binary label needs "
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
            f"Column {show(column)} holds the one class {show(values[0])}; at least two are needed."
        )
    check_names(values, column, "classes; is it the right column?")
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
            f"Column {show(column)} never lists the finding {show(absent[0])}"
            f"{closest(absent[0], there)}; it lists {listed(there)}."
        )
    if not findings:
        raise ImportRefusedError(f"Column {show(column)} lists no finding in any row.")
    check_names(findings, column, "findings; are the column and the separator right?")
    meanings: dict[str, Labels | str] = {"": (math.nan,) * len(findings)}
    for value, found in words.items():
        if columns.negative in found and found.intersection(findings):
            meanings[value] = f"it lists {show(columns.negative)} beside a finding: {show(value)}"
        elif found:
            meanings[value] = tuple(float(finding in found) for finding in findings)
        else:
            meanings[value] = meanings[""]
    return Task("multi_label", findings), meanings


def check_names(names: Sequence[str], column: str, what: str) -> None:
    """Refuse findings that are too many, or too long to be names; `what` says what they are."""
    longest = max(names, key=len)
    if len(longest) > LONGEST_NAME:
        raise ImportRefusedError(
            f"Column {show(column)} holds {show(longest)} of {len(longest):,} characters among "
            f"its {what} (at most {LONGEST_NAME})"
        )
    if len(names) > MOST_FINDINGS:
        raise ImportRefusedError(
            f"Column {show(column)} holds {len(names)} {what} (at most {MOST_FINDINGS}; "
            f"first: {listed(names[:3])})"
        )


def known(cell: str) -> str:
    """Read "nan", which is how numpy and pandas print a missing value, as an empty cell."""
    return "" if cell.casefold() == "nan" else cell


def _same(value: str, other: str) -> bool:
    return value == other or ((n := _number(value)) is not None and n == _number(other))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
