"""What readers did in a project since a moment, checked: the server takes any answer whatever."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.label_studio.client import Client, Gone
from connectors.label_studio.page import ResultError, read_result
from connectors.label_studio.tasks import listed
from ssl_core.records import Pulled, Read, Rejection, Task

FIELDS = (
    "id,data,updated_at,annotations,"  # of the task, and below of its annotations
    "result,lead_time,was_cancelled,completed_by,created_at"
)


@dataclass(frozen=True, slots=True)
class Desk:
    """One reader's project, as answers are read from it.

    `others` maps an account's id to the other reader it belongs to: an answer given by that
    account here would pass for this reader's.
    """

    project: int
    reader: str
    task: Task
    others: Mapping[int, str] = field(default_factory=dict)


def answers(
    client: Client, desk: Desk, since: str, doubtful: Sequence[int]
) -> Iterator[tuple[Pulled, list[int]]]:
    """Pages of what changed after `since` ("" is always), and the tasks that were not taken.

    `doubtful` are tasks that were not taken before; they are looked at again.
    """
    filters = [_changed_after(since)] if since else []
    seen: set[int] = set()
    for page in listed(client, desk.project, FIELDS, filters):
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
    reads: list[Read] = []
    rejections: list[Rejection] = []
    doubtful: list[int] = []
    for task in page:
        place = f"task {task['id']} of {desk.reader}'s project {desk.project}"
        try:
            reads.append(read_task(desk, task))
        except ResultError as error:
            rejections.append(Rejection(place, str(error)))
            doubtful.append(task["id"])
    reads.sort(key=lambda read: read.read_at or "")
    return Pulled(tuple(reads), tuple(rejections)), doubtful


def read_task(desk: Desk, task: Mapping[str, Any]) -> Read:
    """What stands in a task now, as one read: answered, unusable, skipped, or nothing at all.

    Raises `ResultError` with what is wrong about it.
    """
    item_id = _item_id(task)
    given = [a for a in task.get("annotations") or () if isinstance(a, dict)]
    live = [a for a in given if not a.get("was_cancelled")]
    if len(live) > 1:
        numbers = ", ".join(str(a.get("id")) for a in live)
        raise ResultError(f"it holds {len(live)} annotations ({numbers}): delete all but one")
    if not given:
        # Either nobody answered yet or an answer was deleted; the ledger knows which.
        key = f"label_studio:{desk.project}:task {task['id']}:{task.get('updated_at')}"
        return Read(key, item_id, desk.reader, "label_studio", "withdrawn")
    one = live[0] if live else given[-1]
    _refuse_strangers(desk, one)
    read = Read(
        key=f"label_studio:{desk.project}:{one.get('id')}:{one.get('updated_at')}",
        item_id=item_id,
        reader=desk.reader,
        source="label_studio",
        outcome="skipped",
        seconds=_seconds(one.get("lead_time")),
        read_at=str(one.get("updated_at") or one.get("created_at") or ""),
    )
    return _answered(desk.task, read, one.get("result")) if live else read


def _answered(task: Task, read: Read, result: object) -> Read:
    found = read_result(task, result)
    return Read(
        key=read.key,
        item_id=read.item_id,
        reader=read.reader,
        source=read.source,
        outcome=found.outcome,
        answers=found.answers,
        reason=found.reason,
        seconds=read.seconds,
        read_at=read.read_at,
    )


def _item_id(task: Mapping[str, Any]) -> str:
    data = task.get("data")
    item_id = data.get("external_id") if isinstance(data, dict) else None
    if not isinstance(item_id, str) or not item_id:
        raise ResultError("it was not put there by Readloop: delete it, or leave it unread")
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
    if isinstance(lead_time, int | float) and math.isfinite(lead_time) and lead_time >= 0:
        return float(lead_time)
    return None
