"""Bringing a project's tasks to what they should be, whatever became of the last attempt.

Label Studio has no unique key: the item id in a task's data is one, if nobody posts before looking.
So tasks are listed, what is missing is posted, and after a lost answer they are listed again. Cases
that are to leave a queue are closed by a field that the queue's tab filters on: deleting a task
would take it from under a reader who has just opened it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.label_studio.client import PAGE, Client, Unanswered

CHUNK = 2500  # tasks a request; larger ones are no faster, and a lost answer costs more
ATTEMPTS = 4
SETTLE_SECONDS = 2.0

Wanted = Mapping[str, dict[str, Any]]
"""A task to be shown for each item id: its `data` and `predictions`, as an import takes them."""

Count = Callable[[int, int], None]


def _silent(done: int, of: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Held:
    """A task that the server holds; `touched` when it was answered or somebody is at it."""

    id: int
    data: dict[str, Any]
    touched: bool


def listed(
    client: Client, project: int, fields: str, filters: Sequence[dict[str, Any]] = ()
) -> Iterator[list[dict[str, Any]]]:
    """The tasks of a project by ascending id, in pages; changes meanwhile make none come twice."""
    last = 0
    while True:
        after = {
            "filter": "filter:tasks:id",
            "operator": "greater",
            "value": last,
            "type": "Number",
        }
        query = {
            "filters": {"conjunction": "and", "items": [*filters, after]},
            "ordering": ["tasks:id"],
        }
        found = client.get(
            "api/tasks/",
            project=project,
            page=1,
            page_size=PAGE,
            fields="all",
            include=fields,
            query=json.dumps(query),
        )["tasks"]
        if found:
            yield found
            last = found[-1]["id"]
        if len(found) < PAGE:
            return


def held_tasks(client: Client, project: int) -> dict[str, list[Held]]:
    """The tasks of a project by item id, oldest first; foreign ones are left out."""
    fields = "id,data,total_annotations,cancelled_annotations,draft_exists"
    held: dict[str, list[Held]] = {}
    for page in listed(client, project, fields):
        for task in page:
            data = task.get("data")
            item_id = data.get("external_id") if isinstance(data, dict) else None
            if data and isinstance(item_id, str):
                marks = ("total_annotations", "cancelled_annotations", "draft_exists")
                touched = any(task.get(mark) for mark in marks)
                held.setdefault(item_id, []).append(Held(task["id"], data, touched))
    return held


def arrange(
    client: Client, project: int, wanted: Wanted, count: Count = lambda n, of: None
) -> None:
    """Make the open tasks of a project those `wanted`, and leave alone what is read or being read.

    Raises `ReadingRoomError`; whatever was done by then stands, and the next call does the rest.
    """
    held = held_tasks(client, project)
    _post_missing(client, project, wanted, held, count)
    for item_id, tasks in held.items():
        task = _one_of(client, tasks)
        if not task.touched:
            _update(client, task, wanted.get(item_id))


def _post_missing(
    client: Client, project: int, wanted: Wanted, held: dict[str, list[Held]], count: Count
) -> None:
    """Post what is not `held`; after a lost answer, `held` becomes what a new look finds."""
    for attempt in range(1, ATTEMPTS + 1):
        missing = [task for item_id, task in wanted.items() if item_id not in held]
        try:
            for start in range(0, len(missing), CHUNK):
                count(start, len(missing))
                client.post(f"api/projects/{project}/import", missing[start : start + CHUNK])
            count(len(missing), len(missing))
            return
        except Unanswered:
            if attempt == ATTEMPTS:
                raise
            held.clear()
            held.update(_settled(client, project))


def _settled(client: Client, project: int) -> dict[str, list[Held]]:
    """The tasks once their number stands still: the server may still be at an import that it was
    too slow to answer."""
    held = held_tasks(client, project)
    while True:
        time.sleep(SETTLE_SECONDS)
        again = held_tasks(client, project)
        if sum(map(len, again.values())) == sum(map(len, held.values())):
            return again
        held = again


def _one_of(client: Client, tasks: Sequence[Held]) -> Held:
    """The task to keep of those with one item id; untouched doubles are removed."""
    kept = next((task for task in tasks if task.touched), tasks[0])
    for task in tasks:
        if task is not kept and not task.touched:
            client.delete(f"api/tasks/{task.id}/")
    return kept


def _update(client: Client, task: Held, wanted: Mapping[str, Any] | None) -> None:
    data = {"queue": "closed"} if wanted is None else wanted["data"]
    if any(task.data.get(key) != value for key, value in data.items()):
        # The server replaces the data as a whole.
        client.patch(f"api/tasks/{task.id}/", {"data": {**task.data, **data}})
