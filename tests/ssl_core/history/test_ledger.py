from __future__ import annotations

import math
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ssl_core.errors import LedgerError
from ssl_core.history import schema
from ssl_core.history.ledger import Ledger
from ssl_core.records import (
    Answer,
    Item,
    Label,
    Pulled,
    Task,
    VaultLook,
)
from tests.ledger_records import (
    ITEMS,
    NAN,
    TASK,
    asked,
    count,
    label,
    read,
    round_,
    same,
    stage,
)


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK) as made:
        made.import_items(ITEMS)
        yield made


# Making and opening


def test_an_opened_ledger_knows_its_task_and_holds_what_was_written(ledger_url):
    task = Task("multi_class", ("Béla's “finding”", "none"))
    with Ledger.create(ledger_url, task) as ledger:
        ledger.import_items(ITEMS)
    with Ledger.open(ledger_url) as again:
        assert again.task == task
        assert again.items() == ITEMS


def test_an_empty_ledger_answers_every_question(ledger_url):
    with Ledger.create(ledger_url, TASK) as ledger:
        assert ledger.items() == ledger.labels() == ledger.rounds() == ledger.selected() == []
        assert ledger.models() == ledger.measurements() == ledger.vault_looks() == []
        assert ledger.stages(1) == ledger.selections(1) == ledger.pseudo_labels(1) == []
        assert ledger.label_counts() == {"train": 0, "validation": 0, "vault": 0}
        assert not ledger.has_answers()
        assert ledger.answers(["t1"]) == ledger.answers([]) == []
        assert not ledger.finished(1)
        assert ledger.round_end(1) is None
        assert ledger.add_labels([]) == 0


def test_create_refuses_a_ledger_that_is_there(ledger, ledger_url):
    with pytest.raises(LedgerError, match="already"):
        Ledger.create(ledger_url, TASK)
    assert ledger.items() == ITEMS


def test_open_refuses_where_there_is_no_ledger(ledger_url):
    with pytest.raises(LedgerError, match=r"no ledger|not a ledger"):
        Ledger.open(ledger_url)
    Ledger.create(ledger_url, TASK).close()  # and the refused open has left nothing behind


# Items and answers


def test_items_come_back_in_the_order_of_their_import(ledger):
    assert ledger.items() == ITEMS
    assert ledger.items("train") == [ITEMS[0], ITEMS[3]]
    assert ledger.items("vault") == [ITEMS[1], ITEMS[4]]


def test_order_holds_over_many_chunks(ledger_url):
    items = [
        Item(secrets.token_hex(16), "one", "train", f"{number}.png")
        for number in range(2 * schema.CHUNK + 1)
    ]
    with Ledger.create(ledger_url, TASK) as ledger:
        ledger.import_items(iter(items))
        assert ledger.items() == items


def test_an_import_is_all_or_nothing(ledger_url):
    with Ledger.create(ledger_url, TASK) as ledger:
        with pytest.raises(LedgerError, match="'stranger'"):
            ledger.import_items(ITEMS, [label("t1"), label("stranger")])
        with pytest.raises(LedgerError):
            ledger.import_items([*ITEMS, ITEMS[0]])
        with pytest.raises(LedgerError, match="does not hold"):
            ledger.import_items(ITEMS, [label("t1")], [Answer("stranger", "Effusion", 1.0)])
        assert ledger.items() == []
        assert count(ledger, schema.labels) == 0
        ledger.import_items(ITEMS, [label("t1")], [Answer("t1", "Effusion", 1.0)])
        assert len(ledger.labels()) == 1


def test_a_second_import_is_refused_because_splits_never_change(ledger):
    with pytest.raises(LedgerError, match="5 items already"):
        ledger.import_items([Item("new", "dora", "vault", "d.png")])


def test_answers_come_item_by_item_in_the_order_asked(ledger_url):
    answers = [
        Answer("t1", "Effusion", 1.0),
        Answer("t2", "Effusion", 0.0),
        Answer("t1", "Nodule", NAN),
    ]
    with Ledger.create(ledger_url, TASK) as ledger:
        ledger.import_items(ITEMS, answers=answers)
        assert ledger.has_answers()
        assert ledger.labels() == []  # hidden: an answer is not a label
        assert same(ledger.answers(["t2", "v1", "t1", "t2"]), [answers[1], answers[0], answers[2]])
        many = [*(f"no such item {number}" for number in range(100_000)), "t2"]
        assert ledger.answers(many) == [answers[1]]


# Labels


def test_a_label_is_appended_once_however_often_it_comes(ledger):
    first, second = label("t1"), label("t2", value=NAN)
    assert ledger.add_labels([first, first]) == 1
    assert ledger.add_labels([first, second]) == 1
    assert ledger.add_labels(iter([second, replace(first, seconds=3.0, round=7)])) == 0
    assert same(ledger.labels(), [first, second])


