"""Workspaces without pixels, and a reading room that stops in the middle: for tests of reading."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from connectors.memory import MemoryRoom
from ssl_core.config import Config, ledger_url, validated
from ssl_core.history import label_events
from ssl_core.history.ledger import Ledger
from ssl_core.records import SPLITS, Item, Label, Pulled, Round, Selection, Stage, Task
from ssl_core.workspace import Workspace

TASK = Task("multi_label", ("mass", "nodule"))
ITEMS = [
    *(Item(f"t{k}", f"P{k}", "train", f"t{k}.png") for k in range(12)),
    *(Item(f"v{k}", f"Q{k}", "validation", f"v{k}.png") for k in range(2)),
    *(Item(f"x{k}", f"R{k}", "vault", f"x{k}.png") for k in range(2)),
]


class Killed(BaseException):
    """What a kill looks like from within: nothing may catch it."""


class Stopping(MemoryRoom):
    """A memory room that tells of `page` reads at a time, and dies where it is told to."""

    def __init__(self, readers: Iterable[str], page: int = 2) -> None:
        super().__init__(tuple(readers))
        self.page = page
        self.pages_left: int | None = None  # None: it does not die in a pull
        self.dies_in_queue = False

    def pull(self, bookmark: str) -> Iterable[Pulled]:
        (rest,) = super().pull(bookmark)
        done = int(bookmark or 0)
        for start in range(0, len(rest.reads), self.page):
            if self.pages_left is not None and start >= self.page * self.pages_left:
                raise Killed
            reads = rest.reads[start : start + self.page]
            yield Pulled(reads, bookmark=str(done + start + len(reads)))

    def queue(self, open_, hints) -> None:
        if self.dies_in_queue:
            raise Killed
        super().queue(open_, hints)


def make(root: Path, items: Iterable[Item] = ITEMS, task: Task = TASK, **reading) -> Workspace:
    """A workspace whose `[reading]` is as told; it has no pixels."""
    root.mkdir(parents=True, exist_ok=True)
    tables = {"images": {"folder": str(root)}, "reading": {"readers": ["ann", "bob"], **reading}}
    config = validated(Config, tables, "test")
    return Workspace(root, config, Ledger.create(ledger_url(config, root), task, items), None)


def changed(workspace: Workspace, **reading) -> Workspace:
    """The same workspace after somebody edited `[reading]`."""
    tables = json.loads(workspace.config.to_json())
    tables["reading"] |= reading
    config = validated(Config, tables, "test")
    return Workspace(workspace.root, config, workspace.ledger, workspace.images)


def ask(workspace: Workspace, *item_ids: str) -> int:
    """A round that asked for these items; every fourth is of the random slice."""
    ledger = workspace.ledger
    number = len(ledger.rounds()) + 1
    ledger.open_round(Round(number, 0, len(item_ids), "margin", "teacher_student", "{}"))
    kinds = ["random" if k % 4 == 0 else "strategy" for k in range(len(item_ids))]
    chosen = [
        Selection(i, k, kinds[k], "margin", 0.5, 0.5, 0.25, "close to the border")
        for k, i in enumerate(item_ids)
    ]
    ledger.add_stage(Stage(number, 0, "select", "select", "{}", 1.0), selections=chosen)
    ledger.finish_round(number, "{}")
    return number


def both(value: float) -> dict[str, float]:
    """The same answer to both findings."""
    return dict.fromkeys(TASK.findings, value)


def waiting(room: MemoryRoom, reader: str) -> list[str]:
    """The items in front of a reader, in order."""
    return [one.item_id for one in room.waiting.get(reader, [])]


def all_labels(ledger: Ledger) -> list[Label]:
    """Every reader's newest answers, of the vault too: past the door, for tests alone."""
    return ledger._fetch(Label, label_events.latest(None, SPLITS))
