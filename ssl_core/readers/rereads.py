"""The contradiction queue: labels that a confident model denies are read once more, blind.

Each goes to a reader who has not seen the item (to the same once more where nobody else reads, at
a desk of its own), beside a control: an item drawn at random among
those whose label of the same finding has the same value, and which the model does not deny. Both
stand in the queue alike and in random order, so nobody who reads can tell them apart. What the
re-reader says is one vote more, and `truth` settles it: nothing is overwritten.

Labels that came with an import and that no reader has given here are not re-read: a single vote
would take their place. Vault items are not either, nor items that show a hint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core.claims.promotion import find_in_use
from ssl_core.errors import WorkspaceError
from ssl_core.probabilities import labeled
from ssl_core.progress import Report, silent
from ssl_core.readers.assignment import SPAN, others
from ssl_core.readers.contradictions import SEEN, contradictions
from ssl_core.readers.reading import one_at_a_time, panel_in
from ssl_core.records import AGAIN, Reread, RereadKind
from ssl_core.training.seeds import derived_seed
from ssl_core.workspace import Part, Workspace


@dataclass(frozen=True, slots=True)
class Held:
    """A label that counts as true: 1.0 or 0.0 of a finding of an item.

    `confidence` in [0.5, 1] is that of the model that denies it; NaN where none does.
    """

    item_id: str
    finding: str
    value: float
    confidence: float = math.nan


@dataclass(frozen=True, slots=True)
class Drawn:
    """A label to be read once more, and by whom; a contradiction and its control share `pair`."""

    label: Held
    reader: str
    kind: RereadKind
    pair: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What `ask_rereads` did: pairs asked, and how many contradictions were left out and why.

    `nobody`: nobody else may read them (seen, hinted, or with the adjudicator). `uncontrolled`:
    no item was left to hold them against. `limited`: beyond the limit. `own`: pairs that go to the
    reader who has answered them, for there is no other.
    """

    pairs: int
    nobody: int
    uncontrolled: int
    limited: int
    model_id: str
    own: int = 0


def ask_rereads(
    ws: Workspace, *, limit: int = 20, least: float = 0.8, report: Report = silent
) -> Asked:
    """Put contradictions of the model in use, and as many controls, before other readers.

    A lone reader without an adjudicator is asked again: what tells the reader's own wavering, and
    a case that is remembered, from labels that do not hold is the control alone.

    `reading.queue` shows them; `limit` counts contradictions, so that up to twice as many
    reads are asked. Each item is asked again once, ever.

    Raises:
        WorkspaceError: there is no model, or it cannot be loaded.
    """
    found = find_in_use(ws)
    if found is None:
        raise WorkspaceError(
            f"{ws.root} has no model yet that readers could contradict: run `readloop round "
            f"{ws.root}`."
        )
    number, model = found
    panel = panel_in(ws.config)
    denied = contradictions(ws, number, model.stage, least=least, most=10**9, report=report)
    with one_at_a_time(ws):
        log = ws.ledger.reading
        again = {one.item_id for one in log.rereads()}
        free = others(log.assignments(), log.reads(), panel)
        free = {item_id: readers for item_id, readers in free.items() if item_id not in again}
        doubted = _once([Held(c.item_id, c.finding, c.label, c.confidence) for c in denied])
        parts = [labeled(ws, split) for split in SEEN]
        if ws.ledger.task.exclusive:
            doubted = _of_class(doubted, parts, ws.ledger.task.findings)
        fresh = [one for one in doubted if one.item_id not in again]
        able = [one for one in fresh if one.item_id in free]
        pool = _pool(parts, ws.ledger.task.findings, {c.item_id for c in denied}, free)
        seed = derived_seed(ws.config.seed, number, "reread", len(again))
        rng = np.random.default_rng(seed)
        drawn = draw(able, pool, free, limit, rng)
        last = len(ws.ledger.rounds())
        log.ask_again(_rereads(ws, drawn, last, model.id, rng), panel.adjudicator)
    pairs = len(drawn) // 2
    kept = min(limit, len(able))
    own = sum(one.reader.endswith(AGAIN) for one in drawn) // 2
    return Asked(pairs, len(fresh) - len(able), kept - pairs, len(able) - kept, model.id, own)


