from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.columns import Columns
from connectors.manifest import Manifest, Row, read_manifest
from ssl_core.errors import ImageError, ImportRefusedError
from ssl_core.intake import Policy, content_digests, take_in
from ssl_core.records import SPLITS, Item, Task

DATA = Path(os.environ.get("READLOOP_DATA", "../shared/data"))
NAN = math.nan
TASK = Task("binary", ("sick",))
ARCHIVE = Policy(seed=0, archive=True)
FRESH = Policy(seed=0)


def row(line: int, group: str | None = "", label: float = 0.0, **kwargs) -> Row:
    """One row; by default of its own patient."""
    group = f"p{line}" if group == "" else group
    fields = {"path": f"{line}.png", "labels": (label,), "split": None} | kwargs
    return Row(line=line, group=group, **fields)


def filler(n: int = 20, **kwargs) -> list[Row]:
    """Rows of distinct patients and images, half of them positive, from line 100 on."""
    return [row(100 + i, label=float(i % 2), **kwargs) for i in range(n)]


def intake(rows, policy=ARCHIVE, same=(), digests=(), task=TASK, refusals=()):
    """Take rows in; each tuple of lines in `same` has one image."""
    known = {r.line: f"d{r.line}" for r in rows} | dict(digests)
    for lines in same:
        known |= dict.fromkeys(lines, f"d{lines[0]}")
    return take_in(Manifest(task, tuple(rows), tuple(refusals)), known, policy)


def by_id(taken) -> dict[str, tuple[Item, list[float]]]:
    rows = zip(taken.items, taken.labels.tolist(), strict=True)
    return {item.id: (item, labels) for item, labels in rows}


# --- items and labels ------------------------------------------------------------------------


def test_rows_become_items_in_order():
    taken = intake([row(2, "a", 1.0, masks=("m/2.png",)), *filler(masks=(None,))])
    first = taken.items[0]
    assert (first.id, first.group, first.path) == ("d2", "a", "2.png")
    assert taken.masks[:2] == (("m/2.png",), (None,))
    assert [item.id for item in taken.items] == ["d2"] + [f"d{100 + i}" for i in range(20)]
    assert taken.labels.shape == (21, 1)
    assert taken.labels[:3, 0].tolist() == [1.0, 0.0, 1.0]
    assert taken.task is TASK
    assert taken.report.rows == 21
    assert taken.report.duplicates == 0
    assert taken.report.refused == ()


def test_splits_are_drawn_by_patient_and_seed():
    rows = [row(i, f"p{i // 3}", float(i % 2)) for i in range(2, 92)]
    splits = {}
    for seed in (0, 1):
        taken = intake(rows, Policy(seed=seed, archive=True))
        assert len({(item.group, item.split) for item in taken.items}) == 31
        splits[seed] = [item.split for item in taken.items]
        assert set(splits[seed]) == set(SPLITS)
    assert splits[0] != splits[1]


def test_shares_come_from_the_policy():
    taken = intake(filler(100), Policy(seed=0, validation=0.3, vault=0.5, archive=True))
    counts = Counter(item.split for item in taken.items)
    assert abs(counts["validation"] - 30) <= 3
    assert abs(counts["vault"] - 50) <= 3


def test_without_patients_each_item_is_its_own_group_and_the_report_says_so():
    taken = intake([row(100 + i, None, float(i % 2)) for i in range(20)], same=[(100, 102)])
    assert all(item.group == item.id for item in taken.items)
    assert len(taken.items) == 19
    assert "No patient column" in taken.report.warnings[0]


# --- duplicates ------------------------------------------------------------------------------


def test_exact_duplicates_are_one_item_and_the_first_row_wins():
    taken = intake([row(2, "a"), row(3, "a"), row(4, "a"), *filler()], same=[(2, 3, 4)])
    assert by_id(taken)["d2"][0].path == "2.png"
    assert len(taken.items) == 21
    assert taken.report.duplicates == 2
    assert taken.report.refused == ()


@pytest.mark.parametrize("labels", [(NAN, 1.0), (1.0, NAN), (NAN, NAN, 1.0)])
def test_an_unlabeled_duplicate_merges_into_the_labeled(labels):
    rows = [row(2 + i, "a", label) for i, label in enumerate(labels)]
    taken = intake([*rows, *filler()], same=[tuple(r.line for r in rows)])
    item, label = by_id(taken)["d2"]
    assert label == [1.0]
    assert item.path == "2.png"
    assert taken.report.duplicates == len(labels) - 1


