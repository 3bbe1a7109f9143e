"""What a recipe is made of: a list of these stages, run one after the other by `rounds`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from ssl_core.config import Table
from ssl_core.training.augment import Augmentation
from ssl_core.training.objectives import Objective, supervised
from ssl_core.training.predict import Tta
from ssl_core.training.rand_augment import View
from ssl_core.training.steps import Schedule


def _table(default: Any) -> dict[str, Any]:
    """A default as a table; none where it is a plain value, for which a table is refused later."""
    if isinstance(default, Table):
        return default.model_dump()
    return asdict(default) if is_dataclass(default) and not isinstance(default, type) else {}


LABELS = "labels"
"""The name under which a stage trains on D, the readers' labels."""


class Settings(Table):
    """What every recipe has: the augmentation of training views, and test-time augmentation.

    With `cache_stem` the frozen blocks run once for a workspace and not at every step; all stages
    must then freeze the same blocks. Training shows `stem_views` views of each augmentation, drawn
    once for every image; with 0 the views are the image and its mirror alone.
    """

    augmentation: Augmentation = Augmentation()
    tta: Tta = "ten_crop"
    cache_stem: bool = False
    stem_views: Annotated[int, Field(ge=0, le=64)] = 0

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


Stage = Fit | PseudoLabel | Pretrain
