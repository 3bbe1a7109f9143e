"""Which model is in use, and the gate that a student must pass to replace it.

The model in use is what the newest promotion or rollback says. Before the first, it is the newest
student if that passed the gate against the first model of its round, its teacher, and else the
teacher. Decisions are appended to the ledger, like everything else.

The gate asks for a paired comparison of two models on the same items. A round stores that of its
own student and teacher; of others the ledger holds each model's own interval, which says nothing of
how the two move together. The vault may not choose a model: its numbers would then no longer be
those of an unseen test. So both are measured on validation, by patient (see `evidence.compare`).
It also chose each model's epoch, which flatters both; it is the difference that is tested. Losses
below the margin may add up over many promotions: the vault's curve is where that shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ssl_core.drawings import measured
from ssl_core.errors import WorkspaceError
from ssl_core.evidence import Difference, compare
from ssl_core.probabilities import find_round, labeled
from ssl_core.progress import Report, silent
from ssl_core.records import Model, Promotion, PromotionKind, Split
from ssl_core.student import find_student
from ssl_core.workspace import Workspace

Made = tuple[int, Model]
"""A model with the number of the round that made it, as `student.newest_student` gives it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a candidate against a baseline.

    `difference` is the candidate's macro AUROC (Dice of masks) less the baseline's, with its
    paired 95 % interval by patient, from `n` items of `split`; NaN where undefined, and then it
    does not pass. It passes when `low` > -`margin`: a loss larger than the margin is excluded.
    """

    passes: bool
    difference: float
    low: float
    high: float
    n: int
    split: Split
    margin: float
    candidate: str
    baseline: str
    sentence: str


def in_use(ws: Workspace) -> Made:
    """The model in use and the round that made it.

    Raises:
        WorkspaceError: no round has trained a model yet, or the ledger lost the promoted one.
    """
    found = find_in_use(ws)
    if found is None:
        raise WorkspaceError(
            f"{ws.root} has no trained model yet: run `readloop round {ws.root}` until it has."
        )
    return found


def find_in_use(ws: Workspace) -> Made | None:
    """The same, or None where no round has trained a model yet."""
    decided = ws.ledger.promotions()
    if not decided:
        return _by_default(ws)
    newest = decided[-1]
    return _made(ws, newest.round, newest.stage, newest.model_id)


def _by_default(ws: Workspace) -> Made | None:
    """The newest student, or its round's first model where it did not pass the gate against it."""
    found = find_student(ws)
    if found is None:
        return None
    number, _ = found
    stage = next(s for s in ws.ledger.stages(number) if s.name == "evaluate")
    held = json.loads(stage.detail).get("gate")  # None: of one model, or of an older release
    if held is None or (held["low"] is not None and held["low"] > -ws.config.promotion.margin):
        return found
    first = [m for _, m in ws.ledger.models(number) if m.stage == held["against"]]
    return (number, first[-1]) if first else found


def candidates(ws: Workspace) -> list[Made]:
    """Every model that a finished round measured, oldest first: what may be promoted."""
    measured = {number for number, _ in ws.ledger.measurements()}
    measured = {number for number in measured if ws.ledger.finished(number)}
    return [one for one in ws.ledger.models() if one[0] in measured]


def find_candidate(ws: Workspace, model_id: str = "") -> Made:
    """The newest measured model whose id begins so; "": the newest student.

    Raises:
        WorkspaceError: there is none, or several ids begin so.
    """
    if not model_id:
        found = find_student(ws)
        if found is None:
            raise WorkspaceError(
                f"{ws.root} has no trained model yet: run `readloop round {ws.root}` until it has."
            )
        return found
    fitting = [one for one in candidates(ws) if one[1].id.startswith(model_id)]
    if len({model.id for _, model in fitting}) != 1:
        many = "several models" if fitting else "no measured model"
        raise WorkspaceError(
            f"There is {many} whose id begins with {model_id!r}: `readloop models {ws.root}` lists "
            "them."
        )
    return fitting[-1]


def baseline(ws: Workspace, candidate: Made) -> Made | None:
    """What a candidate is held against: the model in use.

    Where nothing was promoted yet and the candidate is itself in use as the newest student, that
    is what was so before its round: the student of the round before, else its own round's first
    model, the teacher. None where there is no other model.
    """
    current = in_use(ws)
    if current[1].id != candidate[1].id:
        return current
    if ws.ledger.promotions():
        return None
    number, model = candidate
    before = [one for one in candidates(ws) if one[0] < number and one[1].stage == model.stage]
    teacher = [one for one in candidates(ws) if one[0] == number][:1]
    return next((x for x in [*before[-1:], *teacher] if x[1].id != model.id), None)


