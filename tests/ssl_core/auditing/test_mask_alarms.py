"""Pseudo-masks in the wrong place: they raise an alarm, pause their finding, and are told of."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ssl_core.auditing import audit
from ssl_core.auditing.fair_reads import blind_answers, detail_of, misplaced
from ssl_core.auditing.pauses import audits, is_paused, unpack, watches
from ssl_core.config import save_config
from ssl_core.errors import WorkspaceError
from ssl_core.masks import files
from ssl_core.readers import reading
from ssl_core.records import Label, PseudoLabel
from ssl_core.rounds import run_round
from ssl_core.workspace import CONFIG_FILE
from tests import toy
from tests.rounds_by_hand import add, asked, ids, model, open_round

SLICE = 8
STAGE = "pseudo-masks 1"
SHORT = {"epochs": 2, "epoch_steps": 3, "batch_size": 8, "learning_rate": 3e-3}
RECIPE = {
    "name": "self_training",
    "teacher": SHORT,
    "student": SHORT,
    "backbones": [[""], [""]],
    "positive": 0.3,  # the untrained are unsure: what they draw is drawn
    "negative": 0.01,
}


def corner(size: int) -> np.ndarray:
    """A mask where no spot of the toy is."""
    mask = np.zeros((size, size), bool)
    mask[-1, -1] = True
    return mask


def planted(ws, number: int, right: bool) -> list[str]:
    """A round that drew the spots of eight items, all of which have one: there, or elsewhere."""
    answers = {a.item_id: a for a in ws.ledger.answers(ids(ws, "train")) if a.finding == "Spot"}
    done = {s.item_id for _, s in ws.ledger.selected()}
    spotted = [i for i, a in answers.items() if a.value == 1 and i not in done][:SLICE]
    wrong = files.keep(ws.masks_folder, corner(ws.images.size))
    open_round(ws.ledger, number, ws.config.to_json())
    add(ws.ledger, number, "teacher 0a", models=[model(f"t{number}", "teacher 0a")])
    rows = [PseudoLabel(i, "Spot", 1.0, 0.95, answers[i].mask if right else wrong) for i in spotted]
    detail = {
        "pool": len(answers) - len(done),
        "teachers": ["teacher 0a"],
        "positives": [len(rows), 0],
        "kept": [len(rows), 0],
        "confidence": [[0.95, None], [None, None]],
        "validation": None,
    }
    add(ws.ledger, number, STAGE, "pseudo-label", detail, pseudo_labels=rows)
    chosen = [asked(i, rank, "random") for rank, i in enumerate(spotted)]
    add(ws.ledger, number, "select", "select", selections=chosen)
    ws.ledger.finish_round(number, "{}")
    return spotted


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Two planted rounds each, right ones and wrong ones, whose questions will be answered."""
    found = {}
    for right in (True, False):
        root = tmp_path_factory.mktemp("alarm") / "w"
        tables = {
            "model": {"backbone": "small_unet"},
            "selection": {"query_size": 10, "strategy": "random", "cold_start": "random"},
            "map": {"methods": []},
            "recipe": RECIPE,
        }
        toy.make(root, toy.TASKS["segmentation"], items=192, **tables)
        ws, _ = toy.opened(root)
        planted(ws, 1, right)
        planted(ws, 2, right)
        ws.ledger.close()
        found[right] = root
    return found


@pytest.fixture(params=[True, False], ids=["in place", "elsewhere"])
def right(request) -> bool:
    return request.param


@pytest.fixture
def root(bases, right, tmp_path):
    return shutil.copytree(bases[right], tmp_path / "w")


