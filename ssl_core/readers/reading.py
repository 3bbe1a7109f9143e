"""Questions to the readers and answers back: `queue()` and `sync()`, for any reading room.

Both are safe to stop and to repeat. What is to be read is decided once and written to the ledger
(`assignments`); a room is then made to show exactly what of it is open. What readers did is taken
in page by page with a bookmark. So neither a kill nor a lost answer can double or lose a read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from filelock import FileLock, Timeout

from ssl_core.config import Config
from ssl_core.errors import WorkspaceError
from ssl_core.history.truth import Apart
from ssl_core.masks.overlap import SAME, dice
from ssl_core.masks.store import MaskStore
from ssl_core.progress import Progress, Report, silent
from ssl_core.readers.assignment import (
    DONE,
    Panel,
    adjudications,
    deal,
    deal_hints,
    near,
    newcomers,
    open_assignments,
)
from ssl_core.readers.hints import hints_for
from ssl_core.records import AGAIN, Hint, Pulled, Rejection, Selection
from ssl_core.source import ReadingRoom
from ssl_core.training.seeds import derived_seed
from ssl_core.workspace import Workspace

LOCK_FILE = ".reading.lock"
LOCK_SECONDS = 600.0
BACKUPS = 200  # of each reader's cases in reserve, those on show; a sync fills up


@dataclass(frozen=True, slots=True)
class Queued:
    """What stands in front of the readers: open items by reader; `new` were put there just now."""

    new: int
    waiting: dict[str, int]


@dataclass(slots=True)
class Synced:
    """What a sync brought: events that were new, items sent to the adjudicator, refusals."""

    reads: int = 0
    adjudications: int = 0
    rejections: list[Rejection] = field(default_factory=list)


def queue(workspace: Workspace, room: ReadingRoom, *, report: Report = silent) -> Queued:
    """Put what was asked and not read yet in front of the readers.

    That is the newest selection, then what is left of earlier ones, then the validation and vault
    items that nobody has labeled; before the first round there are only those.

    Raises:
        ReadingRoomError: the room cannot be reached or refuses; run it again.
        WorkspaceError: another process is at it for longer than ten minutes.
    """
    with one_at_a_time(workspace):
        new = _assign(workspace, room, report)
        return Queued(new, _show(workspace, room))


def sync(
    workspace: Workspace,
    room: ReadingRoom,
    *,
    everything: bool = False,
    show: bool = True,
    report: Report = silent,
) -> Synced:
    """Take in what readers did since the last sync, and bring their queues up to date.

    Items on which readers disagree go to the adjudicator, and so do those that they drew masks of
    with a Dice below `overlap.SAME`. With `everything` the bookmark is passed
    over. With `show` False the queues are only touched when something came in.

    Raises:
        ReadingRoomError: the room cannot be reached or refuses; what came before is kept.
        WorkspaceError: another process is at it for longer than ten minutes.
    """
    with one_at_a_time(workspace):
        log, came, refused = workspace.ledger.reading, Synced(), False
        asked = {(a.item_id, a.reader) for a in log.assignments()}
        for page in room.pull("" if everything else log.bookmark(room.name)):
            known, strangers = _part_strangers(page, asked)
            if refused:  # told again next time: the bookmark stays
                known = replace(known, bookmark="")
            taken = log.take(room.name, known)
            refused = refused or bool(taken.refused)
            came.reads += taken.new
            came.rejections += [*page.rejections, *strangers, *taken.refused]
            report(Progress("sync", came.reads, 0, f"{came.reads} reads"))
        panel = panel_of(workspace.config, room)
        disputed = adjudications(
            log.disagreements(_masks_apart(workspace)), log.assignments(), panel
        )
        came.adjudications = log.assign(disputed)
        if show or came.reads or came.adjudications:
            _show(workspace, room)
        return came


def _masks_apart(workspace: Workspace) -> Apart:
    """Whether two of a workspace's masks overlap too little to be of the same thing."""
    stores: list[MaskStore] = []

    def apart(first: str, second: str) -> bool:
        if not stores:  # opened once, and only where masks are drawn
            stores.append(workspace.masks)
        ours, theirs = stores[0].at([first, second])[:, None, None]
        return bool(dice(ours, theirs)[0, 0] < SAME)

    return apart


def panel_of(config: Config, room: ReadingRoom) -> Panel:
    """Who reads in this room: its own readers, or those of the configuration."""
    if room.readers != config.reading.readers:
        return Panel(room.readers)
    return panel_in(config)


