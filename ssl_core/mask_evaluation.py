"""The stage that measures masks: on validation and, in one counted look, on the vault."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core import drawings, shadow
from ssl_core.claims.equal_budget import against_control, stand_ins
from ssl_core.errors import ReadloopError
from ssl_core.evaluation import (
    difference_rows,
    measurement_rows,
    models_to_measure,
    usable_vault,
)
from ssl_core.evidence import PerFinding, compare
from ssl_core.made import Made, finite, save_arrays
from ssl_core.masks.overlap import Bools, Truth, as_truth, average, dice, shown
from ssl_core.masks.predict import predict_masks
from ssl_core.masks.scores import describe, mask_metrics
from ssl_core.masks.truth import MaskTruth, mask_truth
from ssl_core.pictures.maps import keep_prediction
from ssl_core.probabilities import put_by, stage_model
from ssl_core.records import CONTROL, Label, Measurement, Model, Split
from ssl_core.training.distributed import is_main
from ssl_core.training.predict import Prediction
from ssl_core.turn import Turn
from ssl_core.workspace import Part, part

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]
Measured = dict[str, tuple[Part, MaskTruth]]
"""The items of each split that are measured on, and what readers drew of them."""


def evaluate_masks_stage(turn: Turn) -> Made:
    """Measure every model of the recipe; the Dice of each vault item is kept for paired tests.

    As `evaluation.evaluate_stage`, which does it for classifiers.
    """
    models, ledger, fits = models_to_measure(turn), turn.workspace.ledger, turn.plan.fits
    items = usable_vault(turn)
    looked: list[Label] = []
    if is_main():  # every model is trained and chosen by now
        purpose = "measure " + ", ".join(models)
        looked = ledger.look_into_vault(turn.round.number, models[fits[-1].name].id, purpose)
    vault = part(items, looked, turn.findings, turn.workspace.images)
    truth = mask_truth(vault.ids, looked, turn.findings, turn.workspace.masks)
    splits: dict[Split, tuple[Part, MaskTruth]] = {
        "validation": (turn.validation, turn.truth(turn.validation)),
        "vault": (vault, truth),
    }
    measurements: list[Measurement] = []
    scores: dict[str, dict[Split, Floats]] = {}
    for name, model in models.items():
        for split, (some, drawn) in splits.items():
            maps = _maps(turn, model, split, some)
            if is_main():
                visible, (inside, sure, known) = compared(maps, drawn)
                groups = np.array(some.groups)
                found = mask_metrics(visible, inside, known, groups, sure=sure)
                diagonal = math.hypot(*maps.shape[2:])
                rows = describe(found, diagonal) if len(some.ids) else []
                measurements += measurement_rows(turn, model, name, split, rows)
                scores.setdefault(name, {})[split] = item_dice(visible, inside, known)
    detail: dict[str, Any] = {}
    if CONTROL in models:
        detail["control"], more = _against_control(turn, models, splits, scores)
        measurements += more
    if not is_main():
        return {"detail": {}}
    save_arrays(turn.folder / "vault.npz", {name: s["vault"] for name, s in scores.items()})
    detail["gate"] = _gate(turn, scores)
    return {"detail": finite(detail), "measurements": measurements}


def compared(maps: Maps, truth: MaskTruth) -> tuple[Maps, Truth]:
    """Maps `(n, C, S, S)`, and what they are held against, as `masks.scores` takes them.

    Pixels on which readers were evenly split are shown to neither: both are empty there.
    """
    found = as_truth(truth.at(np.arange(len(maps))), truth.present)
    return np.where(found.sure, maps, np.float32(0)), found


def item_dice(maps: Maps, inside: Bools, known: Bools) -> Floats:
    """Dice of each item and finding `(n, C)`, as `masks.scores` means it: maps are cut at .5."""
    return dice(maps >= 0.5, inside, shown(inside, known))


def _maps(turn: Turn, model: Model, split: Split, items: Part) -> Maps:
    """`(n, C, S, S)`; what the pages ask of them besides is put by."""
    found = predict_masks(
        turn.workspace.load_segmenter(model),
        turn.workspace.images.array,
        items.rows,
        lambda _, made: {
            "maps": made.maps,
            "classes": made.classes,
            "features": made.features,
        },
        device=turn.device,
        tta=turn.plan.tta,
        report=turn.report,
        stage=f"evaluate {model.stage}",
    )
    put_by(turn, model, items.rows, found["classes"])
    if split == "validation":
        drawings.put_by(turn, model, items.rows, found["maps"])
    if model.stage == turn.plan.fits[-1].name:
        seen = Prediction(found["classes"], found["features"])
        keep_prediction(turn, f"evaluate-{split}", items.rows, seen)
    return np.asarray(found["maps"])


def _gate(turn: Turn, scores: dict[str, dict[Split, Floats]]) -> Any:
    """The student less the round's first model: macro Dice on validation, paired by patient."""
    first, student = turn.plan.fits[0].name, turn.plan.fits[-1].name
    if first == student or not turn.validation.ids:
        return None
    groups = np.array(turn.validation.groups)
    ours, theirs = (average(scores[name]["validation"], groups) for name in (student, first))
    found = compare(ours, theirs).macro
    return {"against": first, "difference": found.value, "low": found.low, "high": found.high}


def _against_control(
    turn: Turn,
    models: dict[str, Model],
    splits: dict[Split, tuple[Part, MaskTruth]],
    scores: dict[str, dict[Split, Floats]],
) -> tuple[dict[str, Any], list[Measurement]]:
    """The rounds that knew as many labels as the control, less the control: Dice, by patient.

    An earlier round's student whose file is gone costs the comparison, not the round.
    """
    labels, student = int(turn.by_chance.sum()), turn.plan.fits[-1].name
    weights = stand_ins(labels, shadow.budgets(turn))
    told: dict[str, Any] = {"labels": labels, "against": sorted(weights.items())}
    rows: list[Measurement] = []
    for split, (items, truth) in splits.items():
        if not weights or not items.ids:
            continue
        groups = np.array(items.groups)
        try:
            ours: list[tuple[float, PerFinding]] = []
            for number, weight in sorted(weights.items()):
                model = models[student]
                if number != turn.round.number:
                    model = stage_model(turn.workspace, number, student)
                maps = _maps(turn, model, split, items)
                if is_main():
                    visible, (inside, _, known) = compared(maps, truth)
                    ours.append((weight, average(item_dice(visible, inside, known), groups)))
        except ReadloopError as error:
            return {**told, "against": [], "not_compared": str(error)}, []
        if is_main():
            found = against_control(ours, average(scores[CONTROL][split], groups))
            rows += difference_rows(turn, models[CONTROL], split, found)
    return told, rows
