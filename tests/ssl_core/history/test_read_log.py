"""The ledger's side of the reading room, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ssl_core.errors import LedgerError
from ssl_core.history import label_events, schema
from ssl_core.history.ledger import Ledger
from ssl_core.history.truth import label_matrix
from ssl_core.records import SPLITS, HeldRead, Label, Pulled, Taken
from tests.ledger_records import ITEMS, NAN, TASK, asked, count, hint, label, read, round_, same

IDS = [item.id for item in ITEMS]


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK) as made:
        made.import_items(ITEMS)
        made.reading.assign([asked(i, reader) for reader in ("ann", "bob") for i in IDS])
        yield made


def take(ledger: Ledger, *reads, bookmark: str = "") -> int:
    return ledger.reading.take("room", Pulled(reads, bookmark=bookmark)).new


def values(ledger: Ledger, **where) -> dict[tuple[str, str, str], float]:
    """Every reader's newest answer, of the vault too."""
    labels = ledger._fetch(Label, label_events.latest(where.get("before"), SPLITS))
    return {(one.item_id, one.finding, one.reader): one.value for one in labels}


# Assignments and hints


def test_assignments_come_back_as_they_were_made(ledger_url):
    made = [
        asked("t2", hinted=True, primary=False, priority=-(2**40)),
        asked("t1", reader="Zoë's\t\\N", round=0, priority=2**40),
        asked("x1", "cat", role="adjudicator"),
    ]
    with Ledger.create(ledger_url, TASK, ITEMS) as ledger:
        assert ledger.reading.assign(made, [hint("t2"), hint("t2", "Nodule", 0.0)]) == 3
        assert ledger.reading.assignments() == made
    with Ledger.open(ledger_url) as again:
        assert again.reading.assignments() == made
        assert again.reading.hints() == {"t2": [hint("t2"), hint("t2", "Nodule", 0.0)]}


def test_who_was_asked_is_not_asked_again_whatever_has_changed(ledger):
    before = ledger.reading.assignments()
    again = [replace(a, priority=7, hinted=True, role="adjudicator") for a in before]
    assert ledger.reading.assign([*again, asked("t1", "cyd")]) == 1
    assert ledger.reading.assignments() == [*before, asked("t1", "cyd")]


def test_a_hint_stays_what_was_shown(ledger):
    ledger.reading.assign([], [hint("t1")])
    ledger.reading.assign([], [hint("t1", value=0.0), hint("t1", "Nodule"), hint("t2")])
    assert ledger.reading.hints() == {"t1": [hint("t1")], "t2": [hint("t2")]}


def test_an_unknown_item_cannot_be_asked_and_takes_the_rest_with_it(ledger):
    before = ledger.reading.assignments()
    with pytest.raises(LedgerError, match="does not hold"):
        ledger.reading.assign([asked("t1", "cyd"), asked("stranger", "cyd")])
    assert ledger.reading.assignments() == before


# Reads


def test_a_read_is_held_with_its_labels(ledger):
    ledger.reading.assign([asked("t1", "cat", role="adjudicator", hinted=True)])
    more = {"seconds": 2.5, "read_at": "2030-01-02T03:04:05Z"}
    one = read("t1", reader="cat", answers=(("Nodule", 1.0), ("Effusion", NAN)), **more)
    assert take(ledger, one) == 1
    held = HeldRead(one.key, "t1", "cat", "read", "", *more.values(), "adjudicator", True, 0)
    assert ledger.reading.reads() == [held]
    said = [
        Label("t1", f, v, "cat", "label_studio", f"{one.key}:{f}", 2.5, role="adjudicator")
        for f, v in one.answers
    ]
    assert same(ledger.labels(), said)


def test_a_key_is_taken_once(ledger):
    one = read("t1")
    assert take(ledger, one, one) == 1
    assert take(ledger, one, read("t2")) == 1
    assert count(ledger, schema.reads) == 2
    assert count(ledger, schema.labels) == 4


def test_the_newest_read_of_each_reader_holds(ledger):
    take(ledger, read("t1"), read("t2"), read("t1", reader="bob"), read("t1", 0.0))
    found = [(r.item_id, r.reader) for r in ledger.reading.reads()]
    assert found == [("t2", "ann"), ("t1", "bob"), ("t1", "ann")]
    assert values(ledger)["t1", "Nodule", "ann"] == 0.0
    assert values(ledger)["t1", "Nodule", "bob"] == 1.0


