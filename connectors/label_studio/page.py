"""The page on which radiologists read in Label Studio, and what its results mean.

Pure: `label_config` writes the page, `read_result` understands what a reader submitted on it,
`hint_result` fills it in beforehand. Blocks of the page (their `from_name`):

- `answer`: binary and multi-class; the findings, "cannot tell" and "image unusable", one of them
- `f1`, `f2`, … by position: multi-label; present, "cannot tell", or nothing, which is absent
- `mask` and `f1`, …: segmentation; painted findings, and "cannot tell" for each
- `unusable` (multi-label, segmentation) and `reason`: an image that cannot be read, and why
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from connectors.label_studio.layout import layout
from connectors.label_studio.masks import region_mask
from ssl_core.records import Task

CANNOT_TELL = "cannot tell"
UNUSABLE = "image unusable"
REASONS = {
    "motion or blur": "shift+m",
    "exposure": "shift+e",
    "wrong view or body part": "shift+w",
    "cut off": "shift+c",
    "other": "shift+o",
}

# Each finding has a key, and "cannot tell" the key beneath it. Left out is what Label Studio takes
# itself: H (pan), and shift+1 and shift+2 (zoom); N marks the image unusable on every page. Where
# there is a brush, B and E are its tools, hence other keys for "cannot tell" there.
_PRESENT_KEYS, _UNSURE_KEYS = "1234567890asdfgjkl", "qwertyuiopzxcvbm"
_CLASS_KEYS = "1234567890qwertyuiopasdfgjklzxvbm"
_BRUSH_KEYS, _BRUSH_UNSURE_KEYS = "1234567890qwrtyuip", "asdfgjklozxcm"
_UNUSABLE_KEY, _CLASS_UNSURE_KEY = "n", "c"
# Label Studio gives a choice without a key the next free one, which is none when all of the above
# are taken, but could be E where there is a brush; this one cannot be pressed.
_NO_KEY = "ctrl+alt+shift+f19"
_REQUIRED = 'required="true" requiredMessage="Choose an answer, or mark the image unusable."'

_COLOURS = ("#ffb000", "#4cc9f0", "#f72585", "#80ed99", "#c77dff", "#ff7f51", "#ffe066", "#90e0ef")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class ResultError(ValueError):
    """A result that the page cannot have made; the message completes "task 17 of …: "."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one submitted result says.

    `answers` are every finding of the task, in order, with 1.0 / 0.0 / NaN; empty when unusable.
    `reason` says why an image is unusable ("" if the reader did not). `masks` are the findings
    that were painted, each with its `(H, W)` uint8 mask of 0 and 1 at the image's own size.
    """

    outcome: Literal["read", "unusable"]
    answers: tuple[tuple[str, float], ...]
    reason: str = ""
    masks: tuple[tuple[str, npt.NDArray[np.uint8]], ...] = ()


# The page -----------------------------------------------------------------------------------------


def label_config(task: Task) -> str:
    """The labeling page of `task` as Label Studio's XML; the image is the field `image`."""
    exclusive = " rl-exclusive" if task.kind in ("binary", "multi_class") else ""
    return layout(task.kind + exclusive, "\n".join(_body(task)), _key_line(task))


def shown_names(task: Task) -> tuple[str, ...]:
    """The findings as the page writes them, and as results name them: one line, all different.

    Label Studio would put task fields in place of `$words`, so the dollar is written wide.
    """
    taken = {CANNOT_TELL, UNUSABLE}
    names = []
    for position, finding in enumerate(task.findings, start=1):
        plain = " ".join(_NOT_XML.sub(" ", finding).replace("$", "＄").split())
        name = plain = plain or f"finding {position}"
        number = 1
        while name in taken:
            number += 1
            name = f"{plain} ({number})"
        taken.add(name)
        names.append(name)
    return tuple(names)