def test_masks_in_the_wrong_place_pause_their_finding_though_it_is_there(root, right):
    ws, room = toy.opened(root)
    number = run_round(ws, room)
    told = audits(ws)["Spot"]
    wrong = 0 if right else SLICE
    assert [(a.judged, a.wrong, a.positives, a.reads) for a in told[:2]] == [
        ((SLICE, 0), (wrong, 0), SLICE, SLICE)
    ] * 2
    (spot, _) = watches(ws, ws.config.alarm)
    assert is_paused(spot, ws.config.alarm) is not right
    drawn = [p for p in ws.ledger.pseudo_labels(number) if p.finding == "Spot"]
    detail = detail_of(ws, number, STAGE)
    assert list(detail["paused"]) == ([] if right else ["Spot"])
    if right:
        assert drawn
        return
    assert not drawn
    withheld = detail["withheld"]["Spot"]
    assert withheld["positives"] == len(withheld["masks"]) > 0

    # The next round takes the slice's answers in: what was withheld is judged by its pixels.
    run_round(ws, room)
    third = audits(ws)["Spot"][2]
    asked_for = [s.item_id for s in ws.ledger.selections(number) if s.kind == "random"]
    signs = unpack(withheld, asked_for, ids(ws, "train"))
    assert third.judged[0] == (signs == 1).sum()
    answers = blind_answers(ws)
    masks = {(i, "Spot"): digest for i, digest in withheld["masks"].items()}
    elsewhere = misplaced(ws, asked_for, answers.labels, masks)[:, 0]
    truth = {a.item_id: a.value for a in ws.ledger.answers(asked_for) if a.finding == "Spot"}
    absent = np.array([truth[i] == 0 for i in asked_for])
    assert third.wrong[0] == ((signs == 1) & (elsewhere | absent)).sum()


def test_precision_and_recall_count_the_place(root, right):
    ws, room = toy.opened(root)
    reading.queue(ws, room)
    reading.sync(ws, room)
    first = audit.kept(ws, 1)[0]
    assert (first.finding, first.sign, first.kept) == ("Spot", "present", SLICE)
    assert first.precision.n == SLICE
    assert first.precision.value == float(right)
    assert (first.recall.value > 0) is right
    assert audit.precision_so_far(ws)["Spot", "present"].value == float(right)


def test_an_engineer_overrides_the_pause_of_masks(bases, tmp_path):
    root = shutil.copytree(bases[False], tmp_path / "w")
    ws, _ = toy.opened(root)
    save_config(ws.config.changed(alarm={"ignore": ["Spot"]}), root / CONFIG_FILE)
    ws.ledger.close()
    ws, room = toy.opened(root)
    number = run_round(ws, room)
    assert "Spot" in {p.finding for p in ws.ledger.pseudo_labels(number)}
    assert detail_of(ws, number, STAGE)["paused"] == {}


def test_what_asks_for_scores_of_whole_images_says_that_there_are_none(root):
    ws, _ = toy.opened(root)
    with pytest.raises(WorkspaceError, match=r"Round 1 of .* drew masks"):
        audit.borders(ws, 1)


def square(at: int, side: int = 4, size: int = 16) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[at : at + side, at : at + side] = True
    return mask


@pytest.mark.parametrize(
    ("drawn", "elsewhere"),
    [
        (square(2), False),  # the same
        (square(2, side=2), True),  # 2 * 4 / (4 + 16) = .4
        (square(2, side=7), True),  # 2 * 16 / (49 + 16) = .49
        (square(2, side=6), False),  # 2 * 16 / (36 + 16) = .62
        (square(8), True),  # beside it
    ],
)
def test_a_dice_of_one_half_is_what_counts_as_found(bases, drawn, elsewhere):
    ws, _ = toy.opened(bases[True])
    size = ws.images.size
    item = ids(ws, "train")[0]
    truth, mask = (files.keep(ws.masks_folder, _padded(m, size)) for m in (square(2), drawn))
    label = Label(item, "Spot", 1.0, "ann", "reading", "k", mask=truth)
    found = misplaced(ws, [item, "other"], [label], {(item, "Spot"): mask})
    assert found.tolist() == [[elsewhere, False], [False, False]]
    assert not misplaced(ws, [item], [], {(item, "Spot"): mask}).any()  # nobody read it


def _padded(mask: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((size, size), bool)
    out[: len(mask), : len(mask)] = mask[:size, :size]
    return out