def reread_sentences(asked: Asked) -> list[str]:
    """What was asked, and what was left out and why."""
    told = [
        f"Asked again: {asked.pairs:,} contradictions and as many controls, in random order."
        if asked.pairs
        else "No contradiction is asked again."
    ]
    if asked.own:
        told.append(
            f"{asked.own:,} of them go to the reader who has answered them, in a queue of their "
            "own: there is no other reader and no adjudicator."
        )
    if asked.limited:
        told.append(f"{asked.limited:,} more are beyond the limit.")
    if asked.nobody:
        told.append(
            f"{asked.nobody:,} are left out: every reader has seen them, they show a hint, they "
            "wait or are adjudicated, or their labels were imported."
        )
    if asked.uncontrolled:
        told.append(
            f"{asked.uncontrolled:,} are left out: no case with the same answer is left as a "
            "control."
        )
    return told


def draw(
    doubted: Sequence[Held],
    pool: Sequence[Held],
    free: Mapping[str, Sequence[str]],
    limit: int,
    rng: np.random.Generator,
) -> list[Drawn]:
    """Pair the first `limit` contradictions with controls, and deal both out to readers.

    Args:
        doubted: at most one an item, most confident first; each item is in `free`.
        pool: labels that no model denies, several an item; those of items in `free` can be drawn.
        free: who may read an item once more.
        limit: how many contradictions.
        rng: draws controls and breaks ties.

    Returns:
        Contradictions and their controls, in random order. A control is of the same finding and
        value as its contradiction, and goes to the same reader where there is one left that can,
        and to one who has answered it just where that one has;
        a contradiction without a control is left out. Loads differ as little as that allows.
    """
    alike: dict[tuple[str, float], list[Held]] = {
        (one.finding, one.value): [] for one in doubted[:limit]
    }
    used = {one.item_id for one in doubted}
    for i in rng.permutation(len(pool)):
        if (pool[i].finding, pool[i].value) in alike and pool[i].item_id in free:
            alike[pool[i].finding, pool[i].value].append(pool[i])
    load: Counter[str] = Counter()
    drawn: list[Drawn] = []
    for one in doubted[:limit]:
        left = [o for o in alike[one.finding, one.value] if o.item_id not in used]
        left = [o for o in left if _own(free[o.item_id]) == _own(free[one.item_id])]
        if not left:
            continue
        readers = [free[one.item_id][i] for i in rng.permutation(len(free[one.item_id]))]
        reader = min(readers, key=lambda name: load[name])
        other = next((o for o in left if reader in free[o.item_id]), left[0])
        theirs = reader if reader in free[other.item_id] else free[other.item_id][0]
        used.add(other.item_id)
        load.update((reader, theirs))
        pair = len(drawn) // 2
        drawn += [
            Drawn(one, reader, "contradiction", pair),
            Drawn(other, theirs, "control", pair),
        ]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _own(readers: Sequence[str]) -> bool:
    """Whether the reader who has answered an item would read it again."""
    return readers[0].endswith(AGAIN)


def _once(found: Sequence[Held]) -> list[Held]:
    """The first of each item."""
    return list({one.item_id: one for one in reversed(found)}.values())[::-1]


def _of_class(
    doubted: Sequence[Held], parts: Sequence[Part], findings: Sequence[str]
) -> list[Held]:
    """Of exclusive classes, the one that readers hold: a control has that class too."""
    holds = {
        item_id: findings[int(np.nanargmax(row))]
        for one in parts
        for item_id, row in zip(one.ids, one.labels, strict=True)
        if (row == 1).any()
    }
    return [
        Held(one.item_id, holds[one.item_id], 1.0, one.confidence)
        for one in doubted
        if one.item_id in holds
    ]


def _pool(
    parts: Sequence[Part],
    findings: Sequence[str],
    denied: Collection[str],
    free: Mapping[str, Sequence[str]],
) -> list[Held]:
    return [
        Held(one.ids[i], findings[c], float(one.labels[i, c]))
        for one in parts
        for i, c in np.argwhere(~np.isnan(one.labels)).tolist()
        if one.ids[i] in free and one.ids[i] not in denied
    ]


def _rereads(
    ws: Workspace,
    drawn: Sequence[Drawn],
    last: int,
    model_id: str,
    rng: np.random.Generator,
) -> list[Reread]:
    """As the ledger keeps them: behind the newest round's own cases, before all older ones."""
    held = ws.ledger.reading.rereads()
    begin = -last * SPAN + SPAN // 2 + sum(one.round == last for one in held)
    pairs = 1 + max((one.pair for one in held), default=-1)
    after = len(ws.ledger.read_history())
    return [
        Reread(
            item_id=one.label.item_id,
            reader=one.reader,
            round=last,
            priority=begin + k,
            kind=one.kind,
            pair=pairs + one.pair,
            finding=one.label.finding,
            value=one.label.value,
            confidence=one.label.confidence,
            model_id=model_id,
            after=after,
        )
        for k, one in enumerate(drawn)
    ]
