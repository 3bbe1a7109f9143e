"""What reads cost, counted by hand, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from ssl_core.claims.cost import NO_READS, UNTIMED, spent
from ssl_core.config import Config, validated
from ssl_core.history.ledger import Ledger
from ssl_core.records import Label
from tests.ledger_records import ITEMS, TASK, asked, label, read, round_
from tests.rounds_by_hand import take

CONFIG = validated(
    Config,
    {"images": {"folder": "x"}, "cost": {"per_hour": 90.0}, "reading": {"idle_cut_seconds": 100}},
    "here",
)
UNPRICED = validated(Config, {"images": {"folder": "x"}}, "here")


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK, ITEMS) as made:
        made.reading.assign([asked(i.id, reader) for i in ITEMS for reader in ("ann", "bob")])
        yield made


def now(ledger, config=CONFIG):
    return spent(ledger, config)[-1]


def test_nothing_read_costs_nothing(ledger):
    found = now(ledger)
    assert found.round is None
    for cost in (found.train, found.validation, found.vault):
        assert (cost.labels, cost.reads, cost.hours, cost.money, cost.reason) == (0, 0, 0, 0, "")


def test_hours_are_the_measured_seconds_with_the_idle_cut(ledger):
    take(ledger, read("t1", seconds=40.0), read("t1", reader="bob", seconds=5000.0))
    take(ledger, read("t2", outcome="skipped", seconds=10.0))
    cost = now(ledger).train
    assert (cost.labels, cost.reads, cost.untimed, cost.seconds) == (1, 2, 0, 150.0)  # 40+100+10
    assert cost.hours == pytest.approx(150 / 3600)
    assert cost.money == pytest.approx(150 / 3600 * 90)
    assert (cost.assumed, cost.reason) == (None, "")


def test_validation_and_vault_are_counted_apart(ledger):
    take(ledger, read("t1", seconds=10.0), read("v1", seconds=20.0), read("x1", seconds=40.0))
    found = now(ledger)
    seconds = [c.seconds for c in (found.train, found.validation, found.vault)]
    assert seconds == [10.0, 20.0, 40.0]
    assert [c.labels for c in found.evaluation] == [1, 1]


def test_reads_without_a_time_are_assumed_to_take_the_mean_of_all_timed_ones(ledger):
    take(ledger, read("t1", seconds=None), read("v1", seconds=20.0), read("x1", seconds=40.0))
    cost = now(ledger).train
    assert (cost.untimed, cost.seconds, cost.assumed) == (1, 0.0, 30.0)
    assert cost.hours == pytest.approx(30 / 3600)
    assert cost.reason == "1 of 1 reads have no time: 30 s assumed each"


def test_the_assumption_is_not_made_of_skipped_items(ledger):
    take(ledger, read("t1"), read("t2", seconds=20.0), read("v1", outcome="skipped", seconds=2.0))
    assert now(ledger).train.assumed == 20.0


def test_without_any_time_hours_are_not_known(ledger):
    take(ledger, read("t1"))
    cost = now(ledger).train
    assert (cost.labels, cost.reads, cost.hours, cost.money) == (1, 1, None, None)
    assert cost.reason == UNTIMED


def test_labels_without_reads_have_no_hours_and_imported_ones_took_none(ledger):
    ledger.add_labels([label("t1")])
    assert (now(ledger).train.hours, now(ledger).train.reason) == (None, NO_READS)
    ledger.add_labels([Label("v1", "Nodule", 1.0, "someone", "import", "row 3")])
    validation = now(ledger).validation
    assert (validation.labels, validation.imported, validation.hours) == (1, 1, 0.0)


def test_a_readers_newest_read_counts_and_one_taken_back_does_not(ledger):
    take(ledger, read("t1", seconds=40.0), read("t2", seconds=8.0))
    take(ledger, read("t1", 0.0, seconds=50.0))
    assert (now(ledger).train.reads, now(ledger).train.seconds) == (2, 58.0)
    take(ledger, read("t1", outcome="withdrawn"))
    assert (now(ledger).train.reads, now(ledger).train.seconds) == (1, 8.0)


def test_each_round_has_what_was_spent_when_it_was_opened(ledger):
    take(ledger, read("v1", seconds=30.0))
    ledger.open_round(round_(1))
    take(ledger, read("t1", seconds=40.0))
    ledger.finish_round(1, "{}")
    ledger.open_round(round_(2))
    take(ledger, read("t2", seconds=50.0), read("t1", 0.0, seconds=60.0))
    first, second, today = spent(ledger, CONFIG, [1, 2])
    assert [s.round for s in (first, second, today)] == [1, 2, None]
    assert [s.train.seconds for s in (first, second, today)] == [0.0, 40.0, 110.0]
    assert [s.train.labels for s in (first, second, today)] == [0, 1, 2]
    assert [s.validation.labels for s in (first, second, today)] == [1, 1, 1]
    for found, number in ((first, 1), (second, 2), (today, None)):
        counts = ledger.label_counts(number)
        parts = (found.train, found.validation, found.vault)
        assert [c.labels for c in parts] == list(counts.values())


def test_without_a_price_nothing_is_said_of_money(ledger):
    take(ledger, read("t1", seconds=40.0))
    assert now(ledger, UNPRICED).train.hours == pytest.approx(40 / 3600)
    assert now(ledger, UNPRICED).train.money is None
