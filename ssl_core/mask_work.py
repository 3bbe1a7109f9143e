"""What the stages of a round do where masks are drawn: training, pseudo-masks, what is asked."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.auditing.pauses import withhold
from ssl_core.evidence import compare
from ssl_core.made import Made, finite, save_arrays
from ssl_core.masks import files
from ssl_core.masks import selection as scores_of
from ssl_core.masks.ensemble import ENSEMBLES, confidence, decide
from ssl_core.masks.ensemble import PseudoMasks as Decided
from ssl_core.masks.feed import Drawn, MaskExamples, joined
from ssl_core.masks.networks import Segmenter
from ssl_core.masks.overlap import as_truth, average, dice
from ssl_core.masks.predict import Maps, each_batch, view_maps
from ssl_core.masks.train import fit_masks
from ssl_core.pictures.maps import keep_prediction
from ssl_core.recipes.stages import LABELS, FitMasks, PseudoMasks
from ssl_core.records import Model, PseudoLabel
from ssl_core.strategies import PoolView
from ssl_core.training.distributed import is_main
from ssl_core.training.feed import Unlabeled
from ssl_core.training.models import save_model
from ssl_core.training.predict import Prediction
from ssl_core.turn import Turn
from ssl_core.workspace import MODELS_FOLDER, Part

Floats = npt.NDArray[np.float64]

VIEWS = 3  # augmented views whose masks a strategy compares, beside the image as it is


def fit_masks_stage(turn: Turn, stage: FitMasks) -> Made:
    """Train a network that draws masks and keep it."""
    material = _material(turn, stage)
    model = _first(turn, stage)
    result = fit_masks(
        model,
        turn.workspace.images.array,
        material,
        examples(turn, turn.validation),
        stage.schedule,
        seed=turn.seed(stage.name),
        device=turn.device,
        view=stage.view,
        objective=stage.objective,
        unlabeled=Unlabeled(turn.train.rows, stage.views, stage.ratio) if stage.views else None,
        paste=stage.paste,
        checkpoint=turn.folder / "checkpoints" / f"{stage.name}.pt",
        checkpoint_seconds=turn.config.compute.checkpoint_seconds,
        report=turn.report,
        stage=stage.name,
    )
    present = material.masks.present
    detail: dict[str, Any] = {
        "items": len(material),
        "epochs": [[e.loss, e.score, e.log_loss] for e in result.history],
        "best_epoch": result.best,
        "weights": sum(p.numel() for p in model.parameters()),
        "not_learned": [f for c, f in enumerate(turn.findings) if not (present[:, c] == 1).any()],
    }
    identity = save_model(model, turn.workspace.models_folder)
    path = f"{MODELS_FOLDER}/{identity}.safetensors"
    made = Model(identity, stage.name, model.backbone, path)
    return {"detail": finite(detail), "models": [made]}


def examples(turn: Turn, items: Part) -> MaskExamples:
    """Items with the masks that readers drew of them, as of the round's opening."""
    return MaskExamples(items.rows, turn.truth(items))


def _first(turn: Turn, stage: FitMasks) -> Segmenter:
    """The network as a stage begins with it."""
    if stage.start is not None:
        return turn.segmenter(stage.start)
    return turn.fresh_segmenter(stage.name, stage.backbone, stage.weights)


def _material(turn: Turn, stage: FitMasks) -> MaskExamples:
    """The readers' masks and those that teachers drew, as the stage wants them."""
    parts = [
        examples(turn, turn.labeled) if name == LABELS else _drawn(turn, name) for name in stage.on
    ]
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else joined(filled)


def _drawn(turn: Turn, stage: str) -> MaskExamples:
    """The pseudo-masks that a stage kept: absent findings are empty masks, dropped ones unknown."""
    column = {finding: c for c, finding in enumerate(turn.findings)}
    size, store = turn.workspace.images.size, turn.workspace.masks
    kept = turn.workspace.ledger.pseudo_labels(turn.round.number, stage)
    place = {item_id: i for i, item_id in enumerate(dict.fromkeys(row.item_id for row in kept))}
    masks = np.full((len(place), len(column), size, size), np.nan, np.float32)
    drawn = iter(store.at([row.mask for row in kept if row.mask]))
    for row in kept:
        masks[place[row.item_id], column[row.finding]] = next(drawn) if row.mask else 0.0
    return MaskExamples(turn.workspace.images.positions(list(place)), Drawn(masks))