def panel_in(config: Config) -> Panel:
    """Who reads, by the configuration."""
    reading = config.reading
    return Panel(
        reading.readers,
        reading.adjudicator,
        reading.overlap,
        reading.overlap_share,
        reading.backup,
        reading.hints,
    )


@contextmanager
def one_at_a_time(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace's reading room against other processes, for ten minutes at the longest.

    Raises:
        WorkspaceError: another process is at it for longer.
    """
    lock = FileLock(workspace.root / LOCK_FILE, timeout=LOCK_SECONDS)
    try:
        with lock:
            yield
    except Timeout:
        raise WorkspaceError(
            f"Another process is queueing or syncing {workspace.root}: wait for it, or stop it "
            "first."
        ) from None


def _part_strangers(
    page: Pulled, asked: Collection[tuple[str, str]]
) -> tuple[Pulled, list[Rejection]]:
    """Tell reads that were asked for from those that were not."""
    known = tuple(r for r in page.reads if (r.item_id, r.reader) in asked)
    strangers = [
        Rejection(r.key, f"{r.reader} was never asked about the item {r.item_id!r}")
        for r in page.reads
        if (r.item_id, r.reader) not in asked and r.outcome != "withdrawn"
    ]
    return replace(page, reads=known), strangers


def _show(workspace: Workspace, room: ReadingRoom) -> dict[str, int]:
    log, panel = workspace.ledger.reading, panel_of(workspace.config, room)
    still = near(open_assignments(log.assignments(), log.reads(), panel), BACKUPS)
    room.queue(still, log.hints())
    waiting = {reader: sum(a.reader == reader for a in still) for reader in panel.desks}
    return {r: n for r, n in waiting.items() if n or not r.endswith(AGAIN)}


def _assign(workspace: Workspace, room: ReadingRoom, report: Report) -> int:
    """Deal out what nobody has answered and no reader of the panel was asked about yet."""
    ledger, config = workspace.ledger, workspace.config
    log, panel = ledger.reading, panel_of(config, room)
    held = log.assignments()
    settled = {a.item_id for a in held if a.reader in panel.readers} | _answered(workspace)
    dealt, hints = newcomers(held, panel), list[Hint]()
    for number, asked in _questions(workspace):
        new = [item_id for item_id in asked if item_id not in settled]
        seed = derived_seed(config.seed, number, "assign", len(held))
        rng = np.random.default_rng(seed)
        here = deal(new, number, _of_round(number, panel, config), rng)
        if number and panel.hints:
            strata = _strata(ledger.selections(number), new)
            shown = hints_for(workspace, [i for ids in strata for i in ids], report)
            here = deal_hints(here, [[i for i in ids if i in shown] for ids in strata], rng)
            hints += [h for i in sorted({a.item_id for a in here if a.hinted}) for h in shown[i]]
        dealt += here
    return log.assign(dealt, hints)


def _answered(workspace: Workspace) -> set[str]:
    """The items that somebody labeled or called unusable, and did not take it all back."""
    reads = workspace.ledger.reading.reads()
    read = {r.item_id for r in reads if r.outcome in DONE}
    taken_back = {r.item_id for r in reads} - read
    return (workspace.ledger.labeled_items() - taken_back) | read


def _questions(workspace: Workspace) -> Iterator[tuple[int, list[str]]]:
    """Each round with the items it asked for, in order; before them all, those that measure."""
    ledger = workspace.ledger
    yield 0, [item.id for split in ("validation", "vault") for item in ledger.items(split)]
    asked: dict[int, list[str]] = {}
    for number, selection in ledger.selected():
        asked.setdefault(number, []).append(selection.item_id)
    yield from asked.items()


def _of_round(number: int, panel: Panel, config: Config) -> Panel:
    if number or panel.readers != config.reading.readers:
        return panel
    reading = config.reading
    overlap, share = reading.evaluation_overlap, reading.evaluation_overlap_share
    return replace(panel, overlap=overlap, overlap_share=share)


def _strata(selections: Iterable[Selection], item_ids: Collection[str]) -> list[list[str]]:
    """The items of the random slice, and those of the strategy: each is halved for hints."""
    wanted = set(item_ids)
    here = [s for s in selections if s.item_id in wanted]
    return [[s.item_id for s in here if s.kind == kind] for kind in ("random", "strategy")]
