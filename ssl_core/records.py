"""Frozen records that cross borders between packages: plain data, no behaviour worth a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "vault"]
SPLITS: tuple[Split, ...] = ("train", "validation", "vault")

TaskKind = Literal["binary", "multi_class", "multi_label", "segmentation"]
SelectionKind = Literal["random", "strategy"]
LabelSource = Literal["import", "archive", "label_studio"]
ReaderRole = Literal["reader", "adjudicator"]
Outcome = Literal["read", "unusable", "skipped", "withdrawn"]
RereadKind = Literal["contradiction", "control"]
PromotionKind = Literal["promotion", "override", "rollback"]

METRICS = {"auroc": "AUROC", "dice": "Dice"}
"""What people call the metrics that curves are drawn of."""

CONTROL = "control"
"""What the shadow control is measured as; its own stages and models are named "control …"."""

DIFFERENCE = "difference"
"""The measurement of a control that holds the strategy's AUROC less its own, at equal budgets."""

AGAIN = " (again)"
"""Ends the name of a desk at which a reader reads, blind, what they have answered before. No name
in a configuration can end so."""


def person(reader: str) -> str:
    """Who sits at a desk: a reader, also where they read again."""
    return reader.removesuffix(AGAIN)


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

    @property
    def metric(self) -> str:
        """The measurement that curves are drawn of: "auroc", or "dice" where masks are drawn."""
        return "dice" if self.kind == "segmentation" else "auroc"

    @property
    def metric_name(self) -> str:
        """What people call it."""
        return METRICS[self.metric]


@dataclass(frozen=True, slots=True)
class Item:
    """An image that is labeled: `id` is the hash of its file's content, `group` the patient.

    `path` is relative to the image folder, in POSIX form.
    """

    id: str
    group: str
    split: Split
    path: str


@dataclass(frozen=True, slots=True)
class Label:
    """One reader's answer for one finding: 1.0 present, 0.0 absent, NaN cannot tell.

    `key` names the event that brought the label, so that bringing it twice appends one row.
    `round` is set by the ledger: the latest round opened when the label arrived (0 = import);
    round r trains on labels whose round is below r. `seconds` is the reader's time, if known.
    An adjudicator's label decides where readers disagree (see `truth`). `mask` is the digest of
    the kept mask (see `masks.files`) where a segmentation task's value is 1.0, and nowhere else:
    0.0 stands for an empty mask.
    """

    item_id: str
    finding: str
    value: float
    reader: str
    source: LabelSource
    key: str
    seconds: float | None = None
    round: int = 0
    role: ReaderRole = "reader"
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """One item in front of one reader.

    `round` is the round that asked (0: validation and vault, before the first round). An item
    goes to one or more readers first (`primary`); the others may read it when they run dry, and
    it leaves every queue once as many have read it as it has primaries. Lower `priority` is read
    first. `hinted` says that this reader sees the model's opinion.
    """

    item_id: str
    reader: str
    round: int
    priority: int
    primary: bool = True
    role: ReaderRole = "reader"
    hinted: bool = False


@dataclass(frozen=True, slots=True)
class Reread:
    """An item that others have answered, in front of one reader more.

    Where nobody else reads, in front of the same once more, at a desk of its own (`AGAIN`).

    A contradiction is an item whose `value` of a `finding`, as it held when this was drawn, a
    confident model denies; its control is like it but for that, and has the same `pair`. `round`
    and `priority` are those of the assignment. `confidence` in [0.5, 1] is the model's, NaN for a
    control. `after` counts the reads that the ledger held by then: what came before is no re-read.
    """

    item_id: str
    reader: str
    round: int
    priority: int
    kind: RereadKind
    pair: int
    finding: str
    value: float
    confidence: float
    model_id: str
    after: int


@dataclass(frozen=True, slots=True)
class Hint:
    """What a hinted reader is shown of one finding: 1.0 present or 0.0 absent, and the score.

    `mask` is the digest of the kept mask that the model drew, if it drew one.
    """

    item_id: str
    finding: str
    value: float
    score: float
    model_id: str
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What one reader did with one item; a later one by the same reader takes its place.

    `answers` are (finding, 1.0 / 0.0 / NaN), and empty unless the outcome is "read". `reason`
    says why an image is unusable. `withdrawn` takes back what the reader had said before.
    `key` names the event, so that bringing it twice appends one row. `seconds` is the time that
    the reading room reports, uncut; `read_at` when the read was done, by its clock (ISO 8601).
    `place` is where in the room the question stands: a copy of it, or another server's, is
    another place, and cannot take back what was said in this one. `masks` are (finding, digest of
    the kept mask) for what the reader drew: exactly the findings whose answer is 1.0 in a
    segmentation task.
    """

    key: str
    item_id: str
    reader: str
    source: LabelSource
    outcome: Outcome = "read"
    answers: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    seconds: float | None = None
    read_at: str | None = None
    place: str = ""
    masks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HeldRead:
    """A read as the ledger holds it, less its answers and masks, which are labels.

    `role` and `hinted` are those of its assignment; `round` is set as for a label.
    """

    key: str
    item_id: str
    reader: str
    outcome: Outcome
    reason: str
    seconds: float | None
    read_at: str | None
    role: ReaderRole
    hinted: bool
    round: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a ledger made of a page of reads: how many said something new, and which it refused."""

    new: int
    refused: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer that was not taken: `place` names it in the reading room, `reason` says why."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """Some of what changed in a reading room since a bookmark.

    `bookmark` is where the next pull may start once this page, and those before it, are kept.
    """

    reads: tuple[Read, ...]
    rejections: tuple[Rejection, ...] = ()
    bookmark: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A known label hidden in an archive: what the simulated reader will say when asked.

    `mask` is as in `Label`.
    """

    item_id: str
    finding: str
    value: float
    mask: str | None = None


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
    """A teacher's kept opinion on one finding of one item; `value` in [0, 1] (hard: 0 or 1).

    `mask` is the digest of the kept pseudo-mask, if there is one.
    """

    item_id: str
    finding: str
    value: float
    score: float
    mask: str | None = None


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


@dataclass(frozen=True, slots=True)
class Promotion:
    """A decision on the model in use: which one it is from here on, and which one it replaced.

    Each is named by round, stage and id. An override went against the gate. `verdict` is JSON of
    what the gate said ("" for a rollback, which has none); `at` is set by the ledger.
    """

    kind: PromotionKind
    round: int
    model_id: str
    stage: str
    replaced_round: int
    replaced_id: str
    replaced_stage: str
    decided_by: str
    why: str
    verdict: str
    at: str = ""
