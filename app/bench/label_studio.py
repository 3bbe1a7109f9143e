"""How long it takes to queue many items in a real Label Studio, and to sync as many answers."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from app import show
from connectors.label_studio import projects, server
from connectors.label_studio.client import Client
from connectors.label_studio.page import hint_result
from connectors.label_studio.pictures import LocalFiles
from connectors.label_studio.room import LabelStudioRoom
from ssl_core.errors import ReadingRoomError
from ssl_core.history.ledger import Ledger
from ssl_core.records import Assignment, Item, Pulled, Task

TASK = Task("multi_label", tuple(f"finding {n}" for n in range(1, 15)))
SIZE = 64  # pixels of the pictures


def run(items: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Time a queue and a sync of `items` on a server of its own, in a scratch folder.

    Returns a row a step: `step`, `seconds`, and `peak_mb`, the most memory that this process had
    used by then.
    """
    with tempfile.TemporaryDirectory(prefix="readloop-bench-") as scratch:
        workspace = Path(scratch) / "W"
        workspace.mkdir()
        server.start(workspace, 8180, report=say)
        try:
            return list(_steps(workspace, items))
        finally:
            server.stop(workspace)


def _steps(workspace: Path, items: int) -> Iterator[dict[str, Any]]:
    known = server.sign_in(workspace)
    assert known is not None
    client = Client(known.url, known.token)
    media = server.media_folder(workspace)
    ledger = _ledger(workspace, items)
    asked = ledger.reading.assignments()

    pictures = LocalFiles(media, lambda item_id: _picture(int(item_id, 16)))
    with _timed("write the pictures", items) as row:
        pictures.prepare([a.item_id for a in asked], lambda done, of: None)
    yield row
    room = _room(client, pictures, "bench-queue")
    with _timed("queue", items) as row:
        room.queue(asked, {})
    yield row
    with _timed("queue again (nothing to do)", items) as row:
        room.queue(asked, {})
    yield row
    answered = _room(client, pictures, "bench-sync")
    _answer_all(client, answered, asked)
    with _timed("sync", items) as row:
        row["reads"] = sum(_take(ledger, answered, page) for page in answered.pull(""))
    if row["reads"] != items - 1:  # all but the one that was put there unanswered
        raise ReadingRoomError(f"Of {items - 1} answers {row['reads']} came back: look at the log.")
    yield row
    with _timed("sync again (nothing new)", items) as row:
        bookmark = ledger.reading.bookmark(answered.name)
        row["reads"] = sum(_take(ledger, answered, page) for page in answered.pull(bookmark))
    yield row
    ledger.close()


def _take(ledger: Ledger, room: LabelStudioRoom, page: Pulled) -> int:
    return ledger.reading.take(room.name, page).new


@contextmanager
def _timed(step: str, items: int) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {"step": step, "items": items}
    began = time.monotonic()
    yield row
    row["seconds"] = time.monotonic() - began
    unit = 2**20 if sys.platform == "darwin" else 2**10
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _ledger(workspace: Path, items: int) -> Ledger:
    made = [Item(f"{n:032x}", f"P{n}", "train", f"{n}.png") for n in range(items)]
    ledger = Ledger.create(f"sqlite:///{workspace / 'ledger.db'}", TASK, made)
    asked = [Assignment(item.id, "reader", 1, rank) for rank, item in enumerate(made)]
    ledger.reading.assign(asked)
    return ledger


def _picture(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


def _room(client: Client, pictures: LocalFiles, workspace: str) -> LabelStudioRoom:
    return LabelStudioRoom(
        client, TASK, workspace, title="bench", readers=("reader",), pictures=pictures
    )


def _answer_all(client: Client, room: LabelStudioRoom, asked: list[Assignment]) -> None:
    """Tasks that come with their answers: submitting 10,000 one by one would take ten minutes."""
    room.queue(asked[:1], {})
    (project,) = projects.find_projects(client, "bench-sync").values()
    answers = dict.fromkeys(TASK.findings, 0.0) | {TASK.findings[3]: 1.0}
    annotation = {"result": hint_result(TASK, answers), "lead_time": 21.5}
    tasks = [{**room._wanted(one, 0, 1, {}), "annotations": [annotation]} for one in asked[1:]]
    for start in range(0, len(tasks), 2500):
        client.post(f"api/projects/{project.id}/import", tasks[start : start + 2500])


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows of `run` for the terminal."""
    columns = ("step", "items", "seconds", "items/s", "peak memory, MB")
    made = show.table("Label Studio on SQLite, one reader, 14 findings", columns, left=1)
    for row in rows:
        rate = f"{row['items'] / row['seconds']:,.0f}"
        cells = (f"{row['items']:,}", f"{row['seconds']:.1f}", rate, f"{row['peak_mb']:,.0f}")
        made.add_row(row["step"], *cells)
    return made