def _body(task: Task) -> Iterator[str]:
    names = shown_names(task)
    if task.kind in ("binary", "multi_class"):
        choices = _exclusive_choices(task)
        answer = _choices("answer", choices, _REQUIRED)
        yield f'<View className="rl-answer">{answer}</View>'
        yield _reasons("answer")
        return
    if task.kind == "segmentation":
        yield _brush_labels(names)
        unsure = zip(names, _padded(_BRUSH_UNSURE_KEYS, len(names), _NO_KEY), strict=True)
        for position, (name, key) in enumerate(unsure, start=1):
            yield f'<View className="rl-unsure"><Header value={quoteattr(name)} size="6"/>'
            yield _choices(f"f{position}", [(CANNOT_TELL, key)]) + "</View>"
    else:
        keys = _padded(_PRESENT_KEYS, len(names)), _padded(_UNSURE_KEYS, len(names))
        for position, (name, key, below) in enumerate(zip(names, *keys, strict=True), start=1):
            yield _choices(f"f{position}", [(name, key), (CANNOT_TELL, below)])
    unusable = _choices("unusable", [(UNUSABLE, _UNUSABLE_KEY)])
    yield f'<View className="rl-other">{unusable}{_reasons("unusable")}</View>'


def _exclusive_choices(task: Task) -> list[tuple[str, str]]:
    """The words of the one block of a binary or multi-class page, with their keys."""
    names = shown_names(task)
    if task.kind == "binary":
        answers = [(names[0], "1"), (f"no {names[0]}", "2"), (CANNOT_TELL, "3")]
    else:
        answers = list(zip(names, _padded(_CLASS_KEYS, len(names)), strict=True))
        answers.append((CANNOT_TELL, _CLASS_UNSURE_KEY))
    return [*answers, (UNUSABLE, _UNUSABLE_KEY)]


def _choices(name: str, choices: Iterable[tuple[str, str]], extra: str = "") -> str:
    inner = "".join(
        f"<Choice value={quoteattr(value)}" + (f' hotkey="{key}"/>' if key else "/>")
        for value, key in choices
    )
    head = f'<Choices name="{name}" toName="image" choice="single" layout="inline"'
    return f"{head} {extra}>{inner}</Choices>"


def _reasons(of: str) -> str:
    when = f'visibleWhen="choice-selected" whenTagName="{of}" whenChoiceValue="{UNUSABLE}"'
    inner = _choices("reason", REASONS.items(), when)
    return f'<View className="rl-reasons" {when}><Header value="Why?" size="6"/>{inner}</View>'


def _brush_labels(names: tuple[str, ...]) -> str:
    labels = "".join(
        f'<Label value={quoteattr(name)} hotkey="{key}" '
        f'background="{_COLOURS[position % len(_COLOURS)]}"/>'
        for position, (name, key) in enumerate(
            zip(names, _padded(_BRUSH_KEYS, len(names), _NO_KEY), strict=True)
        )
    )
    return f'<BrushLabels name="mask" toName="image">{labels}</BrushLabels>'


def _padded(keys: str, count: int, spare: str = "") -> list[str]:
    return [*keys[:count], *[spare] * (count - len(keys))]


def _key_line(task: Task) -> str:
    # With a region still selected, another finding's key would rename it instead of starting anew.
    first = {
        "multi_label": "A finding left open is absent. ",
        "segmentation": "Unpainted is absent. Press Esc before you paint another finding. ",
    }.get(task.kind, "")
    return f"{first}Submit: ctrl+enter. Skip: ctrl+space. Zoom: ctrl+wheel. Pan: h."


# What readers submitted ---------------------------------------------------------------------------


