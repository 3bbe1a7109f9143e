"""What readers submitted on the labeling page (see `page`), understood or refused with a phrase."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from connectors.label_studio.masks import region_mask
from connectors.label_studio.page import (
    ABSENT,
    CANNOT_TELL,
    UNUSABLE,
    blocks_of,
    shown_names,
)
from ssl_core.records import Task

Painted = tuple[tuple[str, npt.NDArray[np.uint8]], ...]
"""The findings that were painted, each with its `(H, W)` mask of 0 and 1."""


class ResultError(ValueError):
    """A result that the page cannot have made; the message completes "task 17 of …: "."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one submitted result says.

    `answers` are every finding of the task, in order, with 1.0 / 0.0 / NaN; empty when unusable.
    Where findings are painted, what was neither painted nor marked is not among them. `reason`
    says why an image is unusable ("" if the reader did not). `masks` are at the size of the
    picture that the reader saw.
    """

    outcome: Literal["read", "unusable"]
    answers: tuple[tuple[str, float], ...]
    reason: str = ""
    masks: Painted = ()


def read_result(task: Task, result: object, unasked: Collection[str] = ()) -> Reading:
    """Understand an annotation's `result` as it came from the API, whatever it is.

    Nothing submitted means absent where findings are ticked, and unknown for findings that were
    not asked about. Raises `ResultError` for everything that this page cannot have made.
    """
    words, brushed = _sorted_out(task, result)
    marked = UNUSABLE in words.get("unusable", words.get("answer", ()))
    if marked:
        return Reading("unusable", (), reason=next(iter(words.get("reason", ())), ""))
    if words.get("reason"):
        raise ResultError("a reason is given, but the image is not marked unusable")
    if task.kind == "segmentation":
        masks = _merged_masks(task, brushed)
        return Reading("read", tuple(_drawn(task, words, masks, unasked)), masks=masks)
    exclusive = "answer" in blocks_of(task)
    values = _exclusive(task, words) if exclusive else _ticked(task, words)
    values = [
        math.nan if f in unasked and (exclusive or not v) else v
        for f, v in zip(task.findings, values, strict=True)
    ]
    return Reading("read", tuple(zip(task.findings, values, strict=True)))


def _sorted_out(
    task: Task, result: object
) -> tuple[dict[str, set[str]], list[tuple[str, Mapping[str, Any]]]]:
    """The words ticked in each block, and the painted regions with their finding's shown name."""
    if result is None:
        result = []
    if not isinstance(result, list):
        raise ResultError("the result is not a list")
    words: dict[str, set[str]] = {}
    brushed: list[tuple[str, Mapping[str, Any]]] = []
    for region in result:
        block, chosen = _checked(blocks_of(task), region)
        if block == "mask":
            if not chosen:
                raise ResultError("a painted region names no finding")
            brushed.extend((word, region) for word in chosen)
        else:
            words.setdefault(block, set()).update(chosen)
    for chosen_words in words.values():
        if len(chosen_words) > 1:
            both = " and ".join(repr(word) for word in sorted(chosen_words))
            raise ResultError(f"the answers {both} exclude each other")
    return words, brushed


def _checked(offered: Mapping[str, tuple[str, ...]], region: object) -> tuple[str, list[str]]:
    """The block that a region of the result belongs to, and its words; all of them on offer."""
    if not isinstance(region, dict):
        raise ResultError("the result holds something that is not an answer")
    block = region.get("from_name")
    if not isinstance(block, str) or block not in offered:
        raise ResultError(f"the page has no block {_cut(block)}; it has {', '.join(offered)}")
    kind = "brushlabels" if block == "mask" else "choices"
    if region.get("type") != kind or region.get("to_name") != "image":
        raise ResultError(f"the block {block!r} holds something other than {kind} of the image")
    value = region.get("value")
    words = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(words, list):
        raise ResultError(f"the block {block!r} holds no list of {kind}")
    for word in words:
        if not isinstance(word, str) or word not in offered[block]:
            there = ", ".join(offered[block])
            raise ResultError(f"the choice {_cut(word)} is unknown; the page offers {there}")
    return block, words


def _exclusive(task: Task, words: Mapping[str, set[str]]) -> list[float]:
    (word,) = words.get("answer") or ("",)
    if not word:
        raise ResultError("no answer is given")
    if word == CANNOT_TELL:
        return [math.nan] * len(task.findings)
    return [float(word == name) for name in shown_names(task)]


def _ticked(task: Task, words: Mapping[str, set[str]]) -> list[float]:
    each = [words.get(f"f{position}", set()) for position in range(1, len(task.findings) + 1)]
    return [math.nan if CANNOT_TELL in chosen else float(bool(chosen)) for chosen in each]


def _drawn(
    task: Task, words: Mapping[str, set[str]], masks: Painted, unasked: Collection[str]
) -> list[tuple[str, float]]:
    """What was painted or marked; nothing at all is no answer, since nobody may have looked."""
    painted, answers = {finding for finding, _ in masks}, list[tuple[str, float]]()
    for position, finding in enumerate(task.findings, start=1):
        (word,) = words.get(f"f{position}") or ("",)
        if word and finding in painted:
            raise ResultError(f"{finding!r} is painted and marked {word!r}")
        if finding in painted or (word and finding not in unasked):
            value = 1.0 if finding in painted else 0.0 if word == ABSENT else math.nan
            answers.append((finding, value))
    if not answers:
        raise ResultError(f"nothing is painted, and nothing marked {ABSENT!r} or {CANNOT_TELL!r}")
    return answers


def _merged_masks(task: Task, brushed: list[tuple[str, Mapping[str, Any]]]) -> Painted:
    """One mask a painted finding: the union of its regions; erased to nothing is not painted."""
    masks: dict[str, npt.NDArray[np.uint8]] = {}
    shape: tuple[int, ...] | None = None
    for name, region in brushed:
        try:
            mask = region_mask(region)
        except ValueError as error:
            raise ResultError(f"the mask of {name!r} is unreadable: {error}") from error
        if shape is not None and mask.shape != shape:
            raise ResultError("its masks are of different sizes")
        shape = mask.shape
        masks[name] = np.maximum(masks[name], mask) if name in masks else mask
    named = zip(task.findings, shown_names(task), strict=True)
    return tuple((f, masks[name]) for f, name in named if name in masks and masks[name].any())


def _cut(word: object) -> str:
    """A word of unknown origin, short enough for a message."""
    text = repr(word) if isinstance(word, str) else f"of type {type(word).__name__}"
    return text if len(text) <= 60 else f"{text[:56]}…'"
