"""The throughput benchmark: it runs the loop's own steps, and says what it could not measure."""

from __future__ import annotations

from itertools import islice

import pytest
from rich.console import Console

from app.bench import throughput


def test_it_times_training_and_inference_in_each_mode():
    rows = list(
        islice(throughput.run(["small_cnn"], batches=(4,), size=32, device="cpu", steps=2), 2)
    )
    assert [row["mode"] for row in rows] == ["float32", "bf16"]  # compiling takes a while
    for row in rows:
        assert (row["backbone"], row["batch"], row["memory_mb"]) == ("small_cnn", 4, None)
        assert row["train"] > 0
        assert row["predict"] > 0


def test_what_was_not_measured_is_a_dash():
    row = {"backbone": "n", "batch": 4, "mode": "m", "train": 1234.4, "predict": None}
    console = Console(width=120)
    with console.capture() as shown:
        console.print(throughput.table([row | {"memory_mb": None}], 32, "cpu"))
    assert shown.get().splitlines()[-2].split() == ["n", "m", "4", "1,234", "–", "–"]


@pytest.mark.parametrize(("taken", "rate"), [([1.0, 1.0, 1.0, 0.5, 0.25, 4.0], 16.0)])
def test_the_rate_is_the_batch_over_the_median_step_after_three(monkeypatch, taken, rate):
    clock = iter(taken)
    monkeypatch.setattr(throughput, "_seconds", lambda call: next(clock))
    device = throughput.Device("cpu", 8)
    assert throughput._train("small_cnn", 8, 32, device, 3) == (rate, None)
