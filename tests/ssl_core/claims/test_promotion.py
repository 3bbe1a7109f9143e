"""Which model is in use: the gate by hand, decisions on record, back one step at a time."""

from __future__ import annotations

import json
import math

import pytest

from ssl_core import metrics
from ssl_core.claims.promotion import (
    baseline,
    candidates,
    find_candidate,
    find_in_use,
    gate,
    in_use,
    promote,
    roll_back,
)
from ssl_core.errors import LedgerError, WorkspaceError
from ssl_core.evidence import compare
from ssl_core.records import Label, Promotion
from ssl_core.training.models import build_model, save_model
from ssl_core.workspace import open_workspace
from tests.rounds_by_hand import add, ids, made, model, open_round, says, trained

GOOD, BAD = [0.9, 0.1], [0.1, 0.9]  # of a positive and of a negative


@pytest.fixture
def ws(tmp_path, ledger_url):
    """12 validation items in 6 patients: one positive and one negative in each."""
    ws = made(tmp_path / "w", ledger_url)
    validation = ids(ws, "validation")
    labels = [
        Label(i, "Spot", float(k % 2 == 0), "ann", "label_studio", f"v{i}")
        for k, i in enumerate(validation)
    ]
    ws.ledger.add_labels(labels)
    yield ws
    ws.ledger.close()


def round_of(ws, number: int) -> None:
    """A finished round: teacher tN and student sN, with files that can be loaded."""
    trained(ws, number, **{f"t{number}": 0.8, f"s{number}": 0.9})
    identity = save_model(build_model("small_cnn", 1, seed=number), ws.models_folder)
    for name in (f"t{number}", f"s{number}"):
        held = ws.models_folder / f"{identity}.safetensors"
        (ws.models_folder / f"{name}.safetensors").write_bytes(held.read_bytes())


def thinks(ws, name: str, right: int) -> None:
    """A model that is right about so many of the six patients, and wrong about the others."""
    validation = ids(ws, "validation")
    opinions = {}
    for patient in range(6):
        said = GOOD if patient < right else BAD
        for k in (0, 1):
            opinions[validation[2 * patient + k]] = [said[k] + 0.001 * patient]
    says(ws, name, opinions)


def test_before_any_round_nothing_is_in_use(ws):
    assert find_in_use(ws) is None
    with pytest.raises(WorkspaceError, match="no trained model yet"):
        in_use(ws)
    with pytest.raises(WorkspaceError, match="no trained model yet"):
        find_candidate(ws)
    with pytest.raises(WorkspaceError, match="nothing to roll back"):
        roll_back(ws, "eva")


def test_without_a_promotion_the_newest_student_is_in_use(ws):
    round_of(ws, 1)
    assert (in_use(ws)[0], in_use(ws)[1].id) == (1, "s1")
    round_of(ws, 2)
    assert (in_use(ws)[0], in_use(ws)[1].id) == (2, "s2")
    assert [m.id for _, m in candidates(ws)] == ["t1", "s1", "t2", "s2"]


def test_a_promoted_model_stays_in_use_when_a_round_makes_a_newer_one(ws):
    round_of(ws, 1)
    thinks(ws, "t1", 1)
    thinks(ws, "s1", 6)
    promote(ws, find_candidate(ws), "eva")
    round_of(ws, 2)
    assert in_use(ws)[1].id == "s1"


def test_the_first_student_is_held_against_its_teacher_and_the_next_against_the_one_before(ws):
    round_of(ws, 1)
    assert baseline(ws, find_candidate(ws))[1].id == "t1"
    round_of(ws, 2)
    assert baseline(ws, find_candidate(ws))[1].id == "s1"
    assert baseline(ws, find_candidate(ws, "s1"))[1].id == "s2"


