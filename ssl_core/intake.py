"""Rows of a manifest and the digests of their images become items, labels, splits and a report.

Pure: nothing is opened but through the `ImageSource` that `content_digests` is given.
"""

# ruff: noqa: D102 (the protocols' properties are described by their class)

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ssl_core.errors import ConfigError, ImageError, ImportRefusedError
from ssl_core.records import SPLITS, Item, Split, Task
from ssl_core.source import ImageSource
from ssl_core.splits import OFFICIAL_WORDS, draw_splits, keep_official


class ManifestRow(Protocol):
    """One usable row, as the manifest's reader gives it; see `connectors.manifest.Row`."""

    @property
    def line(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    @property
    def labels(self) -> tuple[float, ...]: ...
    @property
    def split(self) -> str | None: ...
    @property
    def masks(self) -> tuple[str | None, ...]: ...


class ReadManifest(Protocol):
    """A manifest that was read; refusals are (line, path, reason)."""

    @property
    def task(self) -> Task: ...
    @property
    def rows(self) -> Sequence[ManifestRow]: ...
    @property
    def refusals(self) -> Sequence[tuple[int, str, str]]: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How an import is to be judged and split.

    `validation` and `vault` are shares of the groups, used where no official split decides.
    An official validation split with fewer items than `smallest_validation` goes back to train,
    and validation is drawn from there: 16 images choose no checkpoint. `archive` says that known
    labels will be hidden, so that labeled train items count as the pool.
    """

    seed: int
    validation: float = 0.1
    vault: float = 0.2
    smallest_validation: int = 50
    archive: bool = False
    allow_shared_groups: bool = False
    skip_unreadable: bool = False


class Refusal(NamedTuple):
    """A row that did not come in."""

    line: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Count:
    """What came in for one finding of one split; `groups` are those with any item there."""

    split: Split
    finding: str
    items: int
    groups: int
    positives: int
    negatives: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came in: a count per split and finding, and everything a person should know.

    `rows` were read; `duplicates` of them repeated an item and were folded into it;
    `shared_groups` stand in the vault and elsewhere; `warnings` are whole sentences.
    """

    rows: int
    counts: tuple[Count, ...]
    duplicates: int
    refused: tuple[Refusal, ...]
    shared_groups: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intake:
    """N items in the manifest's order, `labels` `(N, C)` of 1, 0 and NaN, and the report.

    `masks` has one entry an item, as the rows had it: one mask or None a finding, or nothing.
    """

    task: Task
    items: tuple[Item, ...]
    labels: npt.NDArray[np.float64]
    report: Report
    masks: tuple[tuple[str | None, ...], ...] = ()


class _Entry(NamedTuple):
    """One item to be; `official` is the manifest's split, if it has any."""

    digest: str
    group: str
    path: str
    masks: tuple[str | None, ...]
    labels: tuple[float, ...]
    official: Split | None


def content_digests(manifest: ReadManifest, source: ImageSource) -> dict[int, str | ImageError]:
    """Digest of each row's image by the row's line, or the error that its reading raised."""
    digests: dict[int, str | ImageError] = {}
    for row in manifest.rows:
        try:
            digests[row.line] = source.digest(row.path)
        except ImageError as error:
            digests[row.line] = error
    return digests


def take_in(
    manifest: ReadManifest, digests: Mapping[int, str | ImageError], policy: Policy
) -> Intake:
    """Decide what a manifest becomes; `digests` has one entry a row, by line.

    Rows with one digest are one item: the first row gives its path, and an unknown label is
    filled from a row that knows it. If they name two patients, labels, masks or official splits,
    all of them are refused. Without a patient column each item is its own group. Masks compare by
    name: give digests, and a file that is there twice is one mask (see `masks.imported`).

    Raises `ImportRefusedError` for unreadable images and masks, a patient on both sides of an
    official split (see `policy` for both), no usable row, no official train or vault, or an empty
    pool; `ConfigError` for shares that are none.
    """
    _check_shares(policy)
    readable, unreadable = _part_unreadable(manifest.rows, digests, policy)
    usable, misplaced = _place(readable)
    entries, clashing = _fold(usable, digests)
    refused = [Refusal(*each) for each in manifest.refusals] + unreadable + misplaced + clashing
    refused.sort()
    if not entries:
        raise ImportRefusedError(
            f"None of the manifest's {len(refused)} rows can be used; the first refusal is line "
            f"{refused[0].line}: {refused[0].reason}."
        )
    labels = np.array([entry.labels for entry in entries], dtype=np.float64)
    splits, shared = _splits(entries, labels, policy)
    items = tuple(
        Item(entry.digest, entry.group, split, entry.path)
        for entry, split in zip(entries, splits, strict=True)
    )
    _check_pool(items, labels, policy)
    counts = _counts(manifest.task, items, labels)
    report = Report(
        rows=len(manifest.rows) + len(manifest.refusals),
        counts=counts,
        duplicates=len(usable) - len(clashing) - len(entries),
        refused=tuple(refused),
        shared_groups=shared,
        warnings=tuple(_import_warnings(manifest, entries, shared, policy))
        + tuple(_count_warnings(manifest.task, counts)),
    )
    return Intake(manifest.task, items, labels, report, tuple(entry.masks for entry in entries))


def _check_shares(policy: Policy) -> None:
    validation, vault = policy.validation, policy.vault
    if not (validation >= 0 and vault >= 0 and validation + vault < 1):
        raise ConfigError(
            f"validation {validation} and vault {vault} are to be shares of the patients: each 0 "
            "or more, and less than 1 together."
        )


def _part_unreadable(
    rows: Sequence[ManifestRow], digests: Mapping[int, str | ImageError], policy: Policy
) -> tuple[list[ManifestRow], list[Refusal]]:
    """Part off the rows that cannot be read; unless they may be skipped, that is all."""
    what = "images or masks" if any(any(row.masks) for row in rows) else "images"
    errors = {
        row.line: str(error).rstrip(".")
        for row in rows
        if isinstance(error := digests[row.line], ImageError)
    }
    named = [f"line {line}: {error}" for line, error in errors.items()]
    if errors and len(errors) == len(rows):
        raise ImportRefusedError(
            f"None of the {len(rows)} {what} can be used (first {named[0]}); check the image "
            "folder, that the manifest's paths are relative to it, and the columns that were named."
        )
    if errors and not policy.skip_unreadable:
        more = f"; and {len(named) - 20} more" if len(named) > 20 else ""
        raise ImportRefusedError(
            f"{len(named)} of {len(rows)} {what} cannot be used; mend them or skip unreadable ones "
            f"({'; '.join(named[:20])}{more})."
        )
    refused = [Refusal(r.line, r.path, errors[r.line]) for r in rows if r.line in errors]
    return [row for row in rows if row.line not in errors], refused


def _place(rows: Iterable[ManifestRow]) -> tuple[list[ManifestRow], list[Refusal]]:
    """Part off the rows whose official split is not a known word."""
    placed: list[ManifestRow] = []
    refused: list[Refusal] = []
    for row in rows:
        if row.split is None or row.split.casefold() in OFFICIAL_WORDS:
            placed.append(row)
        else:
            words = ", ".join(OFFICIAL_WORDS)
            refused.append(
                Refusal(row.line, row.path, f"its split {row.split[:40]!r} is none of {words}")
            )
    return placed, refused


def _fold(
    rows: Iterable[ManifestRow], digests: Mapping[int, str | ImageError]
) -> tuple[list[_Entry], list[Refusal]]:
    """Make one entry of the rows with one digest, or refuse them all."""
    clusters: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        clusters[str(digests[row.line])].append(row)
    entries: list[_Entry] = []
    refused: list[Refusal] = []
    for digest, cluster in clusters.items():
        if clash := _clash(cluster):
            lines = ", ".join(str(row.line) for row in cluster[:5])
            lines += f" and {len(cluster) - 5} more" if len(cluster) > 5 else ""
            reason = f"the same image stands in lines {lines} with {clash}"
            refused += [Refusal(row.line, row.path, reason) for row in cluster]
            continue
        first = cluster[0]
        drawn = zip(*(row.masks for row in cluster), strict=True)
        masks = tuple(next(filter(None, found), None) for found in drawn)
        official = OFFICIAL_WORDS[first.split.casefold()] if first.split is not None else None
        group = digest if first.group is None else first.group
        labels = tuple(_agreed(values) for values in zip(*(r.labels for r in cluster), strict=True))
        entries.append(_Entry(digest, group, first.path, masks, labels, official))
    return entries, refused


def _clash(cluster: Sequence[ManifestRow]) -> str:
    """Say what the rows of one image disagree about, or nothing."""
    if len(cluster) == 1:
        return ""
    if len({row.group for row in cluster}) > 1:
        return "two patients"
    for values in zip(*(row.labels for row in cluster), strict=True):
        if len({value for value in values if not math.isnan(value)}) > 1:
            return "two labels"
    for masks in zip(*(row.masks for row in cluster), strict=True):
        if len({mask for mask in masks if mask}) > 1:
            return "two masks"
    if len({OFFICIAL_WORDS[row.split.casefold()] for row in cluster if row.split}) > 1:
        return "two official splits"
    return ""


def _agreed(values: Iterable[float]) -> float:
    """Return the known value among values that do not disagree, or NaN."""
    return next((value for value in values if not math.isnan(value)), math.nan)


def _splits(
    entries: Sequence[_Entry], labels: npt.NDArray[np.float64], policy: Policy
) -> tuple[list[Split], tuple[str, ...]]:
    """Split of each entry, and the groups that official splits share."""
    groups = [entry.group for entry in entries]
    official = [entry.official for entry in entries if entry.official]
    if not official:
        shares = {"validation": policy.validation, "vault": policy.vault}
        return draw_splits(groups, labels, **shares, seed=policy.seed), ()
    return keep_official(
        official,
        groups,
        labels,
        validation=policy.validation,
        smallest_validation=policy.smallest_validation,
        allow_shared_groups=policy.allow_shared_groups,
        seed=policy.seed,
    )


def _check_pool(items: Sequence[Item], labels: npt.NDArray[np.float64], policy: Policy) -> None:
    """Refuse an import that leaves nothing to ask for."""
    train = np.array([item.split == "train" for item in items])
    known = ~np.isnan(labels).all(axis=1)
    if policy.archive and not np.any(train & known):
        raise ImportRefusedError("No train item has a label, so an archive has no answers to hide.")
    if not policy.archive and not np.any(train & ~known):
        raise ImportRefusedError(
            "The pool is empty: every train item has a label already; add images without one, or "
            "import as an archive, which hides the labels for a simulated reader."
        )


def _counts(
    task: Task, items: Sequence[Item], labels: npt.NDArray[np.float64]
) -> tuple[Count, ...]:
    counts = []
    for split in SPLITS:
        here = np.array([item.split == split for item in items])
        n = int(here.sum())
        groups = len({item.group for item in items if item.split == split})
        for finding, column in zip(task.findings, labels[here].T, strict=True):
            positives, negatives = int((column == 1).sum()), int((column == 0).sum())
            unknown = n - positives - negatives
            counts.append(Count(split, finding, n, groups, positives, negatives, unknown))
    return tuple(counts)


def _import_warnings(
    manifest: ReadManifest, entries: Sequence[_Entry], shared: Sequence[str], policy: Policy
) -> Iterator[str]:
    """Say what weakens every number that this workspace will show."""
    if manifest.rows[0].group is None:
        yield (
            "No patient column was given, so images of one patient may stand in several splits; "
            "name one if there is any."
        )
    if shared:
        yield (
            f"{len(shared)} patients stand in more than one split, so results on the vault may be "
            "too good."
        )
    own = sum(entry.official == "validation" for entry in entries)
    if entries[0].official and own < policy.smallest_validation:
        yield (
            f"The official split has {own} validation items, fewer than "
            f"{policy.smallest_validation}, so validation was drawn by patient from these and "
            "train."
        )


def _count_warnings(task: Task, counts: Iterable[Count]) -> Iterator[str]:
    """Name the findings that validation or the vault cannot measure."""
    known_in = {c.split for c in counts if c.positives + c.negatives}
    for split in ("validation", "vault"):
        n = max((c.items for c in counts if c.split == split), default=0)
        if split not in known_in and n:
            yield (
                f"No item of {split} has a label: its {n:,} items go to the readers before the "
                "first round, and nothing can be measured there until they are read."
            )
    for count in counts:
        if count.split not in known_in:
            continue
        known = {"positive": count.positives, "negative": count.negatives}
        if task.kind == "segmentation":
            del known["negative"]  # its label says that a mask is there
        lacking = " and no ".join(name for name, n in known.items() if not n)
        if lacking and count.split != "train":
            yield (
                f"{count.finding!r} has no known {lacking} in {count.split}, so it cannot be "
                "measured there."
            )
