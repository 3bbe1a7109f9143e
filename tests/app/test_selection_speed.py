"""The bench of query strategies runs every strategy, and its table shows what it measured."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from app.bench.selection_speed import made_up, run, table
from ssl_core.strategies import STRATEGIES


def test_every_strategy_is_timed_on_every_size():
    rows = list(run([(60, 8, 2, 5), (40, 4, 1, 3)]))
    assert [row["name"] for row in rows] == [*STRATEGIES, *STRATEGIES]
    assert {(row["N"], row["D"], row["C"], row["n"]) for row in rows} == {
        (60, 8, 2, 5),
        (40, 4, 1, 3),
    }
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 for row in rows)
    text = StringIO()
    Console(width=160, file=text).print(table(rows))
    assert all(name in text.getvalue() for name in STRATEGIES)


def test_the_memory_of_a_copy_is_seen():
    """k-center copies 5,000 x 256 numbers (5 MB) by blocks; a table of N² would be 95 MB."""
    (row,) = run([(5_000, 256, 1, 5)], ["k_center"])
    assert 5.0 <= row["peak_mb"] < 30.0


def test_the_made_up_pool_is_the_same_every_time():
    one, other = made_up(30, 4, 2, 5), made_up(30, 4, 2, 5)
    assert (one.features == other.features).all()
    assert one.labeled == 5
