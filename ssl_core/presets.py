"""Presets: settings that belong together, by the machine and the labels at hand."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ssl_core.errors import ConfigError

_FAST_TEACHER = {
    "epochs": 10,
    "epoch_steps": 10,
    "batch_size": 32,
    "learning_rate": 3e-4,
    "head_rate": 10.0,
    "frozen_blocks": 14,
    "frozen_norm": True,
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
            "teacher": _FAST_TEACHER,
            "intermediate": _FAST_TEACHER,
            "student": _FAST_TEACHER,
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
            "teacher": {"epochs": 12, "epoch_steps": 12, "batch_size": 32, "learning_rate": 2e-3},
            "intermediate": {"epochs": 6, "batch_size": 32, "learning_rate": 2e-3},
            "student": {"epochs": 6, "epoch_steps": 8, "batch_size": 32, "learning_rate": 5e-4},
            "tta": "flip",
            "augmentation": {"rotation": 8.0, "translation": 0.06, "perspective": 0.0},
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