def gate(
    ws: Workspace, candidate: Made, against: Made | None = None, report: Report = silent
) -> Verdict:
    """Whether a candidate may replace another model; None: its `baseline`.

    It scores the validation items with both models, at the first call for each.

    Raises:
        WorkspaceError: a model cannot be read, or there is nothing to compare with.
    """
    other = against or _other(ws, candidate)
    found = paired(ws, candidate, other, report)
    margin = ws.config.promotion.margin
    passes = not math.isnan(found.low) and found.low > -margin
    return Verdict(
        passes=passes,
        difference=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        split="validation",
        margin=margin,
        candidate=candidate[1].id,
        baseline=other[1].id,
        sentence=_sentence(candidate, other, found, margin, passes, ws.ledger.task.metric_name),
    )


def paired(ws: Workspace, ours: Made, theirs: Made, report: Report = silent) -> Difference:
    """Macro AUROC (Dice) of one model less that of another, on validation items labeled today."""
    items = labeled(ws, "validation")
    if not items.ids:
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    first, second = (measured(ws, *made, items, report) for made in (ours, theirs))
    return compare(first, second).macro


def promote(
    ws: Workspace,
    candidate: Made,
    by: str,
    why: str = "",
    *,
    override: bool = False,
    report: Report = silent,
) -> Verdict:
    """Put a model in use that passes the gate, or with `override` and a reason one that does not.

    Raises:
        WorkspaceError: it does not pass, is in use already, or an override has no reason.
        LedgerError: somebody else decided meanwhile.
    """
    held = ws.ledger.promotions()
    other = _other(ws, candidate)
    ws.network(candidate[1])
    verdict = gate(ws, candidate, other, report)
    if not verdict.passes and not override:
        raise WorkspaceError(
            f"Not promoted: {verdict.sentence} Give --override with --why to promote it all the "
            "same."
        )
    if not verdict.passes and not why.strip():
        raise WorkspaceError("An override needs its reason: give --why, it is kept with your name.")
    kind: PromotionKind = "promotion" if verdict.passes else "override"
    told = json.dumps({k: None if v != v else v for k, v in asdict(verdict).items()})
    ws.ledger.add_promotion(_row(kind, candidate, other, by, why, told), len(held))
    return verdict


def roll_back(ws: Workspace, by: str, why: str = "") -> Made:
    """Put the model in use that the newest standing promotion replaced; return it.

    Promotions that were rolled back do not stand: rolling back twice goes back two steps.

    Raises:
        WorkspaceError: no promotion stands, or the model's file cannot be read.
        LedgerError: somebody else decided meanwhile.
    """
    held = ws.ledger.promotions()
    undone = _standing(held)
    if undone is None:
        raise WorkspaceError(
            f"Nothing was promoted in {ws.root} that is still in use: there is nothing to roll "
            "back."
        )
    back = _made(ws, undone.replaced_round, undone.replaced_stage, undone.replaced_id)
    ws.network(back[1])
    ws.ledger.add_promotion(_row("rollback", back, in_use(ws), by, why, ""), len(held))
    return back


def _other(ws: Workspace, candidate: Made) -> Made:
    other = baseline(ws, candidate)
    if other is None:
        raise WorkspaceError(
            f"Model {candidate[1].id[:12]} is in use already: choose another with --model."
        )
    return other


def _standing(decided: Sequence[Promotion]) -> Promotion | None:
    """The newest promotion that was not rolled back."""
    stack: list[Promotion] = []
    for one in decided:
        if one.kind != "rollback":
            stack.append(one)
        elif stack:
            stack.pop()
    return stack[-1] if stack else None


def _row(
    kind: PromotionKind, made: Made, replaced: Made, by: str, why: str, verdict: str
) -> Promotion:
    (number, model), (before, other) = made, replaced
    return Promotion(
        kind, number, model.id, model.stage, before, other.id, other.stage, by, why, verdict
    )


def _made(ws: Workspace, number: int, stage: str, model_id: str) -> Made:
    find_round(ws, number)
    for of, model in ws.ledger.models(number):
        if (model.stage, model.id) == (stage, model_id):
            return of, model
    raise WorkspaceError(
        f"The ledger of {ws.root} does not hold the promoted model {model_id[:12]} of round "
        f"{number}: promote another."
    )


def _sentence(
    candidate: Made, other: Made, found: Difference, margin: float, passes: bool, metric: str
) -> str:
    names = f"{_name(candidate)} against {_name(other)}"
    if math.isnan(found.low):
        reason = "the difference is undefined on validation"
        if not found.n:
            reason = "no validation item is labeled"
        return f"{names}: {reason}, so a loss cannot be excluded."
    told = (
        f"{names} on validation ({found.n:,} items, paired by patient): {metric} "
        f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    )
    verb = "excludes" if passes else "does not exclude"
    return f"{told}, which {verb} a loss larger than {margin:g}."


def _name(made: Made) -> str:
    number, model = made
    return f"{model.stage} of round {number}"
