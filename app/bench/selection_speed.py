"""Seconds and memory of the query strategies on made-up pools."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from app import show
from ssl_core.strategies import NEEDS, STRATEGIES, PoolView

SIZES = ((2_000, 64, 2, 100), (20_000, 512, 14, 200), (100_000, 512, 14, 1_000))
"""(N, D, C, n): items of the pool, features, findings, items asked."""
CLUSTERS = 50  # of the made-up features, one unit apart where their noise is one


def run(
    sizes: Sequence[tuple[int, int, int, int]] = SIZES,
    names: Sequence[str] = tuple(STRATEGIES),
    labeled: int = 100,
) -> Iterator[dict[str, Any]]:
    """Time one call of each strategy on a pool of each size (N, D, C, n).

    Yields a row a size and strategy: `name`, `N`, `D`, `C`, `n`, `seconds` and `peak_mb`, what the
    call had allocated at most on top of its inputs (arrays of NumPy; what a matrix product or
    k-means keeps for itself is not seen). Features are float32, findings independent.
    """
    for items, width, findings, asked in sizes:
        view = made_up(items, width, findings, labeled)
        for name in names:
            seconds, peak = _measured(name, view, asked)
            yield {
                "name": name,
                "N": items,
                "D": width,
                "C": findings,
                "n": asked,
                "seconds": seconds,
                "peak_mb": peak,
            }


def made_up(items: int, width: int, findings: int, labeled: int, seed: int = 0) -> PoolView:
    """A view with all that strategies need: features in clusters, probabilities mostly low."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, width), dtype=np.float32)

    def features(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, width), dtype=np.float32)
        return centres[rng.integers(CLUSTERS, size=count)] + noise

    def opinion(*leading: int) -> np.ndarray:
        return rng.beta(0.3, 2.0, (*leading, items, findings)).astype(np.float32)

    return PoolView(
        size=items,
        probabilities=opinion(),
        views=opinion(8),
        features=features(items),
        labeled_features=features(labeled),
        teacher_probabilities=opinion(),
    )


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of `run` for the terminal."""
    columns = ("strategy", "needs", "N", "D", "C", "asked", "seconds", "memory, MB")
    made = show.table("Query strategies: one call", columns, left=2)
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("N", "D", "C", "n"))
        needs = ", ".join(sorted(NEEDS[row["name"]])) or "–"
        measured = (f"{row['seconds']:.2f}", f"{row['peak_mb']:,.0f}")
        made.add_row(row["name"], needs, *counts, *measured)
    return made


def _measured(name: str, view: PoolView, asked: int) -> tuple[float, float]:
    tracemalloc.start()
    try:
        start = time.perf_counter()
        STRATEGIES[name](view, asked, np.random.default_rng(0))
        return time.perf_counter() - start, tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
