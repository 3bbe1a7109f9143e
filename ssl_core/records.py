"""Frozen records that cross borders between packages: plain data, no behaviour worth a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "vault"]
SPLITS: tuple[Split, ...] = ("train", "validation", "vault")

TaskKind = Literal["binary", "multi_class", "multi_label", "segmentation"]
SelectionKind = Literal["random", "strategy"]
LabelSource = Literal["import", "archive", "label_studio"]


@dataclass(frozen=True, slots=True)
class Task:
    """What readers are asked: `findings` are the C label columns, in order.

    A binary task has one finding; a multi-class task has one finding a class, of which exactly
    one is present in an item; a multi-label task has any number.
    """

    kind: TaskKind
    findings: tuple[str, ...]

    @property
    def exclusive(self) -> bool:
        """Whether exactly one finding holds for an item (softmax rather than sigmoids)."""
        return self.kind == "multi_class"


@dataclass(frozen=True, slots=True)
class Item:
    """An image that is labeled: `id` is the hash of its file's content, `group` the patient.

    `path` and `mask` are relative to the image folder, in POSIX form.
    """

    id: str
    group: str
    split: Split
    path: str
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """One reader's answer for one finding: 1.0 present, 0.0 absent, NaN cannot tell.

    `key` names the event that brought the label, so that bringing it twice appends one row.
    `round` is set by the ledger: the latest round opened when the label arrived (0 = import);
    round r trains on labels whose round is below r. `seconds` is the reader's time, if known.
    """

    item_id: str
    finding: str
    value: float
    reader: str
    source: LabelSource
    key: str
    seconds: float | None = None
    round: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A known label hidden in an archive: what the simulated reader will say when asked."""

    item_id: str
    finding: str
    value: float


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of the loop as it was opened; `config` is the full configuration as JSON."""

    number: int
    seed: int
    query_size: int
    strategy: str
    recipe: str
    config: str


@dataclass(frozen=True, slots=True)
class Selection:
    """One item of a round's query, with the reason for it.

    `rank` counts from 0 in the order of asking. `score` is the strategy's score (higher = ask
    first; NaN for the random slice). `probability` is the chance, before the random slice was
    drawn, that this item entered the query at all; `slice_probability` that it entered the
    random slice.
    """

    item_id: str
    rank: int
    kind: SelectionKind
    strategy: str
    score: float
    probability: float
    slice_probability: float
    reason: str


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """A teacher's kept opinion on one finding of one item; `value` in [0, 1] (hard: 0 or 1)."""

    item_id: str
    finding: str
    value: float
    score: float


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network: `id` is the hash of its weights, `path` is relative to the workspace."""

    id: str
    stage: str
    backbone: str
    path: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured number with its interval: `finding` is a finding's name or "macro".

    `low` and `high` bound the 95 % interval (NaN where none is defined); `n` counts items.
    """

    model_id: str
    stage: str
    split: Split
    finding: str
    name: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished stage of a round: `detail` is JSON of what it did, `seconds` is wall time."""

    round: int
    position: int
    name: str
    kind: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class VaultLook:
    """One look at the vault's labels: which round looked, with which model, and why."""

    round: int
    model_id: str
    purpose: str
