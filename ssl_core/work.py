"""What the stages of a round do: each returns what it made, for the ledger to append."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core import metrics, pseudo_labels, strategies
from ssl_core.distributed import is_main
from ssl_core.evidence import compare
from ssl_core.maps import keep_prediction
from ssl_core.models import Classifier, save_model, with_new_head
from ssl_core.predict import predict, predict_views
from ssl_core.pretrain import pretrained
from ssl_core.probabilities import probabilities, put_by
from ssl_core.recipes.stages import LABELS, Fit, Pretrain, PseudoLabel
from ssl_core.records import Measurement, Model, Selection, Split
from ssl_core.records import PseudoLabel as PseudoLabelRow
from ssl_core.selection import draw
from ssl_core.steps import Examples, Unlabeled
from ssl_core.train import fit, learnable
from ssl_core.turn import Turn
from ssl_core.workspace import MODELS_FOLDER, Part, part

VIEWS = 8  # augmented views a strategy may compare

Made = dict[str, Any]
"""What a stage made: `Ledger.add_stage`'s keyword arguments, and its `detail`."""


def fit_stage(turn: Turn, stage: Fit) -> Made:
    """Train a model and keep it, or let another stand in where there is nothing to learn from."""
    material = _material(turn, stage)
    shown = turn.labeled.labels if material is None else material.targets
    usable = learnable(shown, exclusive=turn.exclusive)
    if not usable.any() and stage.otherwise is not None:
        stand_in = turn.models()[stage.otherwise]
        detail: dict[str, Any] = {"items": 0, "stands_in": stage.otherwise}
        return {"detail": detail, "models": [replace(stand_in, stage=stage.name)]}
    model = _first(turn, stage)
    result = fit(
        model,
        turn.inputs(model),
        material,
        Examples(turn.validation.rows, turn.validation.labels),
        stage.schedule,
        spec=turn.plan.augmentation,
        seed=turn.seed(stage.name),
        exclusive=turn.exclusive,
        findings=turn.findings,
        device=turn.device,
        objective=stage.objective,
        unlabeled=Unlabeled(turn.train.rows, stage.views, stage.ratio) if stage.views else None,
        teacher=turn.freeze(turn.load(stage.teacher)) if stage.teacher else None,
        prior=turn.class_prior(),
        banks=turn.banks(model),
        checkpoint=turn.folder / "checkpoints" / f"{stage.name}.pt",
        checkpoint_seconds=turn.config.compute.checkpoint_seconds,
        report=turn.report,
        stage=stage.name,
    )
    detail = {
        "items": len(turn.train.rows if material is None else material.rows),
        "epochs": [[e.loss, e.auroc, e.log_loss] for e in result.history],
        "best_epoch": result.best,
        "not_learned": [f for f, u in zip(turn.findings, usable, strict=True) if not u],
    }
    return {"detail": _finite(detail), "models": [_keep(turn, model, stage.name)]}


def _first(turn: Turn, stage: Fit) -> Classifier:
    """The network as a stage begins with it."""
    if stage.start is None:
        return turn.fresh_model(stage.name, stage.backbone, stage.weights)
    for earlier in turn.plan.stages:
        if isinstance(earlier, Pretrain) and earlier.name == stage.start:
            features, seed = pretrained(turn, earlier).network, turn.seed(stage.name)
            return with_new_head(features, len(turn.findings), neck=stage.neck, seed=seed)
    return turn.load(stage.start)


def pretrain_stage(turn: Turn, stage: Pretrain) -> Made:
    """Have features learned without labels, and say which: rounds and seeds share them."""
    found = pretrained(turn, stage)
    detail = {"artefact": found.name, "items": found.items, "losses": found.losses}
    return {"detail": _finite(detail)}


def _material(turn: Turn, stage: Fit) -> Examples | None:
    if stage.on is None:
        return None
    if stage.on == LABELS:
        labeled = turn.labeled
        return Examples(labeled.rows, labeled.labels)
    column = {finding: c for c, finding in enumerate(turn.findings)}
    targets: dict[str, npt.NDArray[np.float64]] = {}
    for row in turn.workspace.ledger.pseudo_labels(turn.round.number, stage.on):
        target = targets.setdefault(row.item_id, np.full(len(column), np.nan))
        target[column[row.finding]] = row.value
    rows = turn.workspace.images.positions(list(targets))
    return Examples(rows, np.array(list(targets.values())).reshape(-1, len(column)))


