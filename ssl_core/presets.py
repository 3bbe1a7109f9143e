"""Presets: settings that belong together, by the machine and the labels at hand."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ssl_core.errors import ConfigError

# mobilenet_v2 up to its last stride is frozen, batch norm with it: a step of 32 takes 0.2 s on four
# CPU cores. Rates and lengths were chosen on a held-out quarter of a train pool, not its vault.
_FAST: dict[str, Any] = {
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "frozen_blocks": 14,
    "frozen_norm": True,
    "ema": 0.95,
}

_TINY: dict[str, Any] = {
    "batch_size": 32,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "learning_rate": 3e-3,
    "decay": 0.9,
}

PRESETS: dict[str, dict[str, Any]] = {
    # S0 as published: a GPU and thousands of labels.
    "paper": {
        "images": {"size": 256},
        "model": {"backbone": "densenet121", "weights": "imagenet"},
        "recipe": {"name": "teacher_student"},
    },
    # A CPU and tens of labels: pretrained lower layers stay frozen.
    "fast": {
        "images": {"size": 224},
        "model": {"backbone": "mobilenet_v2", "weights": "imagenet"},
        "recipe": {
            "name": "teacher_student",
            "teacher": {**_FAST, "epochs": 10, "epoch_steps": 8, "patience": 4},
            "intermediate": {
                **_FAST,
                "epochs": 2,
                "decay": 0.5,
                "ema": 0.98,
                "label_smoothing": 0.1,
            },
            "student": {
                **_FAST,
                "epochs": 8,
                "epoch_steps": 5,
                "learning_rate": 1e-4,
                "patience": 3,
            },
            "tta": "flip",
            "cache_stem": True,
        },
    },
    # No pretrained weights, small pictures: the demo and the tests.
    "tiny": {
        "images": {"size": 64},
        "model": {"backbone": "small_cnn", "weights": "none"},
        "recipe": {
            "name": "teacher_student",
            "teacher": {**_TINY, "epochs": 14, "epoch_steps": 25},
            "intermediate": {**_TINY, "epochs": 5, "epoch_steps": 25, "decay": 0.85},
            "student": {**_TINY, "epochs": 6, "epoch_steps": 25, "decay": 0.85},
            "tta": "flip",
            "augmentation": {
                "rotation": 8.0,
                "translation": 0.08,
                "perspective": 0.0,
                "brightness": 0.2,
                "contrast": 0.2,
            },
        },
    },
}


def preset(name: str) -> dict[str, Any]:
    """The tables of a preset, to be laid under a workspace's own settings.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name!r} is unknown; use one of {sorted(PRESETS)}.")
    return deepcopy(PRESETS[name])
