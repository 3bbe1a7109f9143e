"""The page on which radiologists read in Label Studio.

Pure: `label_config` writes the page, `hint_result` fills it in beforehand, and
`results.read_result` understands what a reader submitted on it. Blocks of the page (their
`from_name`):

- `answer`: binary and multi-class; the findings, "cannot tell" and "image unusable", one of them
- `f1`, `f2`, … by position: multi-label; present, "cannot tell", or nothing, which is absent
- `mask` and `f1`, …: segmentation; painted findings, and "absent" or "cannot tell" for each: what
  is neither painted nor marked was not looked at
- `unusable` (multi-label, segmentation) and `reason`: an image that cannot be read, and why
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from connectors.label_studio.layout import layout
from connectors.label_studio.masks import encode_mask
from ssl_core.records import Task

ABSENT = "absent"
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
# there is a brush, B and E are its tools, hence other keys there: one for "absent", which with
# shift is "cannot tell".
_PRESENT_KEYS, _UNSURE_KEYS = "1234567890asdfgjkl", "qwertyuiopzxcvbm"
_CLASS_KEYS = "1234567890qwertyuiopasdfgjklzxvbm"
_BRUSH_KEYS, _BRUSH_ABSENT_KEYS = "1234567890qwrtyuip", "asdfgjklzxocm"
_BRUSH_UNSURE_KEYS = [f"shift+{key}" for key in _BRUSH_ABSENT_KEYS[:10]]  # the others are reasons'
_UNUSABLE_KEY, _CLASS_UNSURE_KEY = "n", "c"
# Label Studio gives a choice without a key the next free one, which is none when all of the above
# are taken, but could be E where there is a brush; this one cannot be pressed.
_NO_KEY = "ctrl+alt+shift+f19"
_REQUIRED = 'required="true" requiredMessage="Choose an answer, or mark the image unusable."'

_COLOURS = ("#ffb000", "#4cc9f0", "#f72585", "#80ed99", "#c77dff", "#ff7f51", "#ffe066", "#90e0ef")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
        absent = _padded(_BRUSH_ABSENT_KEYS, len(names), _NO_KEY)
        unsure = _padded(_BRUSH_UNSURE_KEYS, len(names), _NO_KEY)
        each = zip(names, absent, unsure, strict=True)
        for position, (name, key, other) in enumerate(each, start=1):
            yield f'<View className="rl-drawn"><Header value={quoteattr(name)} size="6"/>'
            yield _choices(f"f{position}", [(ABSENT, key), (CANNOT_TELL, other)]) + "</View>"
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


def _padded(keys: Sequence[str], count: int, spare: str = "") -> list[str]:
    return [*keys[:count], *[spare] * (count - len(keys))]


def _key_line(task: Task) -> str:
    # With a region still selected, another finding's key would rename it instead of starting anew.
    first = {
        "multi_label": "A finding left open is absent. ",
        "segmentation": "Paint a finding, or mark it absent: what is left open was not looked at. "
        "Press Esc before you paint another finding. ",
    }.get(task.kind, "")
    return f"{first}Submit: ctrl+enter. Skip: ctrl+space. Zoom: ctrl+wheel. Pan: h."


# What it asks, and what it is filled in with ------------------------------------------------------


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


def hint_result(
    task: Task,
    values: Mapping[str, float],
    masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> list[dict[str, Any]]:
    """The result of a prediction that ticks what `values` say: 1.0 present, NaN cannot tell.

    Findings at 0.0 are left unticked ("no …" where the task is binary, "absent" where findings are
    painted), as are findings that `values` lacks. `masks` `(H, W)`, of the picture that the reader
    sees, paint the findings at 1.0; one without a painted pixel is left open.
    Raises `ValueError` for a finding that is not the task's and for two classes at once.
    """
    if strange := [finding for finding in values if finding not in task.findings]:
        raise ValueError(f"{strange[0]!r} is not a finding of the task.")
    if task.kind == "segmentation":
        return list(_painted(task, values, masks or {}))
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


def _painted(
    task: Task, values: Mapping[str, float], masks: Mapping[str, npt.NDArray[np.bool_]]
) -> Iterator[dict[str, Any]]:
    named = zip(task.findings, shown_names(task), strict=True)
    for position, (finding, name) in enumerate(named, start=1):
        value, mask = values.get(finding), masks.get(finding)
        if value == 1.0 and mask is not None and mask.any():
            yield _brush_result(name, mask)
        elif value is not None and value != 1.0:
            yield _choice_result(f"f{position}", CANNOT_TELL if math.isnan(value) else ABSENT)


def _brush_result(word: str, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    height, width = mask.shape
    packed = encode_mask(mask.astype(np.uint8))
    return {
        "from_name": "mask",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": packed, "brushlabels": [word]},
    }


def _choice_result(block: str, word: str) -> dict[str, Any]:
    value = {"choices": [word]}
    return {"from_name": block, "to_name": "image", "type": "choices", "value": value}


def blocks_of(task: Task) -> dict[str, tuple[str, ...]]:
    """The words that each block of the page offers."""
    names = shown_names(task)
    reasons = {"reason": tuple(REASONS)}
    if task.kind in ("binary", "multi_class"):
        return {"answer": tuple(word for word, _ in _exclusive_choices(task))} | reasons
    each: dict[str, tuple[str, ...]] = {
        f"f{n}": (name, CANNOT_TELL) for n, name in enumerate(names, start=1)
    }
    if task.kind == "segmentation":
        each = {"mask": names} | dict.fromkeys(each, (ABSENT, CANNOT_TELL))
    return each | {"unusable": (UNUSABLE,)} | reasons
