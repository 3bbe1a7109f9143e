"""Workspaces for the tests of the app: empty, asked once, and read by people for three rounds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from connectors.memory import MemoryRoom
from ssl_core.claims import promotion
from ssl_core.config import save_config
from ssl_core.readers.reading import queue, sync
from ssl_core.records import Selection
from ssl_core.rounds import run_round
from ssl_core.workspace import CONFIG_FILE, Workspace, open_workspace
from tests import toy

READERS = ("ana", "ben")
ADJUDICATOR = "chief"
SECONDS = 12.0  # a read
NEWEST = 3  # the newest round of the workspace that was read
PEOPLE = {
    "room": "label_studio",
    "readers": list(READERS),
    "adjudicator": ADJUDICATOR,
    "overlap_share": 0.5,
    "resolution": "working",
}
TASK = toy.TASKS["multi_label"]


def empty(root: Path, **tables: object) -> Path:
    """A workspace in which people read, and no round has run."""
    more = {"reading": PEOPLE, "map": {"methods": ["pca", "tsne"]}, **tables}
    return toy.make(root, TASK, **more)


def asked(root: Path) -> Path:
    """One cold round has asked for eight cases; everything that measures was read."""
    ws = open_workspace(empty(root))
    room = MemoryRoom(READERS)
    queue(ws, room)
    _read(ws, room)
    run_round(ws, None)
    ws.ledger.close()
    return root


def read(root: Path) -> Path:
    """Three rounds, of which two trained; two readers who disagreed; a promotion.

    Of the newest batch the first three cases were read, one of them as unusable, the fourth was
    skipped, and one that two are asked about was read by one of them; the others wait. Of the
    first batch two were contradicted: one was adjudicated, one waits for the adjudicator.
    """
    ws = open_workspace(empty(root))
    room = MemoryRoom(READERS)
    queue(ws, room)
    _read(ws, room)
    run_round(ws, None)
    queue(ws, room)
    _read(ws, room, contradict=2)
    _adjudicate(ws, room)
    run_round(ws, None)
    queue(ws, room)
    _read(ws, room)
    changed = ws.config.changed(selection={"query_size": 10, "strategy": "entropy"})
    save_config(changed, root / CONFIG_FILE)
    ws = open_workspace(root)
    run_round(ws, None)
    queue(ws, room)
    _begin(ws, room)
    second, student = next(m for m in promotion.candidates(ws) if m[1].stage == "student")
    promotion.promote(ws, (second, student), "eva", "it is steadier", override=True)
    ws.ledger.close()
    return root


def _truth(ws: Workspace) -> dict[str, dict[str, float]]:
    told: dict[str, dict[str, float]] = {}
    for one in ws.ledger.answers([item.id for item in ws.ledger.items()]):
        told.setdefault(one.item_id, {})[one.finding] = one.value
    return told


def _read(ws: Workspace, room: MemoryRoom, contradict: int = 0) -> None:
    """Each reader answers their own cases rightly; of `contradict` shared ones, ben says not so."""
    truth, own = _truth(ws), [a for r in READERS for a in room.waiting.get(r, []) if a.primary]
    shared = {a.item_id for a in own if a.reader == "ana"} & {
        a.item_id for a in own if a.reader == "ben"
    }
    wrong = sorted(shared)[:contradict]
    for one in own:
        said = dict(truth[one.item_id])
        if one.item_id in wrong and one.reader == "ben":
            said = {f: 1.0 - v for f, v in said.items()}
        room.submit(one.item_id, said, reader=one.reader, seconds=SECONDS)
    sync(ws, room)


def _adjudicate(ws: Workspace, room: MemoryRoom) -> None:
    """The adjudicator settles one of the cases in dispute."""
    disputed = ws.ledger.reading.disagreements()
    room.submit(disputed[0], _truth(ws)[disputed[0]], reader=ADJUDICATOR, seconds=30.0)
    sync(ws, room)


def _begin(ws: Workspace, room: MemoryRoom) -> None:
    """The first cases of the newest batch: read twice, unusable, skipped."""
    batch = [s.item_id for s in ws.ledger.selections(len(ws.ledger.rounds()))]
    truth = _truth(ws)
    for reader in READERS:
        room.submit(batch[0], truth[batch[0]], reader=reader, seconds=SECONDS)
        unsure = {**truth[batch[1]], "Rare": math.nan}
        room.submit(batch[1], unsure, reader=reader, seconds=SECONDS)
        room.act(batch[2], "unusable", reader=reader, reason="blurred", seconds=3.0)
        room.act(batch[3], "skipped", reader=reader)
    half = read_by_one(ws)
    room.submit(half, truth[half], reader="ana", seconds=SECONDS)
    sync(ws, room)


def read_by_one(ws: Workspace) -> str:
    """A case of the newest batch for two readers, of whom ana alone has read it."""
    batch = [s.item_id for s in ws.ledger.selections(len(ws.ledger.rounds()))]
    own = {(a.item_id, a.reader) for a in ws.ledger.reading.assignments() if a.primary}
    return next(i for i in batch[4:] if all((i, reader) in own for reader in READERS))


def next_round(root: Path) -> None:
    """One more round, whose questions are not in front of readers yet."""
    ws = open_workspace(root)
    run_round(ws, None)
    ws.ledger.close()


def opened_round(root: Path) -> None:
    """One more round, that stopped before its first stage."""
    ws = open_workspace(root)
    number = len(ws.ledger.rounds()) + 1
    ws.ledger.open_round(replace(ws.ledger.rounds()[-1], number=number))
    ws.ledger.close()


def batch(ws: Workspace) -> list[Selection]:
    """The newest batch, in the order of asking."""
    return ws.ledger.selections(NEWEST)


def waits(ws: Workspace) -> str:
    """A case of the newest batch that nobody has read."""
    read = {r.item_id for r in ws.ledger.reading.reads()}
    return next(s.item_id for s in batch(ws) if s.item_id not in read)
