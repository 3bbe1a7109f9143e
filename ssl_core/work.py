"""What the stages of a round do: each returns what it made, for the ledger to append."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core import pseudo_labels, strategies
from ssl_core.auditing.pauses import withhold
from ssl_core.claims import fallback
from ssl_core.made import Made
from ssl_core.made import finite as _finite
from ssl_core.mask_work import mask_view
from ssl_core.pictures.maps import keep_prediction
from ssl_core.pretrain import pretrained
from ssl_core.probabilities import probabilities, put_by
from ssl_core.recipes.stages import LABELS, Fit, Pretrain, PseudoLabel
from ssl_core.records import Model, Selection
from ssl_core.records import PseudoLabel as PseudoLabelRow
from ssl_core.selection import draw
from ssl_core.training.feed import Examples, Unlabeled
from ssl_core.training.models import Classifier, save_model, with_new_head
from ssl_core.training.predict import predict, predict_views
from ssl_core.training.train import fit, learnable
from ssl_core.turn import Turn
from ssl_core.workspace import MODELS_FOLDER

VIEWS = 8  # augmented views a strategy may compare


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
        "epochs": [[e.loss, e.score, e.log_loss] for e in result.history],
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
    """Score the pool with the teacher and keep the most confident, balanced by the prior.

    Of a finding that an alarm paused nothing is kept; see `pauses`.
    """
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
    kept, told = withhold(turn, keep(scores, prior, stage.keep_fraction), scores)
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
        **told,
    }
    return {"detail": _finite(detail), "pseudo_labels": rows}


def select_stage(turn: Turn) -> Made:
    """Draw the next query from the pool: the strategy's choice and the random slice."""
    pool, selection = turn.askable, turn.config.selection
    strategy, fallen = fallback.asks(turn)
    view = _pool_view(turn, strategy)
    rng = np.random.default_rng(turn.seed("select"))
    scores = strategies.ALL_STRATEGIES[strategy](view, turn.round.query_size, rng)
    drawn = draw(
        _without_duplicates(turn, view, scores),
        pool.groups,
        turn.round.query_size,
        random_share=selection.random_share,
        group_cap=selection.group_cap or None,
        rng=rng,
        strategy_name=strategy,
        reasons=lambda i: (
            strategies.reason(strategy, view, i, float(scores[i]), turn.findings)
            + (fallback.BECAUSE if fallen else "")
        ),
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
    detail = {"pool": len(pool.ids), "asked": len(chosen)} | fallen
    return {"detail": detail, "selections": chosen}


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
    needs = strategies.ALL_NEEDS[strategy]
    pool = turn.askable
    if not needs:
        return strategies.PoolView(len(pool.ids), turn.exclusive)
    trained = turn.trains
    if turn.segmentation:
        return mask_view(turn, needs)
    model, tta = turn.student_or_first(), turn.plan.tta if trained else "none"
    pooled = turn.predict(model, pool.rows, tta=tta, stage="score the pool")
    keep_prediction(turn, "select", pool.rows, pooled)
    views = None
    if "views" in needs:
        assert isinstance(model, Classifier)  # masks were looked at above
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
        labeled_features=turn.predict(
            model, turn.labeled.rows, tta="none", stage="score the labeled"
        ).features,
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
