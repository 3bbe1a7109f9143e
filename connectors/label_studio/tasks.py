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
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from connectors.label_studio.client import PAGE, Client, Gone, Slow, Unanswered

CHUNK = 2500  # tasks a request; larger ones are no faster, and a lost answer costs more
ATTEMPTS = 4
SETTLE_SECONDS = 2.0

Wanted = Mapping[str, dict[str, Any]]
"""A task to be shown for each item id: its `data` and `predictions`, as an import takes them."""

Count = Callable[[int, int], None]
Complete = Callable[[str, dict[str, Any]], dict[str, Any]]


def _silent(done: int, of: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Held:
    """A task that the server holds; `touched` when it was answered or somebody is at it."""

    id: int
    data: dict[str, Any]
    answered: bool
    touched: bool


def listed(
    client: Client,
    project: int,
    fields: str,
    filters: Sequence[dict[str, Any]] = (),
    **params: str,
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
            **params,
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
                held.setdefault(item_id, []).append(_held(task, data))
    return held


def _held(task: Mapping[str, Any], data: dict[str, Any]) -> Held:
    answered = bool(task.get("total_annotations"))
    touched = answered or bool(task.get("cancelled_annotations") or task.get("draft_exists"))
    return Held(task["id"], data, answered, touched)


def arrange(
    client: Client,
    project: int,
    wanted: Wanted,
    count: Count = lambda n, of: None,
    complete: Complete = lambda item_id, task: task,
) -> None:
    """Make the open tasks of a project those `wanted`, and leave alone what is read or being read.

    `complete` is given each task that is posted, with its item: what takes long to make, and is not
    needed for tasks that the server holds.

    Raises `ReadingRoomError`; whatever was done by then stands, and the next call does the rest.
    """
    held = held_tasks(client, project)
    _post_missing(client, project, wanted, held, count, complete)
    spare: list[int] = []
    closed: list[int] = []
    for item_id, tasks in held.items():
        kept = _one_of(tasks)
        doubles = [task for task in tasks if task is not kept]
        spare += [task.id for task in doubles if _is_bare(client, task)]
        closed += [t.id for t in doubles if t.id not in spare and t.data.get("queue") != "closed"]
        if not kept.touched and item_id in wanted:
            _set(client, kept, wanted[item_id]["data"])
        elif not kept.answered and item_id in wanted:  # closed as a double of one that is gone
            _set(client, kept, {"queue": "open"})
        elif not kept.touched and kept.data.get("queue") != "closed":
            closed.append(kept.id)
    _in_bulk(client, "delete_tasks", project, spare)
    field = {"value_name": "queue", "value_type": "String", "value": "closed"}
    _in_bulk(client, "add_data_field", project, closed, **field)


def _post_missing(
    client: Client,
    project: int,
    wanted: Wanted,
    held: dict[str, list[Held]],
    count: Count,
    complete: Complete,
) -> None:
    """Post what is not `held`; after a lost answer, `held` becomes what a new look finds."""
    for attempt in range(1, ATTEMPTS + 1):
        missing = [one for one in wanted.items() if one[0] not in held]
        before = _total(client, project) if missing else 0
        try:
            for start in range(0, len(missing), CHUNK):
                count(start, len(missing))
                tasks = [complete(*one) for one in missing[start : start + CHUNK]]
                client.post(f"api/projects/{project}/import", tasks)
            count(len(missing), len(missing))
            if missing and attempt < ATTEMPTS:
                _check_total(client, project, before + len(missing))
            return
        except Slow:
            raise
        except Unanswered:
            if attempt == ATTEMPTS:
                raise
            held.clear()
            held.update(_settled(client, project))


def _check_total(client: Client, project: int, expected: int) -> None:
    """Hold the server to its word: when its SQLite is locked it repeats a request by itself, though
    it may have been done already."""
    total = _total(client, project)
    if total != expected:
        raise Unanswered(
            f"Label Studio at {client.url} holds {total} and not {expected} cases in the project "
            f"{project} after taking them all: run the command again, nothing is lost."
        )


def _total(client: Client, project: int) -> int:
    """The number of all tasks of a project, those of others included."""
    return int(client.get("api/tasks/", project=project, page_size=1, include="id")["total"])


def _settled(client: Client, project: int) -> dict[str, list[Held]]:
    """The tasks once their number stands still: the server may still be at what it was asked."""
    held = held_tasks(client, project)
    while True:
        time.sleep(SETTLE_SECONDS)
        again = held_tasks(client, project)
        if sum(map(len, again.values())) == sum(map(len, held.values())):
            return again
        held = again


def _one_of(tasks: Sequence[Held]) -> Held:
    """The task to keep of those with one item id; of several answered ones, always the same."""
    return max(tasks, key=lambda task: (task.answered, task.touched, -task.id))


def _is_bare(client: Client, task: Held) -> bool:
    """Whether nobody answered or began to answer a task: by its rows, for the server's counters
    may be behind them. Whoever only looks at it now is told so when they submit, and is served the
    other one."""
    if task.touched:
        return False
    try:
        now = client.get(f"api/tasks/{task.id}/")
    except Gone:
        return False
    return not now.get("annotations") and not now.get("drafts")


def _set(client: Client, task: Held, data: Mapping[str, Any]) -> None:
    if all(task.data.get(key) == value for key, value in data.items()):
        return
    with suppress(Gone):  # deleted by hand just now
        # The server replaces the data as a whole.
        client.patch(f"api/tasks/{task.id}/", {"data": {**task.data, **data}})


def _in_bulk(client: Client, action: str, project: int, tasks: Sequence[int], **body: str) -> None:
    for start in range(0, len(tasks), CHUNK):
        client.act(action, project, tasks[start : start + CHUNK], **body)
