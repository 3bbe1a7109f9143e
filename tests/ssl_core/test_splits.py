from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.errors import ImportRefusedError
from ssl_core.records import SPLITS
from ssl_core.splits import OFFICIAL_WORDS, draw_splits, keep_official

NAN = math.nan


def split_of_group(groups, splits) -> dict[str, str]:
    return dict(zip(groups, splits, strict=True))


@st.composite
def cohorts(draw, most_findings=4, values=(0.0, 1.0, NAN)):
    """Groups of items, with labels `(N, C)`, of at least three patients."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=3, max_size=25))
    groups = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    width = draw(st.integers(1, most_findings))
    cells = st.lists(st.sampled_from(values), min_size=width, max_size=width)
    rows = draw(st.lists(cells, min_size=len(groups), max_size=len(groups)))
    return groups, np.array(rows, dtype=float).reshape(len(groups), width)


# --- laws ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(cohorts(), st.integers(0, 2**32))
def test_groups_never_cross_and_no_split_is_empty(cohort, seed):
    groups, labels = cohort
    splits = draw_splits(groups, labels, seed=seed)
    assert len(splits) == len(groups)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert set(splits) == set(SPLITS)


@settings(max_examples=60)
@given(cohorts(), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(cohort, seed, random):
    groups, labels = cohort
    order = list(range(len(groups)))
    random.shuffle(order)
    shuffled = [groups[i] for i in order]
    assert split_of_group(groups, draw_splits(groups, labels, seed=seed)) == split_of_group(
        shuffled, draw_splits(shuffled, labels[order], seed=seed)
    )


def test_same_seed_same_splits_other_seed_others():
    groups = [f"p{i // 2}" for i in range(200)]
    labels = np.zeros((200, 1))
    assert draw_splits(groups, labels, seed=1) == draw_splits(groups, labels, seed=1)
    assert draw_splits(groups, labels, seed=1) != draw_splits(groups, labels, seed=2)


def test_global_randomness_is_left_alone():
    groups = [f"p{i}" for i in range(50)]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_splits(groups, np.zeros((50, 1)), seed=0)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@given(
    st.integers(3, 400),
    st.sampled_from([(0.1, 0.2), (0.2, 0.2), (0.05, 0.5), (0.3, 0.0), (0.0, 0.25)]),
    st.integers(0, 1000),
)
def test_shares_of_single_items_are_met_within_three(n, shares, seed):
    validation, vault = shares
    groups = [f"p{i}" for i in range(n)]
    splits = draw_splits(groups, np.zeros((n, 1)), validation=validation, vault=vault, seed=seed)
    counts = Counter(splits)
    assert abs(counts["validation"] - validation * n) <= 3
    assert abs(counts["vault"] - vault * n) <= 3


def test_items_and_rates_of_unequal_groups_come_close():
    rng = np.random.default_rng(5)
    sizes = rng.geometric(0.4, 300)
    groups = [f"p{i}" for i in np.repeat(np.arange(300), sizes)]
    sick = np.repeat(rng.random((300, 2)) < [0.3, 0.05], sizes, axis=0).astype(float)
    for seed in range(40):
        splits = np.array(draw_splits(groups, sick, seed=seed))
        for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
            here = splits == split
            # One patient of the largest size (here 15 items of 749) may tip either way.
            assert abs(here.mean() - share) < 0.03
            rates = sick[here].mean(axis=0) - sick.mean(axis=0)
            assert np.abs(rates).max() < 0.12


def test_closer_than_drawing_at_random():
    rng = np.random.default_rng(3)
    groups = [f"p{i // 2}" for i in range(600)]
    sick = np.repeat(rng.random((300, 3)) < [0.3, 0.1, 0.5], 2, axis=0).astype(float)
    errors = {"drawn": [], "random": []}
    for seed in range(60):
        drawn = np.array(draw_splits(groups, sick, seed=seed)) == "vault"
        random = np.repeat(rng.permutation(300) < 60, 2)
        for name, vault in (("drawn", drawn), ("random", random)):
            errors[name].append(sick[vault].mean(axis=0) - sick.mean(axis=0))
    spread = {name: np.sqrt(np.mean(np.square(each), axis=0)) for name, each in errors.items()}
    assert (spread["drawn"] < 0.5 * spread["random"]).all()


def test_every_patient_has_the_same_chance_of_the_vault():
    """Unbiased: over seeds the vault holds a rare, a large and a plain patient alike."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 60)
    groups = [f"p{i:02}" for i, size in enumerate(sizes) for _ in range(size)]
    labels = (rng.random((len(groups), 2)) < [0.4, 0.15]).astype(float)
    seeds = 1500
    entered: Counter[tuple[str, str]] = Counter()
    for seed in range(seeds):
        entered.update(set(zip(groups, draw_splits(groups, labels, seed=seed), strict=True)))
    for split, share in (("validation", 0.1), ("vault", 0.2)):
        rates = np.array([entered[group, split] / seeds for group in sorted(set(groups))])
        # Four standard errors, and a little for the rare groups that are moved in.
        assert np.abs(rates - share).max() < 4 * math.sqrt(share * (1 - share) / seeds) + 0.01