def test_the_gate_by_hand(ws):
    """The teacher is right about 4 of 6 patients, the student about 5.

    With r of 6 right: a right patient's positive (.9) beats the r right negatives (.1) and loses
    to the wrong ones (.9 and a later number); a wrong patient's positive (.1) beats the right
    negatives, whose number is earlier, and no others. AUROC = (r² + (6 - r) r) / 36 = r / 6.
    """
    round_of(ws, 1)
    thinks(ws, "t1", 4)
    thinks(ws, "s1", 5)
    verdict = gate(ws, find_candidate(ws))
    assert verdict.difference == pytest.approx(5 / 6 - 4 / 6)
    assert (verdict.n, verdict.split, verdict.margin) == (12, "validation", 0.01)
    assert (verdict.candidate, verdict.baseline) == ("s1", "t1")
    labels = [[float(k % 2 == 0)] for k in range(12)]
    groups = [i // 2 for i in range(12)]

    def scores(right):
        return [[(GOOD if p < right else BAD)[k] + 0.001 * p] for p in range(6) for k in (0, 1)]

    expected = compare(
        metrics.auroc(scores(5), labels, groups), metrics.auroc(scores(4), labels, groups)
    ).macro
    assert (verdict.low, verdict.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert verdict.low < -0.01
    assert not verdict.passes
    assert verdict.sentence == (
        "student of round 1 against teacher of round 1 on validation (12 items, paired by "
        f"patient): AUROC +0.167 [{expected.low:+.3f}, {expected.high:+.3f}], which does not "
        "exclude a loss larger than 0.01."
    )


@pytest.mark.parametrize(("margin", "passes"), [(0.9, True), (0.0, False)])
def test_the_margin_is_the_configurations(tmp_path, ledger_url, margin, passes):
    ws = made(tmp_path / "w", ledger_url, promotion={"margin": margin})
    ws.ledger.add_labels(
        Label(i, "Spot", float(k % 2 == 0), "ann", "label_studio", f"v{i}")
        for k, i in enumerate(ids(ws, "validation"))
    )
    round_of(ws, 1)
    thinks(ws, "t1", 4)
    thinks(ws, "s1", 4)
    verdict = gate(ws, find_candidate(ws))
    # Two models that treat every item alike differ by exactly nothing: no loss above 0 is sure.
    assert (verdict.difference, verdict.low, verdict.high) == (0.0, 0.0, 0.0)
    assert verdict.passes is passes
    ws.ledger.close()


def test_without_labels_on_validation_nothing_passes(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url)
    round_of(ws, 1)
    verdict = gate(ws, find_candidate(ws))
    assert not verdict.passes
    assert math.isnan(verdict.difference)
    assert verdict.sentence == (
        "student of round 1 against teacher of round 1: no validation item is labeled, "
        "so a loss cannot be excluded."
    )
    ws.ledger.close()


def test_what_fails_the_gate_is_refused_unless_overridden_with_a_reason(ws):
    round_of(ws, 1)
    thinks(ws, "t1", 5)
    thinks(ws, "s1", 3)
    with pytest.raises(WorkspaceError, match=r"Not promoted: .* does not exclude .*--override"):
        promote(ws, find_candidate(ws), "eva")
    with pytest.raises(WorkspaceError, match=r"An override needs its reason: give --why"):
        promote(ws, find_candidate(ws), "eva", "  ", override=True)
    assert ws.ledger.promotions() == []
    assert not promote(ws, find_candidate(ws), "eva", "the reader wants it", override=True).passes
    (row,) = ws.ledger.promotions()
    assert (row.kind, row.model_id, row.replaced_id) == ("override", "s1", "t1")
    assert (row.decided_by, row.why) == ("eva", "the reader wants it")
    told = json.loads(row.verdict)
    assert (told["passes"], told["split"], told["n"]) == (False, "validation", 12)
    assert told["difference"] == pytest.approx(-2 / 6)


def test_what_passes_is_no_override_even_when_one_is_offered(ws):
    round_of(ws, 1)
    thinks(ws, "t1", 2)
    thinks(ws, "s1", 6)
    assert promote(ws, find_candidate(ws), "eva", override=True).passes
    assert [p.kind for p in ws.ledger.promotions()] == ["promotion"]
    with pytest.raises(WorkspaceError, match="is in use already"):
        promote(ws, find_candidate(ws), "eva")


def test_rolling_back_goes_back_one_standing_promotion_at_a_time(ws):
    for number, right in ((1, 1), (2, 3), (3, 6)):
        round_of(ws, number)
        thinks(ws, f"t{number}", 0)
        thinks(ws, f"s{number}", right)
        promote(ws, find_candidate(ws), "eva", "go", override=True)
    assert in_use(ws)[1].id == "s3"
    assert roll_back(ws, "leo", "complaints")[1].id == "s2"
    assert in_use(ws)[1].id == "s2"
    assert roll_back(ws, "leo")[1].id == "s1"
    promote(ws, find_candidate(ws, "s3"), "eva", "mended", override=True)
    assert roll_back(ws, "leo")[1].id == "s1"  # what that promotion had replaced
    assert roll_back(ws, "leo")[1].id == "t1"  # what the first student was held against
    with pytest.raises(WorkspaceError, match="nothing to roll back"):
        roll_back(ws, "leo")
    rows = ws.ledger.promotions()
    assert [r.model_id for r in rows] == ["s1", "s2", "s3", "s2", "s1", "s3", "s1", "t1"]
    assert [r.kind == "rollback" for r in rows] == [False] * 3 + [True] * 2 + [False] + [True] * 2
    assert (rows[3].replaced_id, rows[3].why, rows[3].verdict) == ("s3", "complaints", "")


def test_a_model_is_found_by_how_its_id_begins(ws):
    round_of(ws, 1)
    round_of(ws, 2)
    open_round(ws.ledger, 3, ws.config.to_json())
    add(ws.ledger, 3, "student", models=[model("unmeasured")])
    assert find_candidate(ws, "s1")[0] == 1
    with pytest.raises(WorkspaceError, match=r"several models whose id begins with 's'"):
        find_candidate(ws, "s")
    with pytest.raises(WorkspaceError, match=r"no measured model whose id begins with 'unm'"):
        find_candidate(ws, "unm")


def test_a_model_whose_file_is_gone_is_not_promoted(ws):
    round_of(ws, 1)
    thinks(ws, "t1", 2)
    thinks(ws, "s1", 6)
    (ws.models_folder / "s1.safetensors").unlink()
    with pytest.raises(WorkspaceError, match=r"s1\.safetensors is missing"):
        promote(ws, find_candidate(ws), "eva")


def test_two_decisions_at_once_are_one_and_a_refusal(ws):
    round_of(ws, 1)
    row = Promotion("override", 1, "s1", "student", 1, "t1", "teacher", "eva", "why", "{}")
    ws.ledger.add_promotion(row, 0)
    with pytest.raises(LedgerError, match="meanwhile"):
        ws.ledger.add_promotion(row, 0)
    assert len(ws.ledger.promotions()) == 1


def test_the_gate_takes_no_look_into_the_vault(ws):
    round_of(ws, 1)
    thinks(ws, "t1", 2)
    thinks(ws, "s1", 6)
    promote(ws, find_candidate(ws), "eva")
    assert ws.ledger.vault_looks() == []


def test_where_masks_are_drawn_the_gate_asks_for_their_dice(drawn):
    ws = open_workspace(drawn)
    told = {
        (number, m.stage): m.value
        for number, m in ws.ledger.measurements()
        if (m.split, m.finding, m.name) == ("validation", "macro", "dice")
    }
    ours, theirs = (
        next(one for one in candidates(ws) if (one[0], one[1].stage) == name)
        for name in ((3, "student"), (2, "teacher 0a"))
    )
    found = gate(ws, ours, theirs)
    expected = told[3, "student"] - told[2, "teacher 0a"]
    assert found.difference == pytest.approx(expected, abs=1e-6)
    assert found.low < found.difference < found.high
    assert "paired by patient): Dice " in found.sentence
    ws.ledger.close()