@pytest.mark.parametrize("outcome", ["unusable", "skipped", "withdrawn"])
def test_what_takes_an_answer_back_leaves_unknown(ledger, outcome):
    back = read("t1", outcome=outcome, reason="cut off", key="back")
    assert take(ledger, read("t1"), back) == 2
    assert all(math.isnan(value) for value in values(ledger).values())
    (held,) = ledger.reading.reads()
    assert (held.outcome, held.reason) == (outcome, "cut off")
    assert take(ledger, read("t1", 0.0, key="anew")) == 1
    assert set(values(ledger).values()) == {0.0}


@pytest.mark.parametrize("outcome", ["unusable", "skipped"])
def test_without_an_answer_before_there_is_no_label(ledger, outcome):
    assert take(ledger, read("t1", outcome=outcome)) == 1
    assert count(ledger, schema.labels) == 0
    assert ledger.labeled_items() == set()


def test_a_finding_that_is_said_no_more_is_unknown(ledger):
    take(ledger, read("t1"), read("t1", key="2", answers=(("Nodule", 0.0),)))
    found = values(ledger)
    assert found["t1", "Nodule", "ann"] == 0.0
    assert math.isnan(found["t1", "Effusion", "ann"])


def test_what_was_never_said_cannot_be_withdrawn(ledger):
    gone = read("t1", outcome="withdrawn", key="0")
    assert take(ledger, gone) == 0
    assert take(ledger, read("t1"), replace(gone, key="1"), replace(gone, key="2")) == 2
    assert [r.key for r in ledger.reading.reads()] == ["1"]
    assert take(ledger, replace(gone, key="3")) == 0


@pytest.mark.parametrize("outcome", ["withdrawn", "skipped"])
def test_another_place_takes_back_nothing(ledger, outcome):
    """A copy of a case that nobody answered, or another server, is told with every full pull."""
    assert take(ledger, read("t1", place="task 1")) == 1
    assert take(ledger, read("t1", outcome=outcome, place="task 2")) == 0
    assert {r.outcome for r in ledger.reading.reads()} == {"read"}
    assert set(values(ledger).values()) == {1.0}
    assert take(ledger, read("t1", outcome=outcome, place="task 1", key="here")) == 1
    assert {r.outcome for r in ledger.reading.reads()} == {outcome}
    assert take(ledger, read("t1", outcome=outcome, place="task 1", key="again")) == 0
    assert take(ledger, read("t1", 0.0, place="task 2")) == 1  # nothing is said elsewhere now
    assert set(values(ledger).values()) == {0.0}


def test_an_answer_to_what_was_answered_elsewhere_is_refused_until_one_is_gone(ledger):
    first, second = read("t1", place="task 1"), read("t1", 0.0, place="task 2")
    assert take(ledger, first, bookmark="1") == 1
    for _ in range(2):
        taken = ledger.reading.take("room", Pulled((read("t2"), second), bookmark="2"))
        (refused,) = taken.refused
        assert refused.place == "task 2"
        assert "ann answered the same image in task 1 too" in refused.reason
    assert set(values(ledger).values()) == {1.0}
    assert ledger.reading.bookmark("room") == "1"  # so that it is told again
    back = read("t1", outcome="withdrawn", place="task 1", key="gone")
    assert ledger.reading.take("room", Pulled((back, second), bookmark="2")) == Taken(2)
    assert values(ledger)["t1", "Nodule", "ann"] == 0.0
    assert ledger.reading.bookmark("room") == "2"


def test_a_changed_answer_in_its_own_place_is_taken(ledger):
    assert take(ledger, read("t1", place="task 1"), read("t1", 0.0, place="task 1")) == 2
    assert {r.place for r in ledger.reading.reads()} == {"task 1"}


