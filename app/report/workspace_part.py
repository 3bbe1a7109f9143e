"""What the workspace is, and its data card: items, labels, prevalence, what was left out."""

from __future__ import annotations

import math
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

from app.imported import read_import
from app.report.html import Part, Section, Table
from app.report.scene import UNKNOWN, Scene, day, percent, plural
from app.rooms import is_archive
from ssl_core.auditing.pool_reads import prevalence
from ssl_core.claims.cost import Cost
from ssl_core.history.dates import dates
from ssl_core.history.truth import label_matrix
from ssl_core.metrics import prevalence as plain_prevalence
from ssl_core.records import SPLITS, Item, Split

KINDS = {
    "binary": "present or absent",
    "multi_label": "any number of them may be present",
    "multi_class": "exactly one of them holds for an item",
    "segmentation": "drawn as masks",
}
SOURCES = {
    "import": "came with the import",
    "archive": "hidden at the import, told by the simulated reader",
    "label_studio": "read by people",
}


def about(scene: Scene) -> Section:
    """Name, findings, items by split, dates, version, configuration."""
    ws, ledger = scene.ws, scene.ws.ledger
    items, when, findings = ledger.items(), dates(ledger), ledger.task.findings
    rounds, counts = ledger.rounds(), ledger.label_counts()
    ended = max(when.ended.values(), default=None)
    parts = ", ".join(f"{s} {sum(i.split == s for i in items):,}" for s in SPLITS)
    named = f": {', '.join(findings)}" if findings else ""
    rows = [
        ("Task", ledger.task.kind.replace("_", "-")),
        ("Findings", ", ".join(findings) or "none"),
        ("Answers come from", _answers(scene)),
        ("Imported", day(when.imported)),
        ("Newest label", day(when.labeled) if when.labeled else "none yet"),
        ("Rounds", _rounds(len(rounds), len(when.ended), ended)),
        ("Recipe", str(ws.config.recipe.get("name", UNKNOWN))),
        ("Query strategy", ws.config.selection.strategy),
        ("Random slice of every query", f"{ws.config.selection.random_share:.0%}"),
        ("Readloop", release()),
        ("Configuration", ws.config.digest()),
    ]
    return Section(
        "workspace",
        "The workspace",
        (
            f"{_name(scene)} holds {plural(len(items), 'item')} of "
            f"{plural(len({i.group for i in items}), 'patient')} ({parts}).",
            f"The question is about {plural(len(findings), 'finding')}"
            f"{named} ({KINDS[ledger.task.kind]}). Labeled so far: "
            + ", ".join(f"{s} {counts[s]:,}" for s in SPLITS)
            + ".",
            "Numbers speak of these images alone. This is not a medical device.",
            Table(("What", "Value"), tuple(rows), "Times are in UTC.", 2),
        ),
    )


def release() -> str:
    """The version of Readloop that made the report."""
    try:
        return version("readloop")
    except PackageNotFoundError:
        return f"{UNKNOWN}: it was not installed as a package"


def _name(scene: Scene) -> str:
    return scene.ws.root.resolve().name or "The workspace"


def _answers(scene: Scene) -> str:
    if is_archive(scene.ws):
        return "a simulated reader, who knows labels that the import hid"
    return "people"


def _rounds(opened: int, ended: int, last: str | None) -> str:
    if not opened:
        return "none yet"
    still = f", {opened - ended} not finished" if opened > ended else ""
    return f"{opened:,}{still}; the last one ended {day(last)}" if last else f"{opened:,}{still}"


def data_card(scene: Scene) -> Section:
    """Items, patients, splits, costs, prevalence, sources, unusable images, duplicates."""
    items = scene.ws.ledger.items()
    return Section(
        "data",
        "Data card",
        (
            _shared(items, scene.curve.metric),
            "Labels of validation and vault cost reads too. They are counted apart from training "
            "labels and are in no point of the curve.",
            _duplicates(scene),
            _splits(scene, items),
            *_prevalence(scene),
            *_sources(scene),
            *_unusable(scene, items),
        ),
    )


def _shared(items: list[Item], metric: str) -> str:
    of: dict[str, set[Split]] = {}
    for item in items:
        of.setdefault(item.group, set()).add(item.split)
    both = sum(len(splits) > 1 for splits in of.values())
    if not both:
        return "No patient is in two splits: splits were drawn at the import and never change."
    return (
        f"{plural(both, 'patient')} of {len(of):,} stand in more than one split, which the import "
        f"was told to accept: {metric} on the vault may flatter."
    )