def test_partial_labels_and_masks_complete_each_other():
    task = Task("segmentation", ("x", "y"))
    masks = [("m", None), (None, "n"), ("m", None)]
    known = [(1.0, NAN), (NAN, 1.0), (1.0, NAN)]
    rows = [row(2 + i, "a", labels=known[i], masks=masks[i]) for i in range(3)]
    rest = [row(r.line, labels=(0.0, 1.0), masks=(None, "o")) for r in filler()]
    taken = intake([*rows, *rest], same=[(2, 3, 4)], task=task)
    assert by_id(taken)["d2"][1] == [1.0, 1.0]
    assert taken.masks == (("m", "n"), *[(None, "o")] * len(rest))


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ({"group": "a"}, {"group": "b"}, "two patients"),
        ({"group": "a", "label": 1.0}, {"group": "a", "label": 0.0}, "two labels"),
        ({"group": "a", "masks": ("m",)}, {"group": "a", "masks": ("n",)}, "two masks"),
    ],
)
def test_duplicates_that_disagree_are_all_refused_by_row(first, second, clash):
    rows = [row(2, **first), row(3, **first), row(4, **second)]
    taken = intake([*rows, *filler()], same=[(2, 3, 4)])
    assert "d2" not in by_id(taken)
    reason = f"the same image stands in lines 2, 3, 4 with {clash}"
    assert [tuple(r) for r in taken.report.refused] == [
        (2, "2.png", reason),
        (3, "3.png", reason),
        (4, "4.png", reason),
    ]
    assert taken.report.duplicates == 0


def test_a_duplicate_in_two_official_splits_is_refused():
    rows = [row(2, None, split="train"), row(3, None, split="test")]
    rest = [row(r.line, None, r.labels[0], split="train") for r in filler()]
    rest += [row(200 + i, None, float(i % 2), split="test") for i in range(4)]
    taken = intake([*rows, *rest], same=[(2, 3)])
    assert {r.reason for r in taken.report.refused} == {
        "the same image stands in lines 2, 3 with two official splits"
    }


def test_a_huge_cluster_keeps_its_reasons_short():
    rows = [row(1000 + i) for i in range(300)]
    taken = intake([*rows, *filler()], same=[tuple(r.line for r in rows)])
    assert len(taken.report.refused) == 300
    assert "1004 and 295 more" in taken.report.refused[0].reason


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from("abc"), st.sampled_from([0.0, 1.0, NAN])),
        max_size=25,
    )
)
def test_every_row_is_an_item_a_duplicate_or_refused(rows):
    made = [row(2 + i, group, label) for i, (_, group, label) in enumerate(rows)]
    digests = {2 + i: f"x{digest}" for i, (digest, _, _) in enumerate(rows)}
    taken = intake([*made, *filler()], digests=digests)
    report = taken.report
    assert report.rows == len(taken.items) + report.duplicates + len(report.refused)
    assert len({item.id for item in taken.items}) == len(taken.items)
    groups = {item.group: item.split for item in taken.items}
    assert all(groups[item.group] == item.split for item in taken.items)
    assert sum(c.items for c in report.counts) == len(taken.items)


# --- unreadable images -----------------------------------------------------------------------


def test_unreadable_images_are_each_named():
    errors = {2: ImageError("2.png is no picture."), 3: ImageError("3.png is a bomb.")}
    with pytest.raises(ImportRefusedError) as caught:
        intake([row(2), row(3), *filler()], digests=errors)
    assert str(caught.value).startswith("2 of 22 images cannot be used")
    assert "(line 2: 2.png is no picture; line 3: 3.png is a bomb)." in str(caught.value)


def test_unreadable_images_can_be_skipped_and_are_reported():
    policy = Policy(seed=0, archive=True, skip_unreadable=True)
    error = {2: ImageError("2.png is no picture.")}
    taken = intake([row(2), *filler()], policy, digests=error)
    assert len(taken.items) == 20
    assert taken.report.refused == ((2, "2.png", "2.png is no picture"),)


def test_a_wrong_folder_is_one_short_sentence():
    errors = {r.line: ImageError(f"{r.path} is not there.") for r in filler()}
    policy = Policy(seed=0, archive=True, skip_unreadable=True)
    with pytest.raises(ImportRefusedError, match=r"None of the 20 images .* check the image"):
        intake(filler(), policy, digests=errors)
    one_good = [row(2), *filler(30)]
    errors = {r.line: ImageError("gone.") for r in one_good[1:]}
    with pytest.raises(ImportRefusedError, match=r"30 of 31 images .*; and 10 more"):
        intake(one_good, digests=errors)


@dataclass
class FakeSource:
    def digest(self, path):
        if path == "bad.png":
            raise ImageError("bad.png cannot be read.")
        return hashlib.md5(path.encode()).hexdigest()

    def read(self, path):
        raise NotImplementedError


