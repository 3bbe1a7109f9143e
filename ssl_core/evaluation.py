"""The stage that measures: on validation, and in the one place where vault labels are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core import metrics, shadow
from ssl_core.claims.equal_budget import against_control, stand_ins
from ssl_core.errors import ReadloopError
from ssl_core.evidence import Differences, Estimate, PerFinding, compare
from ssl_core.made import Made, finite, save_arrays
from ssl_core.pictures.maps import keep_prediction
from ssl_core.probabilities import probabilities, put_by, stage_model
from ssl_core.records import CONTROL, DIFFERENCE, Item, Measurement, Model, Split
from ssl_core.training.distributed import is_main
from ssl_core.training.predict import predict
from ssl_core.turn import Turn
from ssl_core.workspace import Part, part

Floats = npt.NDArray[np.float64]
Scores = dict[str, Floats]
"""What one model gave the items of each split, `(N, C)`."""


def evaluate_stage(turn: Turn) -> Made:
    """Measure every model of the recipe on validation and, in one counted look, on the vault.

    Where the round trained a shadow control, its last model is measured in the same look, and held
    against the rounds that knew as many labels.
    """
    fits, ledger = turn.plan.fits, turn.workspace.ledger
    measured, vault_items = models_to_measure(turn), usable_vault(turn)
    student, control = measured[fits[-1].name], measured.get(CONTROL)
    vault = part(vault_items, (), turn.findings, turn.workspace.images)
    scores = {
        name: {
            part_name: _scores(turn, model, part_name, items.rows)
            for part_name, items in (("validation", turn.validation), ("vault", vault))
        }
        for name, model in measured.items()
    }
    detail: dict[str, Any] = {}
    rivals: list[tuple[float, Scores]] = []
    if control is not None:
        ids = {"validation": turn.validation.ids, "vault": vault.ids}
        detail["control"], rivals = _rivals(turn, ids, scores[fits[-1].name])
    if not is_main():
        return {"detail": {}}
    # The one place where vault labels are read: every model is trained and chosen by now.
    purpose = "measure " + ", ".join(measured)
    looked = ledger.look_into_vault(turn.round.number, student.id, purpose)
    vault = part(vault_items, looked, turn.findings, turn.workspace.images)
    save_arrays(turn.folder / "vault.npz", {n: s["vault"] for n, s in scores.items()})
    measurements: list[Measurement] = []
    thresholds: dict[str, list[float]] = {}
    for name, by_split in scores.items():
        chosen = metrics.choose_thresholds(
            by_split["validation"], turn.validation.labels, rule="accuracy"
        )
        thresholds[name] = chosen.tolist()
        measure = partial(_measure, turn, measured[name], name, thresholds=chosen)
        measurements += measure("validation", turn.validation, by_split["validation"])
        measurements += measure("vault", vault, by_split["vault"])
    if control is not None and rivals:
        compare_on = partial(_differences, turn, control, rivals, scores[CONTROL])
        measurements += [*compare_on("validation", turn.validation), *compare_on("vault", vault)]
    detail |= {"thresholds": thresholds, "gate": _gate(turn, scores)}
    return {"detail": finite(detail), "measurements": measurements}


def models_to_measure(turn: Turn) -> dict[str, Model]:
    """The recipe's models by stage, and the last of a shadow control as `CONTROL`."""
    fits, models = turn.plan.fits, turn.models()
    measured = {stage.name: models[stage.name] for stage in fits}
    control = models.get(shadow.shadow_name(fits[-1].name))
    return measured if control is None else {**measured, CONTROL: control}


def usable_vault(turn: Turn) -> list[Item]:
    """The vault's items whose images can be read."""
    ledger = turn.workspace.ledger
    out = ledger.reading.unusable(turn.round.number)
    return [item for item in ledger.items("vault") if item.id not in out]


