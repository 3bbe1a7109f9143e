"""What readers did in a project since a moment, checked: the server takes any answer whatever."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from connectors.label_studio.client import Client, Gone
from connectors.label_studio.results import ResultError, read_result
from connectors.label_studio.tasks import listed
from ssl_core.errors import ImageError
from ssl_core.records import Pulled, Read, Rejection, Task

FIELDS = (
    "id,data,updated_at,annotations.id,annotations.result,annotations.lead_time,"
    "annotations.was_cancelled,annotations.completed_by,annotations.created_at,"
    "annotations.updated_at"
)
# Asked to expand them, the server makes one reader of annotations a page and not one a task:
# less than half the time.
EXPAND = "annotations"


@dataclass(frozen=True, slots=True)
class Desk:
    """One reader's project, as answers are read from it.

    `others` maps an account's id to the other reader it belongs to: an answer given by that
    account here would pass for this reader's. `ticket` gives what a task of an item carries if it
    was put there for this reader. `made` is when the project was made, which tells it from one
    with the same number on another server. `unasked` are findings that its page, edited by hand,
    does not ask about. `keep` takes what was painted on an item's picture, `(H, W)` boolean, and
    gives the digest of the kept mask; it raises `ValueError` with a phrase for what does not fit.
    """

    project: int
    reader: str
    task: Task
    others: Mapping[int, str] = field(default_factory=dict)
    ticket: Callable[[str], str] | None = None
    made: str = ""
    unasked: frozenset[str] = frozenset()
    keep: Callable[[str, npt.NDArray[np.bool_]], str] | None = None


def answers(
    client: Client, desk: Desk, since: str, doubtful: Sequence[int]
) -> Iterator[tuple[Pulled, list[int]]]:
    """Pages of what changed after `since` ("" is always), and the tasks that were not taken.

    `doubtful` are tasks that were not taken before; they are looked at again.
    """
    filters = [_changed_after(since)] if since else []
    seen: set[int] = set()
    for page in listed(client, desk.project, FIELDS, filters, expand=EXPAND):
        seen |= {task["id"] for task in page}
        yield _read_page(desk, page)
    again = [task for number in doubtful if number not in seen for task in _look(client, number)]
    if again:
        yield _read_page(desk, again)


def _changed_after(since: str) -> dict[str, Any]:
    return {
        "filter": "filter:tasks:updated_at",
        "operator": "greater",
        "type": "Datetime",
        "value": since,
    }


def _look(client: Client, number: int) -> list[dict[str, Any]]:
    try:
        return [client.get(f"api/tasks/{number}/")]
    except Gone:
        return []


def _read_page(desk: Desk, page: Sequence[dict[str, Any]]) -> tuple[Pulled, list[int]]:
    """A page's reads, and the tasks it did not take."""
    reads: list[Read] = []
    rejections: list[Rejection] = []
    doubtful: list[int] = []
    for task in page:
        try:
            read = read_task(desk, task)
            if read is not None:
                reads.append(read)
        except ResultError as error:
            place = f"task {task['id']} of {desk.reader}'s project {desk.project}"
            rejections.append(Rejection(place, str(error)))
            doubtful.append(task["id"])
    reads.sort(key=lambda read: read.read_at or "")
    return Pulled(tuple(reads), tuple(rejections)), doubtful


def read_task(desk: Desk, task: Mapping[str, Any]) -> Read | None:
    """What stands in a task now, as one read: answered, unusable, skipped, or nothing at all.

    None for a task of somebody else's that nobody answered. Raises `ResultError` with what is
    wrong about it and what to do.
    """
    given, live, place = _given(task), _live(task), _place(desk, task)
    item_id = _item_id(desk, task)
    if not item_id:
        if not live:
            return None
        raise ResultError(
            "it was not put there by Readloop, and its answer is not taken: delete the task"
        )
    if len(live) > 1:
        numbers = ", ".join(str(a.get("id")) for a in live)
        raise ResultError(f"it holds {len(live)} annotations ({numbers}): delete all but one")
    if not given:
        # Either nobody answered yet or an answer was deleted; the ledger knows which.
        key = f"label_studio:{place}:{task.get('updated_at')}"
        return Read(key, item_id, desk.reader, "label_studio", "withdrawn", place=place)
    one = live[0] if live else given[-1]
    _refuse_strangers(desk, one)
    # A skip holds again when the answer that was given after it is deleted, which leaves the skip
    # as it was but not the task.
    moment = one.get("updated_at") if live else f"{one.get('updated_at')}:{task.get('updated_at')}"
    read = Read(
        key=f"label_studio:{place} annotation {one.get('id')}:{moment}",
        item_id=item_id,
        reader=desk.reader,
        source="label_studio",
        outcome="skipped",
        seconds=_seconds(one.get("lead_time")),
        read_at=str(one.get("updated_at") or one.get("created_at") or ""),
        place=place,
    )
    if not live:
        return read
    try:
        return _answered(desk, read, one.get("result"))
    except ResultError as error:
        number = one.get("id")
        raise ResultError(f"{error}; correct annotation {number} there, or delete it") from None


def _place(desk: Desk, task: Mapping[str, Any]) -> str:
    made = f" (made {desk.made})" if desk.made else ""
    return f"task {task.get('id')} of {desk.reader}'s project {desk.project}{made}"


def _given(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = task.get("annotations") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ResultError("its annotations cannot be understood: delete the task")
    return given


def _live(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The annotations that were submitted, not skipped."""
    return [one for one in _given(task) if not one.get("was_cancelled")]


def _answered(desk: Desk, read: Read, result: object) -> Read:
    found = read_result(desk.task, result, desk.unasked)
    masks = tuple((f, _kept(desk, read.item_id, f, mask == 1)) for f, mask in found.masks)
    return replace(
        read, outcome=found.outcome, answers=found.answers, reason=found.reason, masks=masks
    )


def _kept(desk: Desk, item_id: str, finding: str, mask: npt.NDArray[np.bool_]) -> str:
    if desk.keep is None:
        raise ResultError("masks are not taken in here")
    try:
        return desk.keep(item_id, mask)
    except (ValueError, ImageError) as error:
        why = str(error).rstrip(".")
        raise ResultError(f"the mask of {finding!r} cannot be taken: {why}") from error


def _item_id(desk: Desk, task: Mapping[str, Any]) -> str:
    """The item that a task asks about; "" if it was not put there for this reader."""
    data = task.get("data")
    item_id = data.get("external_id") if isinstance(data, dict) else None
    if not data or not isinstance(item_id, str):
        return ""
    if desk.ticket is not None and data.get("ticket") != desk.ticket(item_id):
        return ""
    return item_id


def _refuse_strangers(desk: Desk, annotation: Mapping[str, Any]) -> None:
    by = annotation.get("completed_by")
    account = by.get("id") if isinstance(by, dict) else by
    if isinstance(account, int) and account in desk.others:
        raise ResultError(
            f"{desk.others[account]} answered it with an account of their own: delete that answer, "
            f"for {desk.reader} is to read it"
        )


def _seconds(lead_time: object) -> float | None:
    if isinstance(lead_time, bool) or not isinstance(lead_time, int | float):
        return None
    try:
        seconds = float(lead_time)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