def pseudo_masks_stage(turn: Turn, stage: PseudoMasks) -> Made:
    """Have the teachers draw the pool together, and keep what is clearly there or clearly not.

    How good such masks are is measured on validation, where the same is decided and then compared
    with what readers drew: it is what tells a student that learns its teachers' errors.
    """
    pool = turn.pool
    teachers = [turn.segmenter(name) for name in stage.teachers]
    rows = list[PseudoLabel]()
    kept: Floats = np.empty((0, len(turn.findings)))
    told: dict[str, Any] = {}
    folder = turn.workspace.masks_folder

    def keep(places: npt.NDArray[np.intp], made: list[Maps]) -> dict[str, Any]:
        scores, decided = _decided(stage, made)
        digests = [
            [files.keep(folder, decided.masks[i, c]) if value == 1 else "" for c, value in each]
            for i, each in enumerate(enumerate(row) for row in decided.decided)
        ]
        return {
            "scores": scores,
            "decided": decided.decided,
            "digests": np.array(digests, dtype="U64"),
        }

    if len(pool.ids):
        found = _by_teachers(turn, stage, teachers, pool.rows, keep, stage.name)
        scores, digests = found["scores"], found["digests"]
        kept, told = withhold(turn, found["decided"], scores, digests)
        for i, c in np.argwhere(~np.isnan(kept)).tolist():
            value, score = float(kept[i, c]), float(scores[i, c])
            mask = str(digests[i, c]) or None
            rows.append(PseudoLabel(pool.ids[i], turn.findings[c], value, score, mask))
    detail = {
        "pool": len(pool.ids),
        "teachers": list(stage.teachers),
        "ensemble": stage.ensemble,
        "positives": (kept == 1).sum(axis=0).tolist(),
        "kept": (~np.isnan(kept)).sum(axis=0).tolist(),
        "validation": _quality(turn, stage, teachers),
        **told,
    }
    return {"detail": finite(detail), "pseudo_labels": rows}


def _by_teachers(
    turn: Turn,
    stage: PseudoMasks,
    teachers: list[Segmenter],
    rows: npt.NDArray[np.int64],
    keep: Any,
    name: str,
) -> dict[str, npt.NDArray[Any]]:
    pixels = turn.workspace.images.array
    ask = partial(each_batch, device=turn.device, tta=stage.tta, report=turn.report, stage=name)
    return ask(teachers, pixels, rows, keep)


def _decided(stage: PseudoMasks, made: list[Maps]) -> tuple[Floats, Decided]:
    maps = np.stack([one.maps for one in made])
    classes = np.stack([one.classes for one in made])
    scores = confidence(maps, classes)
    together = ENSEMBLES[stage.ensemble](maps, classes)
    return scores, decide(together, scores, stage.positive, stage.negative)


def _quality(turn: Turn, stage: PseudoMasks, teachers: list[Segmenter]) -> dict[str, Any] | None:
    """Of the same decision on validation: the Dice of what was drawn, and how much was right.

    `change` is by how much that Dice rose from the iteration before, on what both drew: who draws
    the harder cases, too, is not worse for it.
    """
    validation = turn.validation
    if not validation.ids:
        return None
    truth = turn.truth(validation)

    def keep(places: npt.NDArray[np.intp], made: list[Maps]) -> dict[str, Any]:
        _, decided = _decided(stage, made)
        inside, sure, known = as_truth(truth.at(places), truth.present[places])
        return {
            "dice": dice(decided.masks & sure, inside, known & (decided.decided == 1)),
            "decided": decided.decided,
        }

    found = _by_teachers(turn, stage, teachers, validation.rows, keep, f"{stage.name} measured")
    present = truth.present
    drawn, absent = found["decided"] == 1, found["decided"] == 0
    groups = np.array(validation.groups)
    covered = average(found["dice"], groups)
    return {
        "dice": [[d.estimate.value, d.estimate.low, d.estimate.high] for d in covered.findings],
        "change": _change(turn, stage, found["dice"], groups),
        "drawn": (drawn & ~np.isnan(present)).sum(axis=0).tolist(),
        "drawn_rightly": (drawn & (present == 1)).sum(axis=0).tolist(),
        "absent": (absent & ~np.isnan(present)).sum(axis=0).tolist(),
        "absent_rightly": (absent & (present == 0)).sum(axis=0).tolist(),
    }


