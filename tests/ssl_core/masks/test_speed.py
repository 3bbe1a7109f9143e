"""The benchmark of a step runs and tells what it measured; no timing, machines are shared."""

from __future__ import annotations

import math

from ssl_core.masks.speed import step_speed


def test_a_step_is_timed_against_its_network():
    found = step_speed("small_unet", size=16, batch=2, repeats=3)
    assert found.bare > 0
    assert found.step > 0
    assert math.isfinite(found.ratio)