def _keep(turn: Turn, model: Classifier, stage: str) -> Model:
    identity = save_model(model, turn.workspace.models_folder)
    path = f"{MODELS_FOLDER}/{identity}.safetensors"
    return Model(identity, stage, model.backbone, path)


def pseudo_label_stage(turn: Turn, stage: PseudoLabel) -> Made:
    """Score the pool with the teacher and keep the most confident, balanced by the prior."""
    teacher, pool = turn.models()[stage.teacher], turn.pool
    model = turn.workspace.load(teacher).to(turn.device.name)
    found = predict(
        model,
        turn.inputs(model),
        pool.rows,
        exclusive=turn.exclusive,
        device=turn.device,
        tta=stage.tta,
        report=turn.report,
        stage=stage.name,
    ).probabilities
    if stage.tta == turn.plan.tta:
        put_by(turn, teacher, pool.rows, found)
    scores = found.astype(np.float64)
    prior = turn.class_prior()
    keep = (
        pseudo_labels.keep_most_confident_class
        if turn.exclusive
        else pseudo_labels.keep_most_confident
    )
    kept = keep(scores, prior, stage.keep_fraction)
    values = pseudo_labels.soften(kept, scores) if stage.soft else kept
    rows = [
        PseudoLabelRow(pool.ids[i], turn.findings[c], float(values[i, c]), float(scores[i, c]))
        for i, c in np.argwhere(~np.isnan(kept)).tolist()
    ]
    detail = {
        "pool": len(pool.ids),
        "prior": prior.tolist(),
        "positives": np.nansum(kept, axis=0).tolist(),
        "kept": (~np.isnan(kept)).sum(axis=0).tolist(),
    }
    return {"detail": _finite(detail), "pseudo_labels": rows}


def evaluate_stage(turn: Turn) -> Made:
    """Measure every model of the recipe on validation and, in one counted look, on the vault."""
    fits, models = turn.plan.fits, turn.models()
    student = models[fits[-1].name]
    ledger = turn.workspace.ledger
    out = ledger.reading.unusable(turn.round.number)
    vault_items = [item for item in ledger.items("vault") if item.id not in out]
    vault = part(vault_items, (), turn.findings, turn.workspace.images)
    scores = {
        stage.name: {
            part_name: _scores(turn, models[stage.name], part_name, items.rows)
            for part_name, items in (("validation", turn.validation), ("vault", vault))
        }
        for stage in fits
    }
    if not is_main():
        return {"detail": {}}
    # The one place where vault labels are read: every model is trained and chosen by now.
    purpose = "measure " + ", ".join(stage.name for stage in fits)
    looked = ledger.look_into_vault(turn.round.number, student.id, purpose)
    vault = part(vault_items, looked, turn.findings, turn.workspace.images)
    _save_arrays(turn.folder / "vault.npz", {n: s["vault"] for n, s in scores.items()})
    measurements: list[Measurement] = []
    thresholds: dict[str, list[float]] = {}
    for name, by_split in scores.items():
        chosen = metrics.choose_thresholds(
            by_split["validation"], turn.validation.labels, rule="accuracy"
        )
        thresholds[name] = chosen.tolist()
        measure = partial(_measure, turn, models[name], name, thresholds=chosen)
        measurements += measure("validation", turn.validation, by_split["validation"])
        measurements += measure("vault", vault, by_split["vault"])
    detail = {"thresholds": thresholds, "gate": _gate(turn, scores)}
    return {"detail": _finite(detail), "measurements": measurements}


def _gate(turn: Turn, scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]) -> Any:
    """The student less the round's first model: macro AUROC on validation, paired by patient.

    The vault takes no part: what it chose it could no longer measure. None where the recipe makes
    one model.
    """
    first, student = turn.plan.fits[0].name, turn.plan.fits[-1].name
    if first == student or not turn.validation.ids:
        return None
    groups = np.array(turn.validation.groups)
    ours, theirs = (
        metrics.auroc(scores[name]["validation"], turn.validation.labels, groups)
        for name in (student, first)
    )
    found = compare(ours, theirs).macro
    return {"against": first, "difference": found.value, "low": found.low, "high": found.high}