def unasked_findings(task: Task, offered: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The findings that a page with these words on offer, by block, does not ask about.

    Of answers that exclude each other all are in doubt when one of them is missing.
    """
    if task.kind in ("binary", "multi_class"):
        words = {word for word, _ in _exclusive_choices(task)}
        return frozenset(() if words <= set(offered.get("answer", ())) else task.findings)
    one = "mask" if task.kind == "segmentation" else ""  # one block for all, or each its own
    names = enumerate(zip(task.findings, shown_names(task), strict=True), start=1)
    return frozenset(f for n, (f, name) in names if name not in offered.get(one or f"f{n}", ()))


def read_result(task: Task, result: object, unasked: Collection[str] = ()) -> Reading:
    """Understand an annotation's `result` as it came from the API, whatever it is.

    Nothing submitted means absent where findings are ticked or painted, and unknown for findings
    that were not asked about. Raises `ResultError` for everything that this page cannot have made.
    """
    words, brushed = _sorted_out(task, result)
    marked = UNUSABLE in words.get("unusable", words.get("answer", ()))
    if marked:
        return Reading("unusable", (), reason=next(iter(words.get("reason", ())), ""))
    if words.get("reason"):
        raise ResultError("a reason is given, but the image is not marked unusable")
    masks = _merged_masks(task, brushed)
    exclusive = "answer" in _blocks(task)
    values = _exclusive(task, words) if exclusive else _ticked(task, words, masks)
    values = [
        math.nan if f in unasked and (exclusive or not v) else v
        for f, v in zip(task.findings, values, strict=True)
    ]
    return Reading("read", tuple(zip(task.findings, values, strict=True)), masks=masks)


def hint_result(task: Task, values: Mapping[str, float]) -> list[dict[str, Any]]:
    """The result of a prediction that ticks what `values` say: 1.0 present, NaN cannot tell.

    Findings at 0.0 are left unticked ("no …" where the task is binary), as are findings that
    `values` lacks. Raises `ValueError` for segmentation, for a finding that is not the task's and
    for two classes at once.
    """
    if task.kind == "segmentation":
        raise ValueError("A segmentation page takes no hints.")
    if strange := [finding for finding in values if finding not in task.findings]:
        raise ValueError(f"{strange[0]!r} is not a finding of the task.")
    names = shown_names(task)
    known = [
        (f, name, values[f]) for f, name in zip(task.findings, names, strict=True) if f in values
    ]
    if task.kind == "multi_label":
        blocks = [
            f"f{position}" for position, f in enumerate(task.findings, start=1) if f in values
        ]
        words = [CANNOT_TELL if math.isnan(v) else name if v == 1.0 else "" for _, name, v in known]
    else:
        words = [name for _, name, v in known if v == 1.0]
        if not words and known and all(math.isnan(v) for _, _, v in known):
            words = [CANNOT_TELL]
        elif not words and known and task.kind == "binary":
            words = [f"no {names[0]}"]
        if len(words) > 1:
            raise ValueError("A multi-class page can be hinted at one class only.")
        blocks = ["answer"] * len(words)
    return [_choice_result(b, word) for b, word in zip(blocks, words, strict=True) if word]


def _choice_result(block: str, word: str) -> dict[str, Any]:
    value = {"choices": [word]}
    return {"from_name": block, "to_name": "image", "type": "choices", "value": value}


def _blocks(task: Task) -> dict[str, tuple[str, ...]]:
    """The words that each block of the page offers."""
    names = shown_names(task)
    reasons = {"reason": tuple(REASONS)}
    if task.kind in ("binary", "multi_class"):
        return {"answer": tuple(word for word, _ in _exclusive_choices(task))} | reasons
    each: dict[str, tuple[str, ...]] = {
        f"f{n}": (name, CANNOT_TELL) for n, name in enumerate(names, start=1)
    }
    if task.kind == "segmentation":
        each = {"mask": names} | dict.fromkeys(each, (CANNOT_TELL,))
    return each | {"unusable": (UNUSABLE,)} | reasons


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
        block, chosen = _checked(_blocks(task), region)
        if block == "mask":
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


def _ticked(
    task: Task, words: Mapping[str, set[str]], masks: tuple[tuple[str, npt.NDArray[np.uint8]], ...]
) -> list[float]:
    painted = {finding for finding, _ in masks}
    values = []
    for position, finding in enumerate(task.findings, start=1):
        chosen = words.get(f"f{position}", set())
        unsure = CANNOT_TELL in chosen
        if unsure and finding in painted:
            raise ResultError(f"{finding!r} is painted and marked {CANNOT_TELL!r}")
        values.append(math.nan if unsure else float(bool(chosen) or finding in painted))
    return values


def _merged_masks(
    task: Task, brushed: list[tuple[str, Mapping[str, Any]]]
) -> tuple[tuple[str, npt.NDArray[np.uint8]], ...]:
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
