"""Any order of reading, asking, syncing and dying, against a plain model of what must hold."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ssl_core.history import schema
from ssl_core.readers.reading import queue, sync
from tests.ledger_records import count
from tests.reading_rooms import ITEMS, TASK, Killed, Stopping, all_labels, ask, make

READERS = ("ann", "bob", "dan")
PEOPLE = (*READERS, "cat", "zoe")  # cat adjudicates; zoe is nobody's reader
DONE = ("read", "unusable")

item_ids = st.sampled_from([i.id for i in ITEMS if i.id not in {f"t{k}" for k in range(4, 12)}])
people = st.sampled_from(PEOPLE)
said = st.sampled_from([0.0, 1.0, math.nan])


class Reading(RuleBasedStateMachine):
    """The model: every event that readers made, in order, and how many of them were taken in."""

    @initialize(share=st.sampled_from([0.0, 0.5, 1.0]), backup=st.booleans())
    def begin(self, share, backup):
        self.folder = tempfile.TemporaryDirectory()
        self.workspace = make(
            Path(self.folder.name),
            readers=READERS,
            adjudicator="cat",
            overlap_share=share,
            backup=backup,
        )
        self.room = Stopping(READERS)
        self.events: list[tuple] = []  # item, reader, outcome, answers
        self.taken = 0
        self.history: dict[tuple, list[tuple]] = {}  # by item and reader: outcome and answers
        self.unasked = [i.id for i in ITEMS if i.split == "train"]

    def teardown(self):
        if hasattr(self, "folder"):
            self.workspace.ledger.close()
            self.folder.cleanup()

    # What people do

    @rule(item=item_ids, reader=people, mass=said, nodule=said)
    def submit(self, item, reader, mass, nodule):
        """Also a change of mind: whatever was said before."""
        self.room.submit(item, {"mass": mass, "nodule": nodule}, reader=reader)
        self.events.append((item, reader, "read", {"mass": mass, "nodule": nodule}))

    @rule(data=st.data(), mass=said)
    def read_what_is_in_front(self, data, mass):
        waiting = [a for held in self.room.waiting.values() for a in held]
        if waiting:
            one = data.draw(st.sampled_from(waiting))
            self.submit(one.item_id, one.reader, mass, 1.0)

    @rule(
        item=item_ids, reader=people, outcome=st.sampled_from(["unusable", "skipped", "withdrawn"])
    )
    def act(self, item, reader, outcome):
        self.room.act(item, outcome, reader=reader)
        self.events.append((item, reader, outcome, {}))

    # What the engineer does

    @rule(n=st.integers(1, 3))
    def ask(self, n):
        chosen, self.unasked = self.unasked[:n], self.unasked[n:]
        if chosen:
            ask(self.workspace, *chosen)

    @rule(dies=st.booleans())
    def queue(self, dies):
        self.room.dies_in_queue = dies
        try:
            queue(self.workspace, self.room)
            assert not dies
        except Killed:
            self.room.dies_in_queue = False
            before = self.workspace.ledger.reading.assignments()
            assert queue(self.workspace, self.room).new == 0
            assert self.workspace.ledger.reading.assignments() == before
        shown = self.room.waiting
        assert queue(self.workspace, self.room).new == 0
        assert self.room.waiting == shown
        self.check_shown()
        self.check_nobody_is_forgotten()

    @rule(pages=st.integers(0, 3))
    def sync_and_die(self, pages):
        self.room.pages_left = pages
        asked = self.asked()
        left = len(self.events) - self.taken
        try:
            sync(self.workspace, self.room)
        except Killed:
            self.take(pages * self.room.page, asked)
        else:
            assert left <= pages * self.room.page
            self.take(left, asked)
        self.room.pages_left = None

    @rule()
    def sync(self):
        asked = self.asked()
        came = sync(self.workspace, self.room)
        new, strangers = self.take(len(self.events) - self.taken, asked)
        assert came.reads == new
        assert [one.place for one in came.rejections] == [f"memory:{k}" for k in strangers]
        self.check_ledger()
        self.check_shown()
        self.check_adjudicator()
        again = sync(self.workspace, self.room)
        assert (again.reads, again.adjudications, again.rejections) == (0, 0, [])

    # The model

    def asked(self) -> dict[tuple, object]:
        held = self.workspace.ledger.reading.assignments()
        pairs = {(a.item_id, a.reader): a for a in held}
        assert len(pairs) == len(held)
        return pairs

    def take(self, n: int, asked) -> tuple[int, list[int]]:
        """The next n events come in; how many said something, and which were refused."""
        new, strangers = 0, []
        for number, (item, reader, outcome, answers) in enumerate(self.events):
            if not self.taken <= number < self.taken + n:
                continue
            before = self.history.get((item, reader), [("withdrawn", {})])
            if outcome == "withdrawn" and before[-1][0] == "withdrawn":
                continue
            if (item, reader) not in asked:
                if outcome != "withdrawn":
                    strangers.append(number)
                continue
            self.history.setdefault((item, reader), []).append((outcome, answers))
            new += 1
        self.taken += n
        return new, strangers

    def newest(self) -> dict[tuple, str]:
        return {pair: done[-1][0] for pair, done in self.history.items()}

    def answers(self) -> dict[tuple, float | None]:
        """What holds, by item, reader and finding; None is unknown."""
        held = {}
        for (item, reader), done in self.history.items():
            if any(outcome == "read" for outcome, _ in done):
                for finding in TASK.findings:
                    value = done[-1][1].get(finding, math.nan)
                    held[item, reader, finding] = None if math.isnan(value) else value
        return held

    def check_ledger(self):
        ledger = self.workspace.ledger
        assert count(ledger, schema.reads) == sum(map(len, self.history.values()))
        found = {(r.item_id, r.reader): r.outcome for r in ledger.reading.reads()}
        assert found == self.newest()
        assert {
            (one.item_id, one.reader, one.finding): None if math.isnan(one.value) else one.value
            for one in all_labels(ledger)
        } == self.answers()
        roles = {(r.item_id, r.reader): r.role for r in ledger.reading.reads()}
        assert all((role == "adjudicator") == (pair[1] == "cat") for pair, role in roles.items())

    def check_shown(self):
        """The queues are exactly what is open, item by item, each in its order."""
        newest, expected = self.newest(), {}
        for item in {a.item_id for a in self.asked().values()}:
            of_item = [a for a in self.asked().values() if a.item_id == item]
            by_readers = [newest.get((item, r)) in DONE for r in READERS]
            wanted = max(1, sum(a.primary for a in of_item if a.reader in READERS))
            for a in of_item:
                own = newest.get((item, a.reader), "withdrawn") == "withdrawn"
                if own and (a.reader == "cat" or sum(by_readers) < wanted):
                    expected.setdefault(a.reader, set()).add(item)
        shown = {reader: [a.item_id for a in held] for reader, held in self.room.waiting.items()}
        assert {reader: set(held) for reader, held in shown.items()} == expected
        assert all(len(set(held)) == len(held) for held in shown.values())
        for held in self.room.waiting.values():
            assert [a.priority for a in held] == sorted(a.priority for a in held)

    def check_adjudicator(self):
        """Whatever is in dispute now was put in front of the adjudicator."""
        newest, answers, asked = self.newest(), self.answers(), self.asked()
        for item in {pair[0] for pair in self.history}:
            if newest.get((item, "cat")) in DONE:
                continue
            done = {newest.get((item, r)) for r in READERS} & set(DONE)
            values = [
                {answers.get((item, r, finding)) for r in READERS} - {None}
                for finding in TASK.findings
            ]
            if len(done) > 1 or any(len(said) > 1 for said in values):
                assert (item, "cat") in asked

    def check_nobody_is_forgotten(self):
        """Every question was put to a reader; an item that nobody read is in front of one."""
        newest, asked = self.newest(), self.asked()
        questions = {s.item_id for _, s in self.workspace.ledger.selected()}
        for item in questions:
            readers = [r for r in READERS if (item, r) in asked]
            assert readers
            outcomes = [newest.get((item, r), "withdrawn") for r in readers]
            if not any(o in DONE for o in outcomes) and "withdrawn" in outcomes:
                assert any(item in {a.item_id for a in w} for w in self.room.waiting.values())


Reading.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestReading = Reading.TestCase
