"""The audit of pseudo-labels, from rows written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.auditing import audit
from ssl_core.auditing.fair_reads import blind, blind_answers, fair_sample, precision, signs_of
from ssl_core.errors import WorkspaceError
from ssl_core.evidence import wilson
from ssl_core.recipes import PseudoLabel as PseudoLabelStage
from ssl_core.records import Assignment, HeldRead, Label, PseudoLabel, Read
from ssl_core.rounds import run_round
from tests import toy
from tests.rounds_by_hand import add, asked, ids, made, model, open_round, says, take

NAN = math.nan
STAGE = PseudoLabelStage("pseudo-labels", "teacher", 0.75)


def pseudo(ws, number, rows, asks=(), *, prior=0.25, pool=36):
    """A finished round that kept these (item, value, score) and asked for these (item, kind)."""
    open_round(ws.ledger, number, ws.config.to_json())
    teacher = model(f"t{number}", "teacher")
    add(ws.ledger, number, "teacher", models=[teacher])
    finding = ws.ledger.task.findings[0]
    positives = sum(value == 1 for _, value, _ in rows)
    detail = {"pool": pool, "prior": [prior], "positives": [positives], "kept": [len(rows)]}
    kept = [PseudoLabel(i, finding, value, score) for i, value, score in rows]
    add(ws.ledger, number, "pseudo-labels", "pseudo-label", detail, pseudo_labels=kept)
    chosen = [asked(i, rank, kind) for rank, (i, kind) in enumerate(asks)]
    add(ws.ledger, number, "select", "select", selections=chosen)
    ws.ledger.finish_round(number, "{}")


def read(ws, item_id, value, *, reader="ann", hinted=False, outcome="read"):
    ws.ledger.reading.assign([Assignment(item_id, reader, 1, 0, hinted=hinted)])
    answers = (("Spot", value),) if outcome == "read" else ()
    key = f"{reader}{item_id}{value}"
    take(ws.ledger, Read(key, item_id, reader, "label_studio", outcome, answers))


@pytest.fixture
def ws(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url)
    yield ws
    ws.ledger.close()


def test_precision_and_recall_by_hand(ws):
    """Six kept as present: the one asked for is wrong, and 2 of the 3 in the slice are right.

    So the five that the strategy left are 2/3 right: (0 + 5 · 2/3) / 6. Of 34 items beyond the
    two asked for, the slice has six, of which 0, 1, 7 and 12 are present: each stands for 34/6.
    Kept as present were 0 and 1 of them; of those asked for, 8 is present and was not kept so.
    """
    t = ids(ws, "train")[::2]  # one of each patient
    rows = [(t[k], 1.0, 0.9) for k in range(6)] + [(t[k], 0.0, 0.1) for k in range(6, 12)]
    slice_ = [t[0], t[1], t[2], t[6], t[7], t[12]]  # t[12] was dropped
    asks = [(i, "random") for i in slice_] + [(t[3], "strategy"), (t[8], "strategy")]
    pseudo(ws, 1, rows, asks)
    answers = {0: 1.0, 1: 1.0, 2: 0.0, 6: 0.0, 7: 1.0, 12: 1.0, 3: 0.0, 8: 1.0}
    for k, value in answers.items():
        read(ws, t[k], value)
    present, absent = audit.kept(ws, 1)
    assert (present.sign, present.kept, present.pool) == ("present", 6, 36)
    assert (present.share, present.prior) == (0.5, 0.25)
    assert (absent.sign, absent.kept, absent.share, absent.prior) == ("absent", 6, 0.5, 0.75)
    assert (present.precision.value, present.precision.n) == (pytest.approx(5 * (2 / 3) / 6), 4)
    assert present.precision.low < 0.25
    assert 0.75 < present.precision.high <= 5 / 6  # one of six is known to be wrong
    assert (absent.precision.value, absent.precision.n) == (pytest.approx(5 * (1 / 2) / 6), 3)
    assert present.recall.n == 5
    assert present.recall.value == pytest.approx(2 * (34 / 6) / (4 * (34 / 6) + 1))
    so_far = audit.precision_so_far(ws)["Spot", "present"]
    assert (so_far.value, so_far.n) == (pytest.approx(2 / 3), 3)
    assert (so_far.low, so_far.high) == pytest.approx(wilson(2 / 3, 3))


def test_hinted_unsure_unusable_and_unread_items_judge_nothing(ws):
    t = ids(ws, "train")
    rows = [(i, 1.0, 0.9) for i in t[:6]]
    pseudo(ws, 1, rows, [(i, "random") for i in t[:6]])
    read(ws, t[0], 1.0)
    read(ws, t[1], 0.0, hinted=True)
    read(ws, t[2], NAN)
    read(ws, t[3], 0.0, outcome="unusable")
    read(ws, t[4], 0.0, hinted=True)
    read(ws, t[4], 1.0, reader="bob")  # the blind reader of the two
    present = audit.kept(ws, 1)[0]
    assert (present.precision.value, present.precision.n) == (1.0, 2)


def test_later_rounds_judge_with_their_weight_and_earlier_slices_nothing(ws):
    """Round 1 kept 0, 4, 8: its slice asked 0 (wrong), round 2's asked 4 (right) of what was left.

    Round 1 alone: 0 of 3 right. Round 2: 0, counted once, and 4 for two items: 2/3. The weights
    k / (left (left - k)) are 1/6 of round 1 and 1/2 of round 2: (1 · 0 + 3 · 2/3) / 4.
    """
    t = ids(ws, "train")
    kept = [(t[k], 1.0, 0.9) for k in (0, 4, 8)]
    pseudo(ws, 1, kept, [(t[0], "random"), (t[2], "random")])
    read(ws, t[0], 0.0)
    pseudo(ws, 2, [(t[4], 1.0, 0.9), (t[2], 1.0, 0.9)], [(t[4], "random")])
    read(ws, t[4], 1.0)
    read(ws, t[2], 0.0)  # of round 1's slice, read late: in round 2's pool, not in its sample
    (first,) = [k.precision for k in audit.kept(ws, 1)[:1]]
    assert (first.value, first.n) == (pytest.approx(0.5), 2)
    assert [(k.precision.value, k.precision.n) for k in audit.kept(ws, 2)[:1]] == [(1.0, 1)]
    # An item of the slice that had a label before: its label is not later than the teacher.
    ws.ledger.add_labels([Label(t[6], "Spot", 0.0, "ann", "label_studio", "early")])
    pseudo(ws, 3, [(t[6], 1.0, 0.9)], [(t[6], "random")])
    assert audit.kept(ws, 3)[0].precision.n == 0


def test_all_rounds_together(ws):
    t = ids(ws, "train")[::2]
    pseudo(ws, 1, [(t[0], 1.0, 0.9), (t[1], 0.0, 0.1)], [(t[0], "random"), (t[1], "random")])
    for k, value in ((0, 1.0), (1, 0.0)):
        read(ws, t[k], value)
    pseudo(ws, 2, [(t[2], 1.0, 0.9), (t[3], 1.0, 0.9)], [(t[2], "random"), (t[3], "random")])
    for k, value in ((2, 1.0), (3, 0.0)):
        read(ws, t[k], value)
    found = audit.precision_so_far(ws)
    assert (found["Spot", "present"].value, found["Spot", "present"].n) == (pytest.approx(2 / 3), 3)
    assert (found["Spot", "absent"].value, found["Spot", "absent"].n) == (1.0, 1)


def test_nothing_yet(ws):
    assert audit.precision_so_far(ws)["Spot", "present"].n == 0
    with pytest.raises(WorkspaceError, match="has no round 1"):
        audit.kept(ws, 1)
    open_round(ws.ledger, 1, ws.config.to_json())
    with pytest.raises(WorkspaceError, match=r"Round 1 .* made no pseudo-labels"):
        audit.kept(ws, 1)


def test_nothing_kept_has_no_share(ws):
    pseudo(ws, 1, [], prior=None)
    present = audit.kept(ws, 1)[0]
    assert present.kept == 0
    assert math.isnan(present.share)
    assert math.isnan(present.prior)
    assert math.isnan(present.precision.value)


def test_precision_by_patient_by_hand():
    signs = np.array([[1.0], [1.0], [0.0], [NAN], [1.0]])
    labels = np.array([[1.0], [0.0], [0.0], [1.0], [NAN]])
    found = precision(signs, labels, np.array(["a", "b", "c", "d", "e"]))
    assert found["present"].findings[0].estimate.value == 0.5
    assert found["present"].findings[0].estimate.n == 2
    assert (found["absent"].findings[0].estimate.value, found["absent"].findings[0].estimate.n) == (
        1.0,
        1,
    )


def test_who_is_blind():
    reads = [
        HeldRead("k", "t1", "ann", "read", "", None, None, "reader", hinted, 1)
        for hinted in (True,)
    ]
    labels = [
        Label("t1", "Spot", 1.0, "ann", "label_studio", "1"),
        Label("t1", "Spot", 1.0, "bob", "label_studio", "2"),
        Label("t2", "Spot", 1.0, "ann", "label_studio", "3"),
        Label("t2", "Spot", 1.0, "file", "import", "4"),
    ]
    assert [one.key for one in blind(labels, reads)] == ["2", "3"]


# Borders


def test_borders_by_hand(ws):
    t = ids(ws, "train")
    rows = [(t[0], 1.0, 0.9), (t[1], 1.0, 0.7), (t[2], 0.0, 0.05), (t[3], 0.0, 0.2)]
    pseudo(ws, 1, rows)
    rest = {i: [0.3 + 0.01 * k] for k, i in enumerate(t[4:])}
    says(ws, "t1", {i: [score] for i, _, score in rows} | rest)
    present, absent = audit.borders(ws, 1, most=2)
    assert (present.finding, present.sign) == ("Spot", "present")
    assert [i for i, _ in present.kept] == [t[1], t[0]]
    assert [p for _, p in present.kept] == pytest.approx([0.7, 0.9])
    assert [i for i, _ in present.dropped] == [t[-1], t[-2]]
    assert present.dropped[0][1] == pytest.approx(0.3 + 0.01 * 31)
    assert [i for i, _ in absent.kept] == [t[3], t[2]]
    assert [i for i, _ in absent.dropped] == [t[4], t[5]]


# Soft pseudo-labels and exclusive classes, as a real round keeps them


@pytest.mark.parametrize("task", ["binary", "multi_label", "multi_class"])
def test_soft_pseudo_labels_are_told_apart_as_hard_ones_are(tmp_path, task):
    """The same round twice: the kept items and scores are equal, the values are not."""
    found = {}
    for soft in (False, True):
        recipe = toy.RECIPE | {"soft": soft, "keep_fraction": 0.6}
        root = toy.make(tmp_path / str(soft), toy.TASKS[task], recipe=recipe)
        ws, room = toy.opened(root)
        run_round(ws, room)
        run_round(ws, room)
        values = {p.value for p in ws.ledger.pseudo_labels(2)}
        assert (values <= {0.0, 1.0}) is not soft
        stage = PseudoLabelStage("pseudo-labels", "teacher", 0.6, soft)
        found[soft] = signs_of(ws, 2, stage, ids(ws, "train"))
        counted = [(k.kept, k.share) for k in audit.kept(ws, 2)]
        ones = (found[soft] == 1).sum(axis=0)
        assert [k for k, _ in counted][:: 1 if task == "multi_class" else 2] == ones.tolist()
    np.testing.assert_array_equal(found[False], found[True])
    assert (found[True] == 1).any()


def test_a_real_rounds_sample_is_what_its_slice_answered(tmp_path):
    ws, room = toy.opened(
        toy.make(tmp_path / "w", selection={"query_size": 12, "random_share": 0.5})
    )
    for _ in range(3):
        run_round(ws, room)
    drawn = [s.item_id for s in ws.ledger.selections(2) if s.kind == "random"]
    signs, labels, groups = fair_sample(ws, 2, STAGE, blind_answers(ws))
    assert len(signs) == len(labels) == len(groups) == len(drawn) == 6
    assert not np.isnan(labels).any()  # round 3 took their answers in before it opened
    truth = {a.item_id: a.value for a in ws.ledger.answers(drawn)}
    assert labels[:, 0].tolist() == [truth[i] for i in drawn]
    hits = [(s, y) for s, y in zip(signs[:, 0], labels[:, 0], strict=True) if s == 1]
    present = audit.kept(ws, 2)[0]
    assert present.precision.n >= len(hits)  # those of the query and of later rounds too
    assert present.precision.low <= present.precision.value <= present.precision.high
    assert ws.ledger.vault_looks() == [v for v in ws.ledger.vault_looks() if "measure" in v.purpose]


# The sweep of the keep fraction


def test_the_sweep_by_hand(ws):
    """8 of 12 validation items are labeled; prior 1/4: κ keeps ⌊3κ⌋ present and ⌊9κ⌋ + 1 absent."""
    validation = ids(ws, "validation")
    labels = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ws.ledger.add_labels(
        Label(i, "Spot", v, "ann", "label_studio", f"v{i}")
        for i, v in zip(validation, labels, strict=False)
    )
    pseudo(ws, 1, [(ids(ws, "train")[0], 1.0, 0.9)])
    scores = [0.95, 0.9, 0.85, 0.5, 0.3, 0.2, 0.1, 0.05]
    says(ws, "t1", {i: [s] for i, s in zip(validation, scores, strict=False)})
    found = {(s.keep_fraction, s.sign): s for s in audit.sweep(ws, 1)}
    assert sorted({k for k, _ in found}) == [k / 10 for k in range(1, 11)]
    # N = 8 labeled items are scored: present ⌊2κ⌋, absent ⌊6κ⌋ + 1.
    half, full = found[0.5, "present"], found[1.0, "present"]
    assert (half.kept, half.precision.value) == (1, 1.0)
    assert (full.kept, full.precision.value) == (2, 1.0)
    absent = found[0.5, "absent"]  # the four lowest: .05, .1, .2, .3, of which .1 is present
    assert (absent.kept, absent.precision.value, absent.precision.n) == (4, 0.75, 4)
    all_absent = found[1.0, "absent"]  # six, as the positives go first
    assert (all_absent.kept, all_absent.precision.value) == (6, pytest.approx(5 / 6))
    assert (found[0.1, "present"].kept, found[0.1, "absent"].kept) == (0, 1)