def test_content_digests_by_line_with_errors_as_values():
    rows = (row(2, path="a.png"), row(5, path="bad.png"), row(9, path="a.png"))
    digests = content_digests(Manifest(TASK, rows, ()), FakeSource())
    assert list(digests) == [2, 5, 9]
    assert digests[2] == digests[9] == hashlib.md5(b"a.png").hexdigest()
    assert isinstance(digests[5], ImageError)


# --- official splits -------------------------------------------------------------------------


def officials(words=("train", "val", "test"), sizes=(30, 60, 20)) -> list[Row]:
    lines = iter(range(2, 1000))
    return [
        row(line := next(lines), label=float(line % 2), split=word)
        for word, size in zip(words, sizes, strict=True)
        for _ in range(size)
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("train", "val", "test"),
        ("Training", "VALID", "Testing"),
        ("TRAIN", "Validation", "holdout"),
        ("training", "validation", "vault"),
    ],
)
def test_official_words_in_any_case(words):
    taken = intake(officials(words))
    assert Counter(item.split for item in taken.items) == {
        "train": 30,
        "validation": 60,
        "vault": 20,
    }
    assert taken.report.warnings == ()


def test_other_words_are_refused_by_row():
    rows = officials()
    rows += [row(900, split="dev"), row(901, split=""), row(902, split="x" * 999)]
    taken = intake(rows)
    assert [r.line for r in taken.report.refused] == [900, 901, 902]
    assert taken.report.refused[0].reason.startswith("its split 'dev' is none of train, training")
    assert len(taken.report.refused[2].reason) < 200


def test_a_small_official_validation_is_drawn_anew_and_said():
    taken = intake(officials(sizes=(100, 16, 20)))
    counts = Counter(item.split for item in taken.items)
    assert counts["vault"] == 20
    assert abs(counts["validation"] - 11.6) <= 3
    [warning] = taken.report.warnings
    assert "has 16 validation items, fewer than 50" in warning
    kept = intake(officials(sizes=(100, 16, 20)), Policy(0, archive=True, smallest_validation=10))
    assert Counter(item.split for item in kept.items)["validation"] == 16


def test_shared_patients_are_refused_unless_allowed():
    rows = officials()
    rows += [row(900, rows[0].group, split="test"), row(901, rows[1].group, split="test")]
    with pytest.raises(ImportRefusedError, match="2 patients stand in more than one official"):
        intake(rows)
    taken = intake(rows, Policy(seed=0, archive=True, allow_shared_groups=True))
    assert taken.report.shared_groups == ("p2", "p3")
    assert taken.report.warnings[0].startswith("2 patients stand in more than one split")
    assert by_id(taken)["d900"][0].split == "vault"
    assert by_id(taken)["d900"][0].group == "p2"


# --- the pool --------------------------------------------------------------------------------


def test_an_empty_pool_is_refused():
    with pytest.raises(ImportRefusedError, match=r"pool is empty.*archive"):
        intake(filler(), FRESH)


def test_unlabeled_train_rows_are_the_pool():
    taken = intake(filler() + [row(300 + i, label=NAN) for i in range(10)], FRESH)
    train = [c for c in taken.report.counts if c.split == "train"]
    assert 5 <= train[0].unknown <= 9


def test_an_official_pool_outside_train_is_no_pool():
    rows = [*officials(), row(900, label=NAN, split="test")]
    with pytest.raises(ImportRefusedError, match="pool is empty"):
        intake(rows, FRESH)


def test_an_archive_needs_answers():
    with pytest.raises(ImportRefusedError, match="no answers to hide"):
        intake([row(r.line, label=NAN) for r in filler()])


def test_no_usable_row_is_a_sentence():
    rows = [row(2, "a"), row(3, "b")]
    with pytest.raises(ImportRefusedError, match=r"None of the manifest's 3 rows .* line 2: the"):
        intake(rows, same=[(2, 3)], refusals=[(7, "x", "it is ragged")])


def test_two_patients_are_too_few():
    with pytest.raises(ImportRefusedError, match="2 patients cannot fill 3 splits"):
        intake([row(2, "a"), row(3, "b"), row(4, "b")])


# --- the report ------------------------------------------------------------------------------


