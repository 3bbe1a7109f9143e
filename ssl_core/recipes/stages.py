"""What a recipe is made of: a list of these stages, run one after the other by `rounds`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ssl_core.config import Table
from ssl_core.masks.copy_paste import CopyPaste
from ssl_core.masks.objectives import S4, MaskObjective, Supervised
from ssl_core.masks.views import MaskView
from ssl_core.training.augment import MILD, Augmentation
from ssl_core.training.objectives import Objective, supervised
from ssl_core.training.predict import Tta
from ssl_core.training.rand_augment import View
from ssl_core.training.schedule import Schedule


def _table(default: Any) -> dict[str, Any]:
    """A default as a table; none where it is a plain value, for which a table is refused later."""
    if isinstance(default, Table):
        return default.model_dump()
    return asdict(default) if is_dataclass(default) and not isinstance(default, type) else {}


LABELS = "labels"
"""The name under which a stage trains on D, the readers' labels."""


class Common(Table):
    """What every recipe has: the augmentation of training views, and test-time augmentation."""

    augmentation: Augmentation = Augmentation()
    tta: Tta = "ten_crop"

    @model_validator(mode="before")
    @classmethod
    def _laid_over_the_recipe(cls, given: Any) -> Any:
        """A table that names a few keys of a schedule or view leaves the recipe's others as are."""
        if not isinstance(given, dict):
            return given
        filled = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(table := given.get(name), dict):
                filled[name] = {**_table(field.default), **table}
        return filled


class Settings(Common):
    """What every recipe of classification has besides.

    With `cache_stem` the frozen blocks run once for a workspace and not at every step; all stages
    must then freeze the same blocks. Training shows `stem_views` views of each augmentation, drawn
    once for every image; with 0 the views are the image and its mirror alone.
    """

    cache_stem: bool = False
    stem_views: Annotated[int, Field(ge=0, le=64)] = 0


class MaskSettings(Common):
    """What every recipe for masks has besides.

    `auxiliary` puts a classifier beside the maps, whose share of the loss is `classification`
    (S3's .3), the masks have the rest. `loss` is that of `masks.objectives.Supervised`. Of masks
    there is no crop: "ten_crop" is "flip".
    """

    augmentation: Augmentation = MILD
    tta: Tta = "flip"
    auxiliary: bool = False
    classification: Annotated[float, Field(ge=0, lt=1)] = 0.3
    loss: Literal["dice", "cross_entropy", "both"] = "dice"

    @model_validator(mode="after")
    def _trains_its_classifier(self) -> Self:
        if self.auxiliary and not self.classification:
            raise ValueError(
                "classification = 0 leaves the auxiliary classifier untrained: set it above 0, or "
                "auxiliary = false"
            )
        return self

    @property
    def supervised(self) -> Supervised:
        """The loss with masks that are known."""
        return Supervised(self.loss, self.classification if self.auxiliary else 0.0)


@dataclass(frozen=True, slots=True)
class Fit:
    """Train a model and keep it under `name`.

    on: `LABELS`, the name of an earlier `PseudoLabel` stage, or None to look at `views` alone.
    start: the earlier stage whose weights it begins with; None begins with the backbone's own. Of
        a `Pretrain` stage it takes the blocks and the first `neck` layers of the projection head.
    otherwise: the earlier stage whose model stands in when `on` holds nothing that can be learned,
        as with pseudo-labels of an empty pool; None makes that an error.
    views: one augmentation for each view of the images of the whole train pool (D and U together,
        without their labels) that the objective compares at each step; () shows none.
    ratio: how many of those a step shows for each place of its batch.
    teacher: the earlier stage whose model, unchanged, is the objective's teacher.
    backbone, weights: another network than the workspace's; None is the workspace's own.
    """

    name: str
    on: str | None
    schedule: Schedule
    start: str | None = None
    otherwise: str | None = None
    objective: Objective = supervised
    views: tuple[View, ...] = ()
    ratio: int = 1
    neck: int = 0
    teacher: str | None = None
    backbone: str | None = None
    weights: str = "none"


@dataclass(frozen=True, slots=True)
class Pretrain:
    """Learn from the images of the train pool without labels: once for a workspace, see `pretrain`.

    views: one augmentation for each view that the objective compares.
    layers: hidden layers between the pooled features and the last, linear one, all as wide as they.
    outputs: d, the values that the network gives for an image.
    """

    name: str
    schedule: Schedule
    objective: Objective
    views: tuple[View, ...]
    layers: int = 2
    outputs: int = 128


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """Score the unlabeled pool with the model of stage `teacher`, and keep the confident.

    keep_fraction: κ in [0, 1]; soft: keep the teacher's score instead of 1 / 0.
    """

    name: str
    teacher: str
    keep_fraction: float
    soft: bool = False
    tta: Tta = "ten_crop"


@dataclass(frozen=True, slots=True)
class FitMasks:
    """Train a network that draws masks and keep it under `name`.

    on: what it learns from, together: `LABELS` and names of earlier `PseudoMasks` stages.
    view: how image and mask are shown; paste: lesions of other items, put in before.
    views, ratio, start, backbone, weights: as in `Fit`; `start` is a stage of the same backbone.
    auxiliary: whether it has a classifier beside the maps.
    not_smaller_than: the earlier stages whose networks must not have more weights than this one.
    """

    name: str
    on: tuple[str, ...]
    schedule: Schedule
    view: MaskView = MILD
    objective: MaskObjective = S4
    views: tuple[MaskView, ...] = ()
    ratio: int = 1
    paste: CopyPaste | None = None
    start: str | None = None
    backbone: str | None = None
    weights: str = "none"
    auxiliary: bool = False
    not_smaller_than: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PseudoMasks:
    """Have the networks of stages `teachers` draw the pool together, and keep what is clear.

    ensemble: a name of `masks.ensemble.ENSEMBLES`. A finding whose confidence is `positive` or more
    is drawn, one of `negative` or less is absent, the others are dropped; each is one number, or
    one for each finding.
    """

    name: str
    teachers: tuple[str, ...]
    ensemble: str = "weighted_soft"
    positive: float | tuple[float, ...] = 0.7
    negative: float | tuple[float, ...] = 0.3
    tta: Tta = "flip"


REFERENCES = ("on", "start", "otherwise", "teacher", "teachers", "not_smaller_than")
"""The fields by which a stage names other stages."""


def renamed(stage: Stage, name: Callable[[str], str]) -> Stage:
    """The same stage under another name, with what it refers to."""
    held = [field.name for field in fields(stage) if field.name in ("name", *REFERENCES)]
    new: dict[str, Any] = {}
    for field in held:
        value = getattr(stage, field)
        new[field] = tuple(map(name, value)) if isinstance(value, tuple) else value and name(value)
    return replace(stage, **new)


Stage = Fit | PseudoLabel | Pretrain | FitMasks | PseudoMasks
Trained = Fit | FitMasks
"""The stages that leave a model."""
