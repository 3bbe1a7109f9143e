"""Two rounds side by side, by hand."""

from __future__ import annotations

import math

import pytest

from ssl_core.claims.compare import Setting, compare_rounds, flat, settings_diff
from ssl_core.drawings import overlap
from ssl_core.errors import WorkspaceError
from ssl_core.probabilities import labeled, stage_model
from ssl_core.records import Label, Round
from ssl_core.workspace import open_workspace
from tests.rounds_by_hand import add, ids, made, model, open_round, says, trained


def labels(ws, split, values):
    ws.ledger.add_labels(
        Label(i, "Spot", v, "ann", "label_studio", f"{split}{i}")
        for i, v in zip(ids(ws, split), values, strict=False)
    )


@pytest.fixture
def ws(tmp_path, ledger_url):
    """Two rounds; 12 validation items, of which the first 8 are labeled, 4 positive."""
    ws = made(tmp_path / "w", ledger_url)
    labels(ws, "validation", [1.0, 0.0] * 4)
    trained(ws, 1, t1=0.7, s1=0.75)
    trained(ws, 2, t2=0.8, s2=0.85)
    # The first says the same of all but two: a positive that it misses, a negative that it calls.
    first = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.2, 0.8, 0.3, 0.3, 0.3, 0.3]
    second = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.7, 0.15, 0.3, 0.45, 0.3, 0.3]
    validation = ids(ws, "validation")
    says(ws, "s1", {i: [p] for i, p in zip(validation, first, strict=True)})
    says(ws, "s2", {i: [p] for i, p in zip(validation, second, strict=True)})
    yield ws
    ws.ledger.close()


def test_the_difference_is_paired_on_validation_and_by_hand(ws):
    """First: 4 x 4 pairs, of which .2 loses to .8 alone, and .9s win all: 15/16. Second: all."""
    found = compare_rounds(ws, 1, 2)
    assert (found.models, found.train_labels) == (("s1", "s2"), (0, 0))
    assert found.macro.value == pytest.approx(1 / 16)
    assert found.macro.n == 8
    assert found.findings == {"Spot": found.macro}
    assert found.macro.low < 0 < found.macro.high
    back = compare_rounds(ws, 2, 1)
    assert back.macro.value == pytest.approx(-1 / 16)
    assert back.macro.p == found.macro.p


def test_changed_cases_come_largest_first_with_what_each_model_calls(ws):
    validation = ids(ws, "validation")
    found = compare_rounds(ws, 1, 2)
    assert [c.item_id for c in found.changed] == [validation[k] for k in (7, 6, 9)]
    first, second, third = found.changed
    assert (first.before, first.after) == pytest.approx((0.8, 0.15))
    assert (first.called_before, first.called_after, first.label) == (True, False, 0.0)
    assert (second.called_before, second.called_after, second.label) == (False, True, 1.0)
    assert (third.flipped, first.flipped) == (False, True)
    assert math.isnan(third.label)  # nobody has read it
    assert {c.split for c in found.changed} == {"validation"}
    assert (found.flips, found.cases) == (2, 12)
    assert [c.item_id for c in compare_rounds(ws, 1, 2, most=1).changed] == [validation[7]]


def test_training_cases_when_asked_for_and_the_vault_never(ws):
    train, validation = ids(ws, "train"), ids(ws, "validation")
    for name, of_first in (("s1", 0.99), ("s2", 0.01)):
        opinions = {i: [0.5] for i in (*train, *validation)} | {train[0]: [of_first]}
        says(ws, name, opinions)
    found = compare_rounds(ws, 1, 2, splits=("validation", "train"))
    assert [(c.item_id, c.split) for c in found.changed] == [(train[0], "train")]
    assert found.cases == 48
    with pytest.raises(ValueError, match="validation and train"):
        compare_rounds(ws, 1, 2, splits=("vault",))
    assert ws.ledger.vault_looks() == []


