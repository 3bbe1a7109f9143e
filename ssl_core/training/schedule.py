"""How long and how hard one stage trains."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from ssl_core.config import Count, Positive, Share, Table

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Schedule(Table):
    """How long and how hard one stage trains; the defaults are S0's (Martins & Silva).

    An epoch is a pass over the items, or `epoch_steps` steps where that is more: with tiny D, steps
    count and not passes. `most_steps` > 0 ends it earlier, so that a stage costs the same whatever
    it learns from. After each epoch the model is validated; `learning_rate` is then
    multiplied by `decay`. `head_rate` multiplies the rate of the last layer. `patience` epochs
    without a better validation end the stage (0: never). `ema` > 0 trains as usual but validates
    and returns the exponential moving average of the weights; without `keep_average` that average
    only teaches. It warms up over about `ema_warmup` steps, see `update_average`. `clip` > 0 bounds
    the gradient norm. With `rate = "cosine"` the rate falls to 0 along half a cosine instead of by
    `decay`; before either it rises in a straight line over `warmup` epochs.
    """

    epochs: Count = 25
    epoch_steps: Count = 1
    most_steps: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    decay: Share = 0.9
    head_rate: Positive = 1.0
    rate: Literal["decay", "cosine"] = "decay"
    warmup: NotNegative = 0.0
    optimizer: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    weight_decay: NotNegative = 0.0
    label_smoothing: Share = 0.0
    frozen_blocks: Annotated[int, Field(ge=0)] = 0
    frozen_norm: bool = False
    ema: Share = 0.0
    ema_warmup: Count = 10
    keep_average: bool = True
    clip: NotNegative = 0.0
    patience: Annotated[int, Field(ge=0)] = 0


def rate(schedule: Schedule, number: int, steps: int) -> float:
    """What step `number` multiplies the learning rates by: in [0, 1]."""
    rising, total = schedule.warmup * steps, schedule.epochs * steps
    rise = min(1.0, (number + 1) / rising) if rising else 1.0
    if schedule.rate == "cosine":  # Loshchilov & Hutter 2017, Eq. 5, without restarts
        done = max(0.0, number - rising) / max(total - rising, 1.0)
        return rise * 0.5 * (1.0 + math.cos(math.pi * done))
    return rise * schedule.decay ** (number // steps)