@pytest.mark.parametrize(
    "change",
    [{"item_id": "t2"}, {"finding": "Nodule"}, {"value": 0.0}, {"value": NAN}, {"reader": "bob"}],
)
def test_a_key_cannot_come_to_say_something_else(ledger, change):
    held = label("t1", key="task-7")
    ledger.add_labels([held])
    with pytest.raises(LedgerError, match="'task-7' is taken"):
        ledger.add_labels([label("v1"), replace(held, **change)])
    assert ledger.labels() == [held]  # nor is the good half of the batch there
    with pytest.raises(LedgerError, match="'task-8' is taken"):
        ledger.add_labels([label("v1", key="task-8"), label("v1", key="task-8", value=0.0)])


def test_a_fault_in_a_later_chunk_takes_back_the_earlier_ones(ledger):
    many = [label("t1", key=str(number)) for number in range(schema.CHUNK)]
    with pytest.raises(LedgerError, match="taken"):
        ledger.add_labels([*many, label("t2", key="0")])
    assert count(ledger, schema.labels) == 0
    assert ledger.add_labels([*many, *many]) == len(many)


def test_labels_must_fit_the_task_and_the_items(ledger):
    with pytest.raises(LedgerError, match=r"'Fracture'.*Effusion, Nodule"):
        ledger.add_labels([label("t1"), label("t1", "Fracture")])
    with pytest.raises(LedgerError, match="'stranger'"):
        ledger.add_labels([label("t1"), label("stranger")])
    for value in (0.5, -1.0, 2.0, math.inf):
        with pytest.raises(ValueError, match=str(value)):
            ledger.add_labels([label("t1"), label("t1", value=value)])
    assert count(ledger, schema.labels) == 0


def test_text_and_times_come_back_unharmed(ledger):
    odd = label(
        "t1", value=NAN, reader="Zoë\t\\N \\. 'x\"; DROP TABLE labels --\n%s %(a)s", seconds=2.25
    )
    ledger.add_labels([odd])
    assert same(ledger.labels(), [odd])


def test_replay_by_hand(ledger):
    """Two readers, a change of mind, a withdrawal: who had said what before each round."""
    first = label("t1", value=1.0)
    other = label("t1", value=0.0, reader="bob")
    ledger.add_labels([first, other])
    ledger.open_round(round_(1))
    changed, nodule = label("t1", value=0.0), label("t1", "Nodule")
    ledger.add_labels([nodule, changed])
    ledger.finish_round(1, "{}")
    ledger.open_round(round_(2))
    withdrawn = label("t1", value=NAN)
    ledger.add_labels([withdrawn])

    assert ledger.labels(before_round=0) == []
    assert ledger.labels(before_round=1) == [first, other]
    in_one = [replace(nodule, round=1), replace(changed, round=1)]
    assert ledger.labels(before_round=2) == [other, *in_one]
    assert same(ledger.labels(before_round=3), [other, in_one[0], replace(withdrawn, round=2)])
    assert same(ledger.labels(), ledger.labels(before_round=3))


def test_the_ledger_alone_sets_a_labels_round(ledger):
    ledger.add_labels([label("t1", round=9)])
    ledger.open_round(round_(1))
    ledger.add_labels([label("t2", round=0)])
    assert [(one.item_id, one.round) for one in ledger.labels()] == [("t1", 0), ("t2", 1)]


def test_labels_of_chosen_splits(ledger):
    ledger.add_labels([label(item_id) for item_id in ("t1", "v1", "x1", "t2")])
    assert [one.item_id for one in ledger.labels()] == ["t1", "v1", "t2"]
    assert [one.item_id for one in ledger.labels(splits=["validation"])] == ["v1"]
    assert ledger.labels(splits=()) == []


def test_counts_are_of_items_not_of_events(ledger):
    ledger.add_labels([label("t1"), label("t1", "Nodule"), label("t1", reader="bob"), label("x1")])
    ledger.open_round(round_(1))
    ledger.add_labels([label("t2", value=NAN), label("v1"), label("x1", value=0.0), label("x2")])
    assert ledger.label_counts(before_round=0) == {"train": 0, "validation": 0, "vault": 0}
    assert ledger.label_counts(before_round=1) == {"train": 1, "validation": 0, "vault": 1}
    assert ledger.label_counts() == {"train": 2, "validation": 1, "vault": 2}
    assert ledger.vault_looks() == []


SAYS = st.tuples(
    st.sampled_from(["t1", "t2", "v1", "x1"]),
    st.sampled_from(TASK.findings),
    st.sampled_from([0.0, 1.0, NAN]),
    st.sampled_from(["ann", "bob"]),
)
EVENTS = st.lists(st.one_of(SAYS, SAYS, SAYS, st.just("round"), st.just("again")), max_size=14)


