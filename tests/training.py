"""A toy that a tiny network learns in a second, for the tests of the training loop."""

from __future__ import annotations

import math

import numpy as np
import torch

from ssl_core.training.augment import Augmentation
from ssl_core.training.feed import Examples
from ssl_core.training.models import build_model
from ssl_core.training.objectives import supervised
from ssl_core.training.predict import Device, predict
from ssl_core.training.schedule import Schedule
from ssl_core.training.train import fit

NAN = math.nan
SIZE = 16
STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
WEAK = Augmentation(rotation=5.0, translation=0.05, perspective=0.0)
CPU = Device("cpu", batch_size=32)


def toy(n=48, *, kinds=2, seed=0):
    """Pixels `(n, 1, SIZE, SIZE)` and kinds `(n,)`: noise, brighter in one band a kind."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 80, (n, 1, SIZE, SIZE), dtype=np.uint8)
    kind = np.arange(n) % kinds
    band = SIZE // kinds
    for i, k in enumerate(kind):
        pixels[i, :, k * band : (k + 1) * band] += 90
    return pixels, kind


PIXELS, KIND = toy()
POSITIVE = KIND[:, None].astype(float)
TRAINING = Examples(np.arange(24), POSITIVE[:24])
VALIDATION = Examples(np.arange(24, 48), POSITIVE[24:])
NOTHING = Examples(np.empty(0, np.int64), np.empty((0, 1)))


def network(findings=1, *, seed=1, dropout=0.0):
    model = build_model("small_cnn", findings, seed=seed)
    model.dropout.p = dropout
    return model


def schedule(**changes):
    return Schedule(**{"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, **changes})


def train(model, plan, *, training=TRAINING, validation=VALIDATION, pixels=PIXELS, **options):
    settings = {"spec": STILL, "seed": 3, "exclusive": False, "device": CPU, **options}
    names = tuple("ABCDEFG"[: model.head.out_features])
    return fit(model, pixels, training, validation, plan, findings=names, **settings)


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def differing(one, other):
    assert one.keys() == other.keys()
    return [key for key in one if not torch.equal(one[key], other[key])]


def scored(model, rows, *, exclusive=False, pixels=PIXELS):
    return predict(model, pixels, rows, exclusive=exclusive, device=CPU).probabilities


class Watch:
    """An objective that is `supervised` and remembers what it was shown."""

    def __init__(self):
        self.batches = []

    def __call__(self, student, teacher, batch):
        self.batches.append(batch)
        return supervised(student, teacher, batch)