# --- rare findings ---------------------------------------------------------------------------


@given(st.integers(3, 6), st.integers(0, 60), st.integers(0, 500))
def test_a_rare_finding_stands_in_every_split(rare, plain, seed):
    groups = [f"p{i}" for i in range(rare + plain)]
    labels = np.array([[1.0]] * rare + [[0.0]] * plain).reshape(-1, 1)
    splits = np.array(draw_splits(groups, labels, seed=seed))
    assert set(splits[labels[:, 0] == 1]) == set(SPLITS)
    if plain >= 3:
        assert set(splits[labels[:, 0] == 0]) == set(SPLITS)


@given(st.lists(st.integers(3, 8), min_size=2, max_size=6), st.integers(0, 500))
def test_every_class_stands_in_every_split(sizes, seed):
    classes = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.eye(len(sizes))[classes]
    splits = np.array(draw_splits([f"p{i}" for i in range(len(classes))], labels, seed=seed))
    for each in range(len(sizes)):
        assert set(splits[classes == each]) == set(SPLITS)


@settings(max_examples=60)
@given(cohorts(most_findings=1, values=(0.0, 1.0)), st.integers(0, 500))
def test_the_rarer_side_of_a_finding_stands_in_every_split_of_mixed_groups(cohort, seed):
    groups, labels = cohort
    splits = draw_splits(groups, labels, seed=seed)
    sizes = Counter(groups)
    if max(sizes.values()) > 2 * len(groups) / len(sizes):
        return  # a large group stays in train, whatever it holds
    holders = {
        value: {g for g, row in zip(groups, labels, strict=True) if row[0] == value}
        for value in (1.0, 0.0)
    }
    rarer = min(holders.values(), key=len)
    if len(rarer) >= 3:
        by_group = split_of_group(groups, splits)
        assert {by_group[group] for group in rarer} == set(SPLITS)


def test_fewer_positive_groups_than_splits_do_not_fail():
    groups = [f"p{i}" for i in range(20)]
    labels = np.zeros((20, 2))
    labels[:2, 0] = 1
    labels[:, 1] = NAN
    assert set(draw_splits(groups, labels, seed=0)) == set(SPLITS)


# --- edges -----------------------------------------------------------------------------------


def test_three_groups_take_one_split_each():
    for seed in range(20):
        splits = draw_splits(["a", "b", "c"], np.array([[1.0], [0.0], [NAN]]), seed=seed)
        assert sorted(splits) == sorted(SPLITS)


def test_a_very_large_patient_stays_in_train():
    groups = ["big"] * 100 + [f"p{i}" for i in range(40)]
    for seed in range(20):
        by_group = split_of_group(groups, draw_splits(groups, np.zeros((140, 1)), seed=seed))
        assert by_group["big"] == "train"
    groups = ["big"] * 100 + ["a", "b"]
    by_group = split_of_group(groups, draw_splits(groups, np.zeros((102, 1)), seed=0))
    assert by_group["big"] == "train"
    assert {by_group["a"], by_group["b"]} == {"validation", "vault"}


def test_equal_groups_are_never_too_large():
    """Each of nine groups exceeds validation's share; none of them is bound to train."""
    groups = [f"p{i}" for i in range(9) for _ in range(2)]
    labels = np.zeros((18, 1))
    drawn = {draw_splits(groups, labels, seed=seed)[0] for seed in range(60)}
    assert drawn == set(SPLITS)


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "b"], ["a", "a", "b", "b"]])
def test_fewer_than_three_patients_are_refused(groups):
    n = len(set(groups))
    with pytest.raises(ImportRefusedError, match=f"{n} patients cannot fill 3 splits"):
        draw_splits(groups, np.zeros((len(groups), 1)), seed=0)