def replayed(history: list[Label], before_round: int, splits: tuple[str, ...]) -> list[Label]:
    """The naive model: walk the history, and let a newer answer displace the older one."""
    split_of = {item.id: item.split for item in ITEMS}
    newest: dict = {}
    for event in history:
        if event.round < before_round and split_of[event.item_id] in splits:
            newest.pop((event.item_id, event.finding, event.reader), None)
            newest[event.item_id, event.finding, event.reader] = event
    return list(newest.values())


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS)
@example(events=[("x1", "Nodule", 1.0, "ann"), "round", ("x1", "Nodule", NAN, "ann"), "again"])
def test_any_history_replays(new_ledger_url, events):
    history: list[Label] = []
    latest = 0
    with Ledger.create(new_ledger_url(), TASK) as ledger:
        ledger.import_items(ITEMS)
        for number, event in enumerate(events):
            if event == "round":
                if latest:
                    ledger.finish_round(latest, "{}")
                latest += 1
                ledger.open_round(round_(latest))
            elif event == "again":
                assert ledger.add_labels(history) == 0
            else:
                history.append(label(*event, key=str(number), round=latest))
                assert ledger.add_labels(history[-1:]) == 1
        known = ("train", "validation")
        for before in range(latest + 2):
            assert same(ledger.labels(before), replayed(history, before, known))
        for number in range(1, latest + 1):
            look = ledger.look_into_vault(number, "model", "test")
            assert same(look, replayed(history, number, ("vault",)))
        assert same(ledger.labels(), replayed(history, latest + 1, known))


# The vault


def test_vault_labels_cannot_be_had_without_a_look(ledger):
    ledger.add_labels([label("t1"), label("x1"), label("x2", value=0.0)])
    ledger.open_round(round_(1))
    for splits in (["vault"], ("train", "vault"), {"vault", "validation"}):
        with pytest.raises(ValueError, match="look_into_vault"):
            ledger.labels(splits=splits)
    assert {one.item_id for one in ledger.labels()} == {"t1"}
    assert ledger.vault_looks() == []


def test_a_look_gives_the_vaults_labels_and_goes_on_record(ledger):
    ledger.add_labels([label("t1"), label("x1"), label("x2", value=0.0)])
    ledger.open_round(round_(1))
    ledger.add_labels([label("x1", "Nodule")])  # too late for round 1
    looked = ledger.look_into_vault(1, "m-1", "measure the student")
    assert looked == [label("x1"), label("x2", value=0.0)]
    ledger.look_into_vault(1, "m-2", "measure the control")
    assert ledger.look_into_vault(1, "m-1", "measure the student") == looked  # the same look
    assert ledger.vault_looks() == [
        VaultLook(1, "m-1", "measure the student"),
        VaultLook(1, "m-2", "measure the control"),
    ]


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_a_look_in_a_round_that_was_never_opened_is_refused(ledger, number):
    ledger.add_labels([label("x1")])
    ledger.open_round(round_(1))
    with pytest.raises(LedgerError, match=f"Round {number} was never opened"):
        ledger.look_into_vault(number, "m", "curiosity")
    assert ledger.vault_looks() == []


# Rounds


def test_rounds_open_and_finish_one_after_the_other(ledger):
    for number in (0, 2, -1):
        with pytest.raises(LedgerError, match="the next is 1"):
            ledger.open_round(round_(number))
    ledger.open_round(round_(1))
    with pytest.raises(LedgerError, match="while round 1 is unfinished"):
        ledger.open_round(round_(2))
    with pytest.raises(LedgerError, match="the next is 2"):
        ledger.open_round(round_(1))
    assert not ledger.finished(1)
    assert ledger.round_end(1) is None
    ledger.finish_round(1, '{"stop": false}')
    assert ledger.finished(1)
    assert ledger.round_end(1) == '{"stop": false}'
    ledger.open_round(round_(2))
    assert ledger.rounds() == [round_(1), round_(2)]


def test_only_an_open_round_can_be_finished(ledger):
    with pytest.raises(LedgerError, match="Round 1 was never opened"):
        ledger.finish_round(1, "{}")
    ledger.open_round(round_(1))
    ledger.finish_round(1, "{}")
    with pytest.raises(LedgerError, match="Round 1 is finished"):
        ledger.finish_round(1, '{"again": true}')
    assert ledger.round_end(1) == "{}"


def test_of_several_that_open_a_round_at_once_one_succeeds(ledger, ledger_url):
    together = threading.Barrier(4)

    def try_it(_) -> bool:
        with Ledger.open(ledger_url) as own:
            together.wait()
            try:
                own.open_round(round_(1))
            except LedgerError:
                return False
            return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(try_it, range(4))) == [False, False, False, True]
    assert ledger.rounds() == [round_(1)]


def test_the_version_grows_with_everything_that_is_appended(ledger_url):
    with Ledger.create(ledger_url, TASK, ITEMS) as ledger:
        seen = [ledger.version()]
        for change in (
            lambda: ledger.add_labels([label("t1")]),
            lambda: ledger.open_round(round_(1)),
            lambda: ledger.add_stage(stage()),
            lambda: ledger.finish_round(1, "{}"),
            lambda: ledger.reading.assign([asked("t1")]),
            lambda: ledger.reading.take("room", Pulled((read("t1"),), bookmark="1")),
        ):
            change()
            seen.append(ledger.version())
            assert ledger.version() == seen[-1]
        assert seen == sorted(set(seen))
        assert ledger.add_labels([label("t1")]) == 0
        assert ledger.version() == seen[-1]