def test_rounds_without_a_measured_model_are_named(ws):
    with pytest.raises(WorkspaceError, match="has no round 7"):
        compare_rounds(ws, 1, 7)
    open_round(ws.ledger, 3, ws.config.to_json())
    with pytest.raises(WorkspaceError, match=r"Round 3 .* made no model"):
        compare_rounds(ws, 1, 3)
    add(ws.ledger, 3, "student", models=[model("s3")])
    with pytest.raises(WorkspaceError, match=r"Round 3 .* was not measured"):
        compare_rounds(ws, 1, 3)


def test_without_labels_the_difference_is_unknown(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url)
    for number in (1, 2):
        trained(ws, number, **{f"t{number}": 0.7, f"s{number}": 0.75})
        says(ws, f"s{number}", {i: [0.5] for i in ids(ws, "validation")})
    found = compare_rounds(ws, 1, 2)
    assert math.isnan(found.macro.value)
    assert (found.macro.n, found.changed) == (0, ())
    ws.ledger.close()


def opened(ws, number=1, size=8, strategy="margin", **tables) -> Round:
    config = ws.config.changed(**tables)
    return Round(number, config.seed, size, strategy, "teacher_student", config.to_json())


def test_the_settings_that_differ_by_dotted_key(ws):
    teacher = {**ws.config.recipe, "keep_fraction": 0.5}
    other = opened(ws, 2, 40, "entropy", selection={"query_size": 40}, recipe=teacher)
    assert settings_diff(opened(ws), other) == [
        Setting("recipe.keep_fraction", 0.75, 0.5),  # the default that the first left unsaid
        Setting("round.query_size", 8, 40),
        Setting("round.strategy", "margin", "entropy"),
        Setting("selection.query_size", 8, 40),
    ]
    assert settings_diff(opened(ws), opened(ws)) == []


def test_a_setting_that_one_side_does_not_have_is_none(ws):
    alone = opened(ws, recipe={"name": "supervised"})
    found = {s.key: (s.old, s.new) for s in settings_diff(alone, opened(ws))}
    assert found["recipe.keep_fraction"] == (None, 0.75)
    assert found["recipe.name"] == ("supervised", "teacher_student")


def test_a_configuration_that_cannot_be_read_today_is_compared_as_it_is_stored():
    old = Round(1, 5, 8, "margin", "gone", '{"recipe": {"name": "gone", "depth": 3}}')
    new = Round(2, 5, 8, "margin", "gone", '{"recipe": {"name": "gone", "depth": 4}}')
    assert settings_diff(old, new) == [Setting("recipe.depth", 3, 4)]


def test_flat_by_hand():
    nested = {"a": {"b": 1, "c": {"d": (1, 2)}}, "e": []}
    assert flat(nested) == {"a.b": 1, "a.c.d": [1, 2], "e": []}


def test_where_masks_are_drawn_rounds_are_compared_by_dice(drawn):
    ws = open_workspace(drawn)
    told = {
        (number, m.finding): m.value
        for number, m in ws.ledger.measurements()
        if (m.stage, m.split, m.name) == ("student", "validation", "dice")
    }
    found = compare_rounds(ws, 2, 3, splits=("validation", "train"), most=100)
    assert found.metric == "Dice"
    assert found.macro.value == pytest.approx(told[3, "macro"] - told[2, "macro"], abs=1e-6)
    assert found.findings["Bar"].value == pytest.approx(told[3, "Bar"] - told[2, "Bar"], abs=1e-6)
    assert found.cases == 2 * (12 + 24)  # the findings of what readers drew
    changes = [abs(c.after - c.before) for c in found.changed]
    assert changes == sorted(changes, reverse=True)
    items = labeled(ws, "validation")
    before, after = (overlap(ws, n, stage_model(ws, n), items) for n in (2, 3))
    for one in (c for c in found.changed if c.split == "validation"):
        i, c = items.ids.index(one.item_id), ("Spot", "Bar").index(one.finding)
        assert (one.before, one.after) == pytest.approx((before[i, c], after[i, c]))
        if one.before == one.after == 0:
            assert not one.flipped
    ws.ledger.close()
