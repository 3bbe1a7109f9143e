"""Arms: what makes one another, and validation that is no larger than asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.rooms import archive_room
from ssl_core.arm_runs import run_arm
from ssl_core.arms import Arm, arm_finished, arm_folder, open_arm
from ssl_core.errors import ConfigError
from ssl_core.simulate import over_seeds, resolve_budgets, simulate
from tests import toy

QUICK = {
    "name": "supervised",
    "student": {"epochs": 1, "epoch_steps": 2, "batch_size": 8},
    "tta": "none",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """72 items: 36 to train, 12 to validate, 24 in the vault; two a patient."""
    return toy.opened(toy.make(tmp_path_factory.mktemp("arms") / "w", recipe=QUICK))[0]


def labeled(workspace, arm):
    """The validation items that the arm's rounds saw a label of, and how many patients they are."""
    own = open_arm(workspace, arm)
    with own.ledger as ledger:
        items = {item.id: item.group for item in ledger.items("validation")}
        known = {label.item_id for label in ledger.labels()} & items.keys()
        return known, {items[item_id] for item_id in known}


def test_shares_of_the_pool_are_budgets_too():
    assert resolve_budgets(["2%", "5%", 100, "all"], 1000) == [20, 50, 100, 1000]
    assert resolve_budgets(["0.01%"], 1000) == [1]
    assert resolve_budgets(["100%"], 36) == [36]
    for wrong in ("0%", "-2%", "101%", "%", "2 percent"):
        with pytest.raises(ConfigError, match="rising numbers, shares such as 2%, or 'all'"):
            resolve_budgets([wrong], 1000)
    with pytest.raises(ConfigError, match="rising"):
        resolve_budgets(["5%", 20], 1000)


def test_validation_is_capped_by_patient_with_the_arm_s_seed(archive):
    arm = Arm("random", 0, (8,), validation=5)
    list(run_arm(archive, archive_room, arm))
    known, patients = labeled(archive, arm)
    assert (len(known), len(patients)) == (5, 3)  # two patients whole, and half of a third
    other = replace(arm, seed=1)
    list(run_arm(archive, archive_room, other))
    assert labeled(archive, other)[0] != known
    with open_arm(archive, arm).ledger as ledger:
        assert ledger.label_counts() == {"train": 8, "validation": 5, "vault": 24}


def test_unlabeled_validation_takes_no_part(archive):
    arm = Arm("random", 0, (8,), validation=5)
    list(run_arm(archive, archive_room, arm))
    with open_arm(archive, arm).ledger as ledger:
        counted = {
            m.n
            for _, m in ledger.measurements(2)
            if (m.split, m.name) == ("validation", "accuracy")
        }
        assert counted == {5}


def test_all_of_the_validation_is_labeled_without_a_cap_or_with_a_large_one(archive):
    for arm in (Arm("random", 2, (8,)), Arm("random", 2, (8,), validation=999)):
        list(run_arm(archive, archive_room, arm))
        assert len(labeled(archive, arm)[0]) == 12


def test_each_recipe_and_budget_draws_the_same_validation_for_a_seed(archive):
    longer = replace(archive, config=archive.config.changed(recipe=QUICK | {"tta": "flip"}))
    arms = [(archive, Arm("random", 0, (8,), 5)), (longer, Arm("random", 0, (8, 12), 5))]
    found = []
    for workspace, arm in arms:
        list(run_arm(workspace, archive_room, arm))
        found.append(labeled(workspace, arm)[0])
    assert found[0] == found[1]


def test_arms_are_told_apart_by_all_that_makes_them(archive):
    one = Arm("random", 0, (8,))
    others = [
        one,
        replace(one, seed=1),
        replace(one, strategy="margin"),
        replace(one, budgets=(8, 12)),
        replace(one, validation=8),
        replace(one, validation=9),
    ]
    assert len({arm_folder(archive, arm) for arm in others}) == len(others)


def test_an_arm_is_finished_when_its_last_budget_is(archive):
    arm = Arm("random", 7, (8, 12))
    assert not arm_finished(archive, arm)
    cells = run_arm(archive, archive_room, arm)
    cell, auroc = next(cells)
    cells.close()
    assert cell.budget == 8
    assert not arm_finished(archive, arm)
    again = list(run_arm(archive, archive_room, arm))
    assert arm_finished(archive, arm)
    assert [c.budget for c, _ in again] == [8, 12]
    assert again[0][0] == cell
    assert auroc["student"].macro.estimate == cell.stages["student"]["auroc"]


def test_simulate_passes_the_cap_on_and_refuses_one_below_one(archive):
    asked = {"budgets": [8], "strategies": ["random"], "seeds": [3], "control": None}
    found = simulate(archive, archive_room, validation=4, **asked)
    assert found.rows[0].labels["validation"] == 4
    assert found.rows[0].score["student"] == over_seeds([found.cells[0].stages["student"]["auroc"]])
    with pytest.raises(ConfigError, match="label 1 item or more"):
        simulate(archive, archive_room, validation=0, **asked)