def test_a_share_of_zero_leaves_its_split_out():
    splits = draw_splits(["a", "b"], np.zeros((2, 1)), vault=0.0, seed=0)
    assert sorted(splits) == ["train", "validation"]
    assert draw_splits(["a"], np.zeros((1, 1)), validation=0.0, vault=0.0, seed=0) == ["train"]


@pytest.mark.parametrize(
    ("labels", "shares"),
    [
        (np.zeros(3), {}),
        (np.zeros((4, 1)), {}),
        (np.zeros((3, 1)), {"validation": -0.1}),
        (np.zeros((3, 1)), {"validation": 0.5, "vault": 0.5}),
        (np.zeros((3, 1)), {"vault": 1.0}),
        (np.zeros((3, 1)), {"vault": NAN}),
    ],
)
def test_wrong_shapes_and_shares_are_errors(labels, shares):
    with pytest.raises(ValueError, match=r"labels|shares"):
        draw_splits(["a", "b", "c"], labels, **shares, seed=0)


# --- official splits -------------------------------------------------------------------------


def official(train=40, validation=60, vault=20):
    splits = ["train"] * train + ["validation"] * validation + ["vault"] * vault
    groups = [f"p{i}" for i in range(len(splits))]
    labels = np.array([[float(i % 2)] for i in range(len(splits))])
    return splits, groups, labels


def test_words_cover_the_splits():
    assert set(OFFICIAL_WORDS.values()) == set(SPLITS)
    assert all(word == word.casefold() for word in OFFICIAL_WORDS)


def test_a_full_official_split_is_kept_as_it_is():
    splits, groups, labels = official()
    assert keep_official(splits, groups, labels, seed=0) == (splits, ())


@pytest.mark.parametrize("n", [0, 16, 49])
def test_a_small_validation_is_drawn_anew_from_train(n):
    splits, groups, labels = official(train=100, validation=n)
    kept, shared = keep_official(splits, groups, labels, seed=0)
    assert shared == ()
    assert [s == "vault" for s in kept] == [s == "vault" for s in splits]
    assert abs(kept.count("validation") - 0.1 * (100 + n)) <= 3
    assert keep_official(splits, groups, labels, seed=0)[0] == kept


def test_the_floor_is_an_argument():
    splits, groups, labels = official(validation=16)
    assert keep_official(splits, groups, labels, smallest_validation=16, seed=0)[0] == splits


def test_shared_patients_are_refused_by_name():
    splits, groups, labels = official()
    groups[-1] = groups[0]
    with pytest.raises(ImportRefusedError, match=r"1 patients .*\('p0'\)"):
        keep_official(splits, groups, labels, seed=0)
    groups[-1] = "\x1b[2J"
    groups[0] = "\x1b[2J"
    with pytest.raises(ImportRefusedError) as caught:
        keep_official(splits, groups, labels, seed=0)
    assert str(caught.value).isprintable()


def test_allowed_shared_patients_are_counted_and_the_rest_is_kept():
    splits, groups, labels = official()
    groups[-1] = groups[-2] = groups[0]
    groups[-3] = groups[50]
    kept, shared = keep_official(splits, groups, labels, allow_shared_groups=True, seed=0)
    assert kept == splits
    assert shared == ("p0", "p50")


def test_patients_of_a_small_validation_may_also_stand_in_train():
    splits, groups, labels = official(validation=10)
    groups[40] = groups[0]
    kept, shared = keep_official(splits, groups, labels, seed=0)
    assert shared == ()
    assert kept[40] == kept[0]


@given(st.integers(0, 500))
def test_drawn_validation_shares_no_patient_with_train(seed):
    splits, _, labels = official(validation=5)
    groups = [f"p{i % 13}" for i in range(len(splits))]
    kept, _ = keep_official(splits, groups, labels, allow_shared_groups=True, seed=seed)
    found = {s: {g for g, k in zip(groups, kept, strict=True) if k == s} for s in SPLITS}
    assert found["validation"]
    assert not found["validation"] & found["train"]


@pytest.mark.parametrize(("missing", "word"), [("train", "train"), ("vault", "test")])
def test_an_official_split_needs_train_and_test(missing, word):
    splits, groups, labels = official(**{missing: 0})
    with pytest.raises(ImportRefusedError, match=f"no {word} items"):
        keep_official(splits, groups, labels, seed=0)