def _duplicates(scene: Scene) -> str:
    told = read_import(scene.ws.root)
    if told is None:
        return (
            "How many duplicates the import merged is not known: this workspace was made before "
            "that was kept, or its note is gone. Each item stands here once all the same."
        )
    return (
        f"The import read {told.rows:,} rows, merged {told.duplicates:,} exact duplicates into "
        f"their item and left {told.refused:,} rows out."
    )


def _splits(scene: Scene, items: list[Item]) -> Table:
    now, currency = scene.curve.now, scene.curve.currency
    costs = {"train": now.train, "validation": now.validation, "vault": now.vault}
    rows = [
        (
            split,
            f"{sum(i.split == split for i in items):,}",
            f"{len({i.group for i in items if i.split == split}):,}",
            *_cost(costs[split], currency),
        )
        for split in SPLITS
    ]
    money = (f"money, {currency}",) if currency else ()
    head = ("split", "items", "patients", "labeled", "of them imported", "reads", "reader-hours")
    reasons = {c.reason for c in costs.values() if c.reason}
    why = f" Reader-hours: {'; '.join(sorted(reasons))}." if reasons else ""
    price = "" if currency else " Money is not known: no price an hour is set."
    return Table((*head, *money), tuple(rows), f"What there is, and what it cost.{why}{price}")


def _cost(cost: Cost, currency: str | None) -> tuple[str, ...]:
    hours = UNKNOWN if cost.hours is None else f"{cost.hours:,.2f}"
    money = UNKNOWN if cost.money is None else f"{cost.money:,.0f}"
    cells = (f"{cost.labels:,}", f"{cost.imported:,}", f"{cost.reads:,}", hours)
    return (*cells, money) if currency else cells


def _prevalence(scene: Scene) -> list[Part]:
    ledger = scene.ws.ledger
    if not ledger.task.findings:
        return []
    items, found = ledger.items("train"), prevalence(ledger)
    labels = label_matrix(
        [i.id for i in items], ledger.labels(splits=["train"]), ledger.task.findings
    )
    plain = plain_prevalence(labels, [i.group for i in items]).findings
    rows = tuple(
        (name, percent(weighted), percent(raw.estimate), f"{raw.estimate.n:,}")
        for (name, weighted), raw in zip(found.items(), plain, strict=True)
    )
    why = ""
    if any(math.isnan(one.value) for one in found.values()):
        why = " Not known until a random slice has been read."
    caption = (
        "How common each finding is in the train pool, 95 %. Weighted: every read counts with its "
        "inclusion weight, so it speaks of the pool. Plain: the share among what was read, which "
        f"selection bends.{why}"
    )
    head = ("finding", "weighted [95 %]", "plain [95 %]", "labels")
    return [Table(head, rows, caption)]


def _sources(scene: Scene) -> list[Part]:
    labels = scene.ws.ledger.labels()
    if not labels:
        return ["No label of train or validation has come in yet."]
    count = Counter(label.source for label in labels)
    rows = tuple(
        (
            SOURCES[source],
            f"{len({x.item_id for x in labels if x.source == source}):,}",
            f"{count[source]:,}",
            f"{sum(math.isnan(x.value) for x in labels if x.source == source):,}",
        )
        for source in SOURCES
        if count[source]
    )
    caption = "Where labels of train and validation come from; the vault's are not looked at here."
    head = ("source", "items", "answers", "of them: cannot tell")
    return [Table(head, rows, caption)]


def _unusable(scene: Scene, items: list[Item]) -> list[Part]:
    log = scene.ws.ledger.reading
    out = log.unusable()
    if not out:
        return ["No image was called unusable."]
    split = {item.id: item.split for item in items}
    by = Counter(split[i] for i in out)
    told = ", ".join(f"{s} {by[s]:,}" for s in SPLITS if by[s])
    reasons = Counter(r.reason for r in log.reads() if r.outcome == "unusable" and r.item_id in out)
    rows = tuple((why or "no reason given", f"{n:,}") for why, n in reasons.most_common())
    caption = "Why images are unusable; an image that two readers call so has two reasons."
    return [
        f"{plural(len(out), 'image')} unusable, and in no pool, label or measurement: {told}.",
        Table(("reason", "reads"), rows, caption),
    ]