def _change(
    turn: Turn, stage: PseudoMasks, ours: Floats, groups: npt.NDArray[np.str_]
) -> list[list[float]] | None:
    """Value, bounds, p and number of items of each finding's paired difference in Dice.

    None for the first iteration, and where what the one before drew was deleted.
    """
    names = [one.name for one in turn.plan.stages if isinstance(one, PseudoMasks)]
    place = names.index(stage.name) if stage.name in names else 0  # the control's are not there
    folder = turn.folder / "pseudo-masks"
    before = folder / f"{names[place - 1]}.npz"
    if is_main():
        save_arrays(folder / f"{stage.name}.npz", {"dice": ours})
    if not place or not before.is_file():
        return None
    with np.load(before) as kept:
        theirs = kept["dice"]
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    mean, other = (average(np.where(both, one, np.nan), groups) for one in (ours, theirs))
    found = compare(mean, other).findings
    return [[d.value, d.low, d.high, d.p, d.n] for d in found]


def mask_view(turn: Turn, needs: frozenset[str]) -> PoolView:
    """What a strategy sees of the pool where masks are drawn."""
    if turn.trains:
        asking, others = turn.plan.fits[-1], turn.plan.fits[:-1]
        models = [turn.segmenter(asking.name)]
        models += [turn.segmenter(one.name) for one in others] if "members" in needs else []
    else:
        models = [turn.fresh_segmenter("features")]
    pool, labeled = turn.askable, turn.labeled
    found = _scored(turn, needs, models, pool.rows)
    seen = Prediction(found.pop("classes"), found.pop("features"))
    keep_prediction(turn, "select", pool.rows, seen)
    known = None
    if len(labeled.ids) and "features" in needs:
        known = turn.predict(models[0], labeled.rows, tta="none", stage="score the labeled")
    return PoolView(
        size=len(pool.ids),
        probabilities=seen.probabilities if turn.trains else None,
        features=seen.features,
        labeled_features=None if known is None else known.features,
        masks=found if turn.trains else None,
    )


def _scored(
    turn: Turn, needs: frozenset[str], models: list[Segmenter], rows: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """What the masks of each row come to, by name; with "classes" and "features"."""
    augmentation, seed = turn.plan.augmentation, turn.seed("views")

    def keep(places: npt.NDArray[np.intp], made: list[Maps]) -> dict[str, npt.NDArray[Any]]:
        maps, first = made[0].maps, int(places[0])
        found: dict[str, npt.NDArray[Any]] = {
            "classes": made[0].classes,
            "features": made[0].features,
        }
        if "masks" in needs:
            found |= {
                "mask_entropy": scores_of.mean_entropy(maps),
                "boundary_entropy": scores_of.boundary_entropy(maps),
                "entropy_by_finding": scores_of.entropy_by_finding(maps),
                "foreground": scores_of.foreground(maps),
            }
        if "mask_views" in needs:
            turned = view_maps(
                models[0], made[0].images, augmentation, VIEWS, seed + first, turn.device
            )
            views = np.concatenate([maps[None], turned])
            found["mask_inconsistency"] = scores_of.inconsistency(views)
        if "members" in needs:
            members = np.stack([one.maps for one in made])
            found["mask_disagreement"] = scores_of.disagreement(members)
        return found

    return each_batch(
        models,
        turn.workspace.images.array,
        rows,
        keep,
        device=turn.device,
        tta=turn.plan.tta,
        report=turn.report,
        stage="score the pool",
    )
