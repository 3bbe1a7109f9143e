"""The ledger's reads as a sample of the pool: draws, prevalence, weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.auditing.pool_reads import draws_of, first_reads, prevalence, weigher
from ssl_core.auditing.weighted import Draw, pool_share
from ssl_core.pseudo_labels import class_prior as plain_prior
from ssl_core.records import Label, Reread, Selection
from ssl_core.rounds import run_round
from tests import toy
from tests.rounds_by_hand import ids
from tests.ssl_core.auditing.test_weighted import replayed


def chosen(item: str, kind: str, probability: float) -> Selection:
    return Selection(item, 0, kind, "margin", 0.0, probability, 0.1, "")


def test_draws_are_those_of_a_round_and_later():
    selected = [
        (2, chosen("b", "strategy", 1.0)),
        (2, chosen("c", "random", 0.2)),
        (1, chosen("a", "random", 0.1)),
    ]
    assert draws_of(selected) == [Draw((), ("a",), ("a",)), Draw(("b",), ("c",), ("c",))]
    assert draws_of(selected, since=2) == [Draw(("b",), ("c",), ("c",))]


def test_weighted_prevalence_errs_less_than_that_of_the_random_labels_alone():
    """Six rounds that ask for the positive: later slices hold too few of them."""
    rng, pool, found = np.random.default_rng(11), 500, []
    for _ in range(200):
        y = (rng.random(pool) < 0.15).astype(float)
        draws, read = replayed(rng, y, 2.0 * y + rng.normal(size=pool), 6, 30, 8)
        values = {i: y[int(i)] for i in read}
        share = pool_share(values, [str(i) for i in range(pool)], draws)
        control = np.array([[y[int(i)]] for d in draws for i in d.slice])
        found.append((share.estimate.value - y.mean(), plain_prior(control)[0] - y.mean()))
    weighted, plain = np.array(found).T
    assert abs(weighted.mean()) < 0.006
    assert plain.mean() < -0.02
    assert np.mean(weighted**2) < 0.8 * np.mean(plain**2)


def test_of_a_real_workspace(tmp_path):
    ws, room = toy.opened(
        toy.make(tmp_path / "w", selection={"query_size": 12, "random_share": 0.5})
    )
    assert math.isnan(prevalence(ws.ledger)["Spot"].value)  # nobody was asked
    run_round(ws, room)
    run_round(ws, room)
    train = ids(ws, "train")
    truth = {a.item_id: a.value for a in ws.ledger.answers(train)}
    told = prevalence(ws.ledger)["Spot"]
    read = {label.item_id for label in ws.ledger.labels(splits=["train"])}
    assert told.n == len(read) == 12
    assert told.low < np.mean(list(truth.values())) < told.high
    weights = weigher(ws.ledger)([*read, *ids(ws, "validation")])
    assert sum(weights[i] for i in read) == pytest.approx(len(train))
    assert all(weights[i] == 1 for i in ids(ws, "validation"))
    ws.ledger.add_labels([Label(train[0], "Spot", 1.0, "ann", "label_studio", "more")])
    assert prevalence(ws.ledger)["Spot"].n >= 12


def test_a_reread_does_not_move_prevalence(tmp_path):
    """A second read is asked for where a model denies the first: its answers lean to the model."""
    ws, room = toy.opened(
        toy.make(tmp_path / "w", selection={"query_size": 12, "random_share": 0.5})
    )
    run_round(ws, room)
    run_round(ws, room)
    told = prevalence(ws.ledger)["Spot"]
    read = [x for x in ws.ledger.labels(splits=["train"]) if x.value == 1][:3]
    assert read
    doubts = [
        Reread(x.item_id, "ben", 2, p, "contradiction", p, "Spot", x.value, 0.99, "m", 99)
        for p, x in enumerate(read)
    ]
    ws.ledger.reading.ask_again(doubts)
    ws.ledger.add_labels(
        [Label(x.item_id, "Spot", 0.0, "ben", "label_studio", "b" + x.item_id) for x in read]
    )
    assert prevalence(ws.ledger)["Spot"] == told


def test_what_was_read_again_because_a_model_denies_it_judges_no_model():
    def label(item: str, reader: str, value: float, role="reader") -> Label:
        return Label(item, "Spot", value, reader, "label_studio", f"{item}{reader}", role=role)

    first = [label("a", "ann", 1.0), label("b", "bob", 1.0), label("c", "ann", 0.0)]
    decided = label("c", "eve", 1.0, "adjudicator")  # two readers differed, no model asked
    later = [label("a", "bob", 0.0), label("a", "eve", 0.0, "adjudicator")]
    again = [Reread("a", "bob", 2, 0, "contradiction", 0, "Spot", 1.0, 0.99, "m", 7)]
    assert first_reads([*first, decided, *later], again) == [*first, decided]
