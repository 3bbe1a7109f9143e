"""The data sets of the papers' tables: their columns, and the ways to split them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.initialise import Settings, initialise
from connectors.columns import Columns
from ssl_core.errors import ConfigError
from ssl_core.intake import Policy
from ssl_core.presets import default_recipe, preset
from ssl_core.progress import Report
from ssl_core.workspace import Workspace, open_workspace

MANIFEST = "manifest.csv"
# One draw of patients for all seeds; where the official split shares patients, it is taken as it is
POLICY = Policy(seed=0, archive=True, allow_shared_groups=True)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder with `manifest.csv` and images; `splits`: their columns, None to draw."""

    columns: Columns
    splits: Mapping[str, str | None]
    policy: Policy = POLICY


_KERMANY = Columns(path="path", group="patient_id", label="label", positive="PNEUMONIA")
_BOTH: dict[str, str | None] = {"grouped": None, "official": "split"}

DATASETS: dict[str, DataSet] = {
    "kermany": DataSet(_KERMANY, _BOTH),
    "kermany-subtype": DataSet(replace(_KERMANY, label="subtype", positive=None), _BOTH),
    "nih": DataSet(
        Columns(path="file", group="patient_id", findings_column="finding_labels"),
        {"grouped": None},
    ),
    "ham10000": DataSet(
        Columns(path="image_id", path_template="images/{}.jpg", group="lesion_id", label="dx"),
        {"grouped": None},
    ),
    "lungseg": DataSet(
        Columns(path="image", group="patientid", masks=("mask",), findings=("lung",)),
        {"grouped": None},
        replace(POLICY, skip_unreadable=True),
    ),
    "ham10000-masks": DataSet(
        Columns(
            path="image_id",
            path_template="images/{}.jpg",
            group="lesion_id",
            masks=("image_id",),
            mask_template="masks/{}.png",
            findings=("lesion",),
        ),
        {"grouped": None},
    ),
}
"""By name: pneumonia or none; its three classes; 14 findings; seven kinds of skin lesion; masks of
lungs, by patient, and of skin lesions, by lesion."""


def data_set(name: str) -> DataSet:
    """A data set by name. Raises `ConfigError` for an unknown one."""
    if name not in DATASETS:
        raise ConfigError(f"--dataset {name!r} is unknown; use one of {', '.join(DATASETS)}.")
    return DATASETS[name]


def check_splits(name: str, splits: list[str]) -> None:
    """Raise `ConfigError` unless some splits are asked for, and the data set has them all."""
    known = data_set(name).splits
    if not splits or not known.keys() >= set(splits):
        kinds = ", ".join(known) + (" or both" if len(known) > 1 else "")
        raise ConfigError(f"--splits {','.join(splits)!r}: of {name}, give {kinds}.")


def workspace_of(
    name: str, split: str, data: Path, out: Path, preset_name: str, size: int | None, report: Report
) -> Workspace:
    """The archive of a data set and split under `out`, made at the first call.

    It is named by the pictures' size: presets and recipes of one size share its pixels and what is
    cached beside them. Its own `[model]` and `[recipe]` are not used.

    Raises:
        ReadloopError: whatever is wrong with the data.
    """
    chosen = data_set(name)
    recipe = default_recipe("segmentation" if chosen.columns.masks else "binary", preset_name)
    side = size or int(preset(preset_name, recipe)["images"]["size"])
    root = out / f"{name}-{split}-{side}px"
    if not root.exists():
        columns = replace(chosen.columns, split=chosen.splits[split])
        overrides = {"images": {"size": side}, "model": {"weights": "none"}}
        settings = Settings(preset_name, overrides)
        initialise(root, data, data / MANIFEST, columns, chosen.policy, settings, report)
    return open_workspace(root)