def _scores(
    turn: Turn, model: Model, name: str, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
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
    scores: npt.NDArray[np.float64],
    thresholds: npt.NDArray[np.float64],
) -> list[Measurement]:
    rows = metrics.describe(
        scores,
        items.labels,
        exclusive=turn.exclusive,
        groups=np.array(items.groups),
        thresholds=thresholds,
    )
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


def select_stage(turn: Turn) -> Made:
    """Draw the next query from the pool: the strategy's choice and the random slice."""
    pool, selection = turn.askable, turn.config.selection
    strategy = turn.round.strategy
    view = _pool_view(turn, strategy)
    rng = np.random.default_rng(turn.seed("select"))
    scores = strategies.STRATEGIES[strategy](view, turn.round.query_size, rng)
    drawn = draw(
        _without_duplicates(turn, view, scores),
        pool.groups,
        turn.round.query_size,
        random_share=selection.random_share,
        group_cap=selection.group_cap or None,
        rng=rng,
        strategy_name=strategy,
        reasons=lambda i: strategies.reason(strategy, view, i, float(scores[i]), turn.findings),
    )
    chosen = [
        Selection(
            item_id=pool.ids[one.position],
            rank=one.rank,
            kind=one.kind,
            strategy=strategy,
            score=one.score,
            probability=one.probability,
            slice_probability=one.slice_probability,
            reason=one.reason,
        )
        for one in drawn
    ]
    return {"detail": {"pool": len(pool.ids), "asked": len(chosen)}, "selections": chosen}


def _without_duplicates(
    turn: Turn, view: strategies.PoolView, scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The scores with near-duplicates last, where that is wanted and features are there."""
    wanted = turn.config.selection.duplicates
    if not wanted or view.features is None:
        return scores
    threshold = strategies.DUPLICATE if wanted is True else wanted
    rng = np.random.default_rng(turn.seed("duplicates"))  # its own: the draw stays as it was
    count = 2 * turn.round.query_size  # the slice and the cap may pass over some
    return strategies.demote_duplicates(scores, view, threshold, count, rng)


def _pool_view(turn: Turn, strategy: str) -> strategies.PoolView:
    needs = strategies.NEEDS[strategy]
    pool = turn.askable
    if not needs:
        return strategies.PoolView(len(pool.ids), turn.exclusive)
    trained = turn.trains
    model = turn.student() if trained else turn.fresh_model("features")
    model = model.to(turn.device.name)
    ask = partial(
        predict,
        model,
        turn.inputs(model),
        exclusive=turn.exclusive,
        device=turn.device,
        report=turn.report,
    )
    pooled = ask(pool.rows, tta=turn.plan.tta if trained else "none", stage="score the pool")
    keep_prediction(turn, "select", pool.rows, pooled)
    views = None
    if "views" in needs:
        views = predict_views(
            model,
            turn.workspace.images.array,
            pool.rows,
            views=VIEWS,
            spec=turn.plan.augmentation,
            seed=turn.seed("views"),
            exclusive=turn.exclusive,
            device=turn.device,
            report=turn.report,
        )
    return strategies.PoolView(
        size=len(pool.ids),
        exclusive=turn.exclusive,
        probabilities=pooled.probabilities if trained else None,
        views=views,
        features=pooled.features,
        labeled_features=ask(turn.labeled.rows, stage="score the labeled").features,
        teacher_probabilities=_teacher_opinion(turn) if "teacher_probabilities" in needs else None,
    )


def _teacher_opinion(turn: Turn) -> npt.NDArray[np.float64] | None:
    """What the round's first model says of the pool; None where the recipe makes only one."""
    fits = turn.plan.fits
    if not turn.trains or len(fits) < 2:
        return None
    teacher = turn.models()[fits[0].name]
    ids = turn.askable.ids
    return probabilities(turn.workspace, turn.round.number, teacher, ids, turn.report)


def _save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[np.float64]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, allow_pickle=False, **{n.replace(" ", "_"): a for n, a in arrays.items()})
    scratch.replace(path)


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is unknown becomes null."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