def _gate(turn: Turn, scores: Mapping[str, Scores]) -> Any:
    """The student less the round's first model: macro AUROC on validation, paired by patient.

    The vault takes no part: what it chose it could no longer measure. None where the recipe makes
    one model.
    """
    first, student = turn.plan.fits[0].name, turn.plan.fits[-1].name
    if first == student or not turn.validation.ids:
        return None
    ours, theirs = (
        _auroc(turn.validation, scores[name]["validation"]) for name in (student, first)
    )
    found = compare(ours, theirs).macro
    return {"against": first, "difference": found.value, "low": found.low, "high": found.high}


def _auroc(items: Part, scores: Floats) -> PerFinding:
    return metrics.auroc(scores, items.labels, np.array(items.groups))


def _rivals(
    turn: Turn, ids: Mapping[str, tuple[str, ...]], student: Scores
) -> tuple[dict[str, Any], list[tuple[float, Scores]]]:
    """What is told of the control, and the models that it is held against, with their weights.

    What an earlier round's student says of these items is on file as a rule; a student whose files
    are gone costs the comparison, not the round.
    """
    labels = int(turn.by_chance.sum())
    weights = stand_ins(labels, shadow.budgets(turn))
    told: dict[str, Any] = {"labels": labels, "against": sorted(weights.items())}
    ws, found = turn.workspace, []
    try:
        for number, weight in sorted(weights.items()):
            if number == turn.round.number:
                found.append((weight, student))
                continue
            model = stage_model(ws, number, turn.plan.fits[-1].name)
            said = {
                split: probabilities(ws, number, model, some, turn.report)
                for split, some in ids.items()
            }
            found.append((weight, said))
    except ReadloopError as error:
        return {**told, "against": [], "not_compared": str(error)}, []
    return told, found


def _differences(
    turn: Turn,
    control: Model,
    rivals: list[tuple[float, Scores]],
    scores: Scores,
    split: Split,
    items: Part,
) -> list[Measurement]:
    if not items.ids:
        return []
    ours = [(weight, _auroc(items, said[split])) for weight, said in rivals]
    found = against_control(ours, _auroc(items, scores[split]))
    return difference_rows(turn, control, split, found)


def difference_rows(
    turn: Turn, control: Model, split: Split, found: Differences
) -> list[Measurement]:
    """The strategy less its control, as the ledger keeps it."""
    names = (*turn.findings, "macro")
    return [
        Measurement(control.id, CONTROL, split, name, DIFFERENCE, d.value, d.low, d.high, d.n)
        for name, d in zip(names, (*found.findings, found.macro), strict=True)
    ]


def _scores(turn: Turn, model: Model, name: str, rows: npt.NDArray[np.int64]) -> Floats:
    network = turn.workspace.load(model).to(turn.device.name)
    prediction = predict(
        network,
        turn.inputs(network),
        rows,
        exclusive=turn.exclusive,
        device=turn.device,
        tta=turn.plan.tta,
        report=turn.report,
        stage=f"evaluate {model.stage}",
    )
    if model.stage == turn.plan.fits[-1].name:
        keep_prediction(turn, f"evaluate-{name}", rows, prediction)
    put_by(turn, model, rows, prediction.probabilities)
    return prediction.probabilities.astype(np.float64)


def _measure(
    turn: Turn,
    model: Model,
    stage: str,
    split: Split,
    items: Part,
    scores: Floats,
    thresholds: Floats,
) -> list[Measurement]:
    rows = metrics.describe(
        scores,
        items.labels,
        exclusive=turn.exclusive,
        groups=np.array(items.groups),
        thresholds=thresholds,
    )
    return measurement_rows(turn, model, stage, split, rows)


def measurement_rows(
    turn: Turn,
    model: Model,
    stage: str,
    split: Split,
    rows: Sequence[tuple[int | None, str, Estimate]],
) -> list[Measurement]:
    """What was measured of a model on a split, as the ledger keeps it; column None is macro."""
    return [
        Measurement(
            model_id=model.id,
            stage=stage,
            split=split,
            finding="macro" if column is None else turn.findings[column],
            name=name,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            n=estimate.n,
        )
        for column, name, estimate in rows
    ]
