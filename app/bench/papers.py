"""Which recipes and data sets the papers compare, and S0's two sweeps of a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_core.errors import ConfigError
from ssl_core.presets import PRESETS, preset
from ssl_core.recipes import ALL_RECIPES

S1 = "supervised,fixmatch,simclr_v2"
S2 = "supervised,mean_teacher,s2mts2"
S4 = "supervised_masks,mean_teacher_masks,fixmatch_masks"

ANCHOR = (
    "Frozen ImageNet features with logistic regression on kermany, AUROC / accuracy over 10 draws: "
    "grouped .972 / .913 at 52 labels, .979 / .930 at 104, .984 / .948 at 260, .994 / .968 with "
    "all; official .899 / .717 at 52, .922 at 104, .933 at 260, .960 / .800 with all."
)
S1_CLAIMS = (
    "S1's own accuracy at 1/2/5 % of the labels, on a split that shares patients: supervised "
    "85.2/87.2/86.0, FixMatch 92.1/95.0/98.2, fine-tuned 94.5/96.8/97.1, distilled 96.3/97.6/98.1."
)

S4_CLAIMS = (
    "S4's own IoU on pets: lower bound 67.8 / 70.5 / 73.0 at 5 / 10 / 25 % of the labels, mean "
    "teacher 68.5 / 70.0 / 75.5, all labels 79.2."
)
S3_CLAIMS = (
    "S3's own figures for pneumothorax, initial teachers to the last iteration: D-AUC 97.0 to "
    "98.5, Dice 76.4 to 79.5; five of its findings got worse."
)

S3_CONTROL = "labels alone"

KEEP_FRACTIONS = (0.05, 0.25, 0.5, 0.75, 0.9, 1.0)
_STILL: dict[str, Any] = {
    "flip": 0.0,
    "rotation": 0.0,
    "translation": 0.0,
    "scale": [1.0, 1.0],
    "perspective": 0.0,
}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": _STILL,
    "flip": {**_STILL, "flip": 0.5},
    "rotation": {**_STILL, "rotation": 25.0},
    "translation": {**_STILL, "translation": 0.15},
    "perspective": {**_STILL, "perspective": 0.2},
    "all": {},  # the defaults are S0's
}

Variants = dict[str, dict[str, Any]]


def recipes(names: Sequence[str], preset_name: str) -> Variants:
    """The `[recipe]` tables that a preset has for some recipes; for none named, all that it has.

    Raises:
        ConfigError: a recipe or the preset is unknown, or the preset has no settings for it.
    """
    for name in names:
        if name not in ALL_RECIPES:
            raise ConfigError(
                f"--recipes {name!r} is unknown; use some of {', '.join(ALL_RECIPES)}."
            )
    preset(preset_name)  # refused if there is none
    chosen = names or list(PRESETS[preset_name]["recipes"])
    return {name: preset(preset_name, name)["recipe"] for name in chosen}


def keep_fraction(preset_name: str) -> Variants:
    """S0's Figure 2: the share κ of the pseudo-labels that is kept."""
    table = preset(preset_name)["recipe"]
    return {f"{k:g}": {**table, "keep_fraction": k} for k in KEEP_FRACTIONS}


def augmentation(preset_name: str) -> Variants:
    """S0's Figure 3: each move of the augmentation alone, none, and all of them.

    Where the preset trains on an image and its mirror alone, it does not here.
    """
    table = preset(preset_name)["recipe"]
    if not table.get("stem_views"):
        table["cache_stem"] = False
    return {name: {**table, "augmentation": spec} for name, spec in AUGMENTATIONS.items()}


def self_training(preset_name: str) -> Variants:
    """S3's comparisons: the ensemble, copy-paste and the auxiliary classifier, one at a time.

    And the control: students that learn as long, from the labels alone.
    """
    table = preset(preset_name, "self_training")["recipe"]
    # Neither set has a normal case: what is pasted lands on masks, which costs lungs (README).
    paste = {"onto": "all"}
    whole = {**table, "paste": {**paste, "probability": 0.0}}
    return {
        "weighted_soft": whole,
        "soft": {**whole, "ensemble": "soft"},
        "single": {**whole, "ensemble": "single"},
        "paste 0.5": {**table, "paste": {**paste, "probability": 0.5}},
        "paste 0.75": {**table, "paste": {**paste, "probability": 0.75}},
        "no auxiliary": {**whole, "auxiliary": False},
        S3_CONTROL: {**whole, "pseudo_masks": False},
    }


SWEEPS = {
    "keep_fraction": ("keep fraction κ", keep_fraction),
    "augmentation": ("augmentation", augmentation),
}
"""By name: what an axis is called, and the variants."""