def test_counts_by_hand():
    task = Task("multi_label", ("x", "y"))
    labels = {
        "train": [(1.0, 0.0), (0.0, NAN), (NAN, NAN)],
        "val": [(1.0, 1.0), (0.0, 0.0)],
        "test": [(1.0, 0.0), (0.0, 0.0)],
    }
    rows = [
        row(line, f"{word}{line // 2}", labels=each, split=word)
        for line, (word, each) in enumerate(((w, v) for w, vs in labels.items() for v in vs), 2)
    ]
    taken = intake(rows, Policy(seed=0, smallest_validation=2), task=task)
    assert [
        (c.split, c.finding, c.items, c.groups, c.positives, c.negatives, c.unknown)
        for c in taken.report.counts
    ] == [
        ("train", "x", 3, 2, 1, 1, 1),
        ("train", "y", 3, 2, 0, 1, 2),
        ("validation", "x", 2, 2, 1, 1, 0),
        ("validation", "y", 2, 2, 1, 1, 0),
        ("vault", "x", 2, 2, 1, 1, 0),
        ("vault", "y", 2, 2, 0, 2, 0),
    ]
    assert taken.report.warnings == (
        "'y' has no known positive in vault, so it cannot be measured there.",
    )


def test_refusals_of_the_manifest_come_first_by_line():
    refusals = [(1000, "z", "late"), (50, "y", "early")]
    taken = intake([row(60, "a"), row(61, "b"), *filler()], same=[(60, 61)], refusals=refusals)
    assert [r.line for r in taken.report.refused] == [50, 60, 61, 1000]
    assert taken.report.rows == 24


def test_segmentation_is_not_scolded_for_lacking_negatives():
    task = Task("segmentation", ("mask",))
    rows = [row(r.line, label=1.0, masks=(f"m/{r.line}.png",)) for r in filler()]
    assert intake(rows, task=task).report.warnings == ()


# --- real data -------------------------------------------------------------------------------


def real(name: str, columns: Columns):
    folder = DATA / name
    if not (folder / "manifest.csv").exists():
        pytest.skip(f"no {name} under READLOOP_DATA ({DATA})")
    manifest = read_manifest(folder / "manifest.csv", columns)
    digests = {
        r.line: hashlib.md5((folder / r.path).read_bytes()).hexdigest() for r in manifest.rows
    }
    return manifest, digests


KERMANY = {"path": "path", "group": "patient_id", "label": "label", "positive": "PNEUMONIA"}


def rates(taken) -> dict[str, tuple[int, float]]:
    return {c.split: (c.items, c.positives / c.items) for c in taken.report.counts}


def test_kermany_drawn_by_patient():
    taken = take_in(*real("kermany", Columns(**KERMANY)), ARCHIVE)
    assert len(taken.items) == 5823
    assert taken.report.duplicates == 31
    assert [r.reason.split("with ")[1] for r in taken.report.refused] == ["two patients"] * 2
    assert len({(i.group, i.split) for i in taken.items}) == len({i.group for i in taken.items})
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        items, rate = rates(taken)[split]
        assert abs(items / 5823 - share) < 0.01
        assert abs(rate - 0.73) < 0.02


def test_kermany_official():
    manifest, digests = real("kermany", Columns(**KERMANY, split="split"))
    with pytest.raises(ImportRefusedError, match="170 patients"):
        take_in(manifest, digests, ARCHIVE)
    policy = Policy(seed=0, archive=True, allow_shared_groups=True)
    taken = take_in(manifest, digests, policy)
    assert len(taken.report.shared_groups) == 170
    assert "has 16 validation items" in taken.report.warnings[1]
    groups = {s: {i.group for i in taken.items if i.split == s} for s in SPLITS}
    assert not groups["train"] & groups["validation"]
    vault = {i.path for i in taken.items if i.split == "vault"}
    assert all(path.startswith("test/") for path in vault)
    assert abs(rates(taken)["validation"][0] / (5823 - len(vault)) - 0.1) < 0.01


def test_nih_multi_label():
    columns = Columns("file", "patient_id", findings_column="finding_labels")
    taken = take_in(*real("nih", columns), ARCHIVE)
    assert (len(taken.items), taken.report.duplicates, taken.report.refused) == (999, 1, ())
    assert len(taken.report.counts) == 3 * 14
    assert np.isfinite(taken.labels).all()
    for count in taken.report.counts:
        if count.finding != "Hernia":  # which stands in too few patients for three splits
            assert count.positives > 0


def test_ham10000_multi_class():
    columns = Columns("image_id", "lesion_id", label="dx", path_template="images/{}.jpg")
    taken = take_in(*real("ham10000", columns), ARCHIVE)
    assert len(taken.items) + taken.report.duplicates + len(taken.report.refused) == 3000
    assert taken.report.warnings == ()


def test_lungseg_segmentation():
    taken = take_in(*real("lungseg", Columns("image", "patientid", masks=("mask",))), ARCHIVE)
    assert len(taken.items) + taken.report.duplicates + len(taken.report.refused) == 322
    assert all(mask.startswith("masks/") for (mask,) in taken.masks)