def test_an_adjudication_that_is_taken_back_decides_nothing(ledger):
    ledger.reading.assign([asked("t1", "cat", role="adjudicator")])
    take(ledger, read("t1"), read("t1", reader="cat", value=0.0))
    ids, findings = ["t1"], list(TASK.findings)
    assert label_matrix(ids, ledger.labels(), findings).tolist() == [[0.0, 0.0]]
    take(ledger, read("t1", reader="cat", outcome="withdrawn"))
    assert label_matrix(ids, ledger.labels(), findings).tolist() == [[1.0, 1.0]]
    unsure = read("t1", reader="cat", key="u", answers=(("Nodule", NAN), ("Effusion", 0.0)))
    take(ledger, unsure)
    found = dict(zip(findings, label_matrix(ids, ledger.labels(), findings)[0], strict=True))
    assert math.isnan(found["Nodule"])
    assert found["Effusion"] == 0.0


def test_who_was_not_asked_is_refused_with_the_page(ledger):
    with pytest.raises(LedgerError, match=r"'k'.*'t1'.*'zoe'.*never asked"):
        take(ledger, read("t2"), read("t1", reader="zoe", key="k"), bookmark="9")
    assert ledger.reading.reads() == ledger.labels() == []
    assert ledger.reading.bookmark("room") == ""


def test_a_page_longer_than_a_chunk_keeps_its_order(ledger):
    flips = [read("t1", float(k % 2), key=str(k)) for k in range(schema.CHUNK + 3)]
    assert take(ledger, *flips) == len(flips)
    assert [r.key for r in ledger.reading.reads()] == [flips[-1].key]
    assert set(values(ledger).values()) == {flips[-1].answers[0][1]}


def test_reads_and_labels_belong_to_the_round_that_was_open(ledger):
    take(ledger, read("t1"), read("t2", outcome="unusable"))
    ledger.open_round(round_(1))
    take(ledger, read("t1", 0.0), read("t2", key="changed her mind"))
    assert [r.round for r in ledger.reading.reads()] == [1, 1]
    assert [r.outcome for r in ledger.reading.reads(before_round=1)] == ["read", "unusable"]
    assert ledger.reading.reads(before_round=0) == []
    assert ledger.reading.unusable() == set()
    assert ledger.reading.unusable(before_round=1) == {"t2"}
    assert values(ledger, before=1)["t1", "Nodule", "ann"] == 1.0


# Bookmarks


def test_each_room_has_its_own_bookmark(ledger):
    log = ledger.reading
    take(ledger, read("t1"), bookmark="5")
    log.take("other", Pulled((), bookmark="7"))
    assert (log.bookmark("room"), log.bookmark("other"), log.bookmark("third")) == ("5", "7", "")
    take(ledger)  # a page without a bookmark leaves it where it was
    take(ledger, bookmark="5")
    assert log.bookmark("room") == "5"
    assert count(ledger, schema.bookmarks) == 2
    take(ledger, bookmark="3")
    assert log.bookmark("room") == "3"


# Disagreements


def test_disputes_are_found_in_every_split_without_showing_a_label(ledger):
    take(ledger, *(read(i, 1.0) for i in IDS), *(read(i, 0.0, "bob") for i in ("x1", "t2")))
    take(ledger, read("t1", 1.0, "bob"), read("v1", NAN, "bob"))
    assert ledger.reading.disagreements() == ["x1", "t2"]
    assert ledger.vault_looks() == []
    ledger.reading.assign([asked(i, "cat", role="adjudicator") for i in ("x1", "t2")])
    take(ledger, read("x1", 0.0, "cat"), read("t2", outcome="skipped", reader="cat"))
    assert ledger.reading.disagreements() == ["t2"]
    take(ledger, read("t2", 1.0, "bob", key="made up"))
    assert ledger.reading.disagreements() == []


def test_an_unusable_vault_item_is_told_and_an_import_disputes_nothing(ledger):
    ledger.add_labels([label("t1", value=0.0, reader="file")])
    take(ledger, read("t1"), read("x1", outcome="unusable"), read("x1", reader="bob"))
    assert ledger.reading.unusable() == {"x1"}
    assert ledger.reading.disagreements() == ["x1"]


def test_an_empty_log_answers_every_question(ledger_url):
    with Ledger.create(ledger_url, TASK) as ledger:
        log = ledger.reading
        assert log.assignments() == log.reads() == log.disagreements() == []
        assert log.hints() == {}
        assert log.unusable() == set()
        assert log.bookmark("room") == ""
        assert log.assign([]) == log.take("room", Pulled(())).new == 0
