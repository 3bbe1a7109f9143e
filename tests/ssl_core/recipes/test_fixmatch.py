"""FixMatch by hand: alignment, thresholds, and what a confident weak view teaches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_core.recipes import plan
from ssl_core.recipes.fixmatch import (
    REMEMBERED,
    Consistency,
    align,
    pseudo_labels,
    running_mean,
    two_sided,
)
from ssl_core.training.models import Output
from ssl_core.training.objectives import Batch, supervised

NAN = math.nan
QUICK = settings(deadline=None, max_examples=50)


def softplus(x):
    return math.log1p(math.exp(x))


def logit(p):
    return math.log(p / (1 - p))


class Fixed(nn.Module):
    """A student whose logits are its parameter: of labeled, weak and strong images in turn."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        assert len(images) == len(self.logits)  # one pass for everything
        return Output(self.logits, self.logits)


def batch(targets, unlabeled, *, exclusive=False, prior=None):
    blank = torch.zeros(unlabeled, 1, 2, 2)
    return Batch(
        torch.zeros(len(targets), 1, 2, 2),
        torch.tensor(targets),
        exclusive,
        (blank, blank),
        None if prior is None else torch.tensor(prior),
    )


# --- the loss --------------------------------------------------------------------------------


def test_a_binary_finding_by_hand():
    """Labeled 1.0; weak views sure of present, unsure, sure of absent; what strong ones say."""
    student = Fixed([[1.0], [5.0], [0.5], [-4.0], [0.3], [2.0], [-1.0]])
    loss = Consistency(0.95, weight=2.0)(student, None, batch([[1.0]], 3))
    unlabeled = (softplus(-0.3) + softplus(-1.0)) / 3  # by all three, as Eq. 4 has it
    assert loss.item() == pytest.approx(softplus(-1.0) + 2.0 * unlabeled)
    loss.backward()
    assert (student.logits.grad[1:4] == 0).all()  # no gradient through the weak views
    assert student.logits.grad[5] == 0  # nor to the strong view of an unsure one


def test_classes_by_hand():
    student = Fixed([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [1.0, 0.0, 0.0],
                     [1.0, 2.0, 0.0], [5.0, 0.0, 0.0]])  # fmt: skip
    loss = Consistency(0.95)(student, None, batch([[NAN] * 3], 2, exclusive=True))
    strong = math.log(math.exp(1) + math.exp(2) + 1) - 1
    assert loss.item() == pytest.approx(strong / 2)


def test_without_a_confident_view_it_is_supervised():
    student = Fixed([[1.0], [0.1], [0.2], [3.0], [3.0]])
    assert Consistency()(student, None, batch([[NAN]], 2)).item() == 0
    loss = Consistency()(student, None, batch([[0.0]], 2))
    assert loss.item() == pytest.approx(softplus(1.0))
    alone = Fixed([[1.0]])
    plain = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([[0.0]]), False)
    assert torch.equal(Consistency()(alone, None, plain), supervised(alone, None, plain))


def test_alignment_changes_what_is_confident():
    """All say "present" at .96; where half of them are expected to be, that says nothing."""
    student = Fixed([[1.0], *[[logit(0.96)]] * 2, [0.0], [0.0]])
    material = batch([[NAN]], 2, prior=[0.5])
    assert Consistency(align=False)(student, None, material).item() == pytest.approx(math.log(2))
    assert Consistency(align=True)(student, None, material).item() == 0  # aligned to .5


# --- alignment -------------------------------------------------------------------------------


def test_alignment_of_classes_by_hand():
    q = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    got = align(q, torch.tensor([0.5, 0.5]), torch.tensor([0.7, 0.3]), exclusive=True)
    first = (0.8 * 0.5 / 0.7) / (0.8 * 0.5 / 0.7 + 0.2 * 0.5 / 0.3)
    second = (0.6 * 0.5 / 0.7) / (0.6 * 0.5 / 0.7 + 0.4 * 0.5 / 0.3)
    torch.testing.assert_close(got, torch.tensor([[first, 1 - first], [second, 1 - second]]))


def test_a_binary_finding_is_aligned_as_its_two_classes():
    p, prior, mean = torch.tensor([[0.8], [0.1]]), torch.tensor([0.3]), torch.tensor([0.45])
    pair = align(
        torch.cat([p, 1 - p], 1),
        torch.cat([prior, 1 - prior]),
        torch.cat([mean, 1 - mean]),
        exclusive=True,
    )
    torch.testing.assert_close(align(p, prior, mean, exclusive=False), pair[:, :1])


@pytest.mark.parametrize("exclusive", [False, True])
def test_where_predictions_have_the_priors_shares_nothing_changes(exclusive):
    q = torch.tensor([[0.7, 0.3], [0.1, 0.9]])
    mean = torch.tensor([0.4, 0.6])
    torch.testing.assert_close(align(q, mean, mean, exclusive=exclusive), q)


def test_an_unknown_prior_aligns_nothing():
    q, mean = torch.tensor([[0.7, 0.3]]), torch.tensor([0.5, 0.5])
    prior = torch.tensor([0.9, NAN])
    assert torch.equal(align(q, prior, mean, exclusive=True), q)
    got = align(q, prior, mean, exclusive=False)
    assert got[0, 1] == q[0, 1]
    assert got[0, 0] > q[0, 0]


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0, 1), st.floats(0, 1))
def test_what_is_aligned_stays_a_probability(q, prior, mean):
    told = align(
        torch.tensor(q)[:, None], torch.tensor([prior]), torch.tensor([mean]), exclusive=False
    )
    assert ((told >= 0) & (told <= 1)).all()


def test_the_running_mean_is_that_of_the_last_128_batches():
    one = Batch(torch.zeros(0, 1, 2, 2), torch.zeros(0, 1), False)
    means = []
    for step in range(REMEMBERED + 10):
        value = (step % 7) / 7
        means.append(value)
        got = running_mean(torch.tensor([[value - 0.1], [value + 0.1]]), one)
        last = means[-REMEMBERED:]
        assert got.item() == pytest.approx(sum(last) / len(last), abs=1e-6)
    assert one.memory["predictions"].shape == (REMEMBERED, 1)


# --- thresholds ------------------------------------------------------------------------------


def test_two_sided_thresholds_by_hand():
    low, high = two_sided(0.9, torch.tensor([0.5, 0.1, 0.75, NAN]))
    torch.testing.assert_close(low, torch.tensor([0.1, 0.02, 0.1, NAN]), equal_nan=True)
    torch.testing.assert_close(high, torch.tensor([0.9, 0.9, 0.95, NAN]), equal_nan=True)


def test_each_finding_is_kept_on_its_own():
    q = torch.tensor([[0.95, 0.05, 0.5], [0.05, 0.01, 0.999]])
    got = pseudo_labels(q, 0.9, torch.tensor([0.5, 0.1, NAN]), exclusive=False)
    expected = torch.tensor([[1.0, NAN, NAN], [0.0, 0.0, NAN]])
    torch.testing.assert_close(got, expected, equal_nan=True)


def test_a_class_is_kept_at_the_threshold():
    q = torch.tensor([[0.95, 0.05], [0.94, 0.06]])
    got = pseudo_labels(q, 0.95, None, exclusive=True)
    torch.testing.assert_close(got, torch.tensor([[1.0, 0.0], [NAN, NAN]]), equal_nan=True)


@QUICK
@given(st.floats(0.5, 1), st.floats(0, 1))
def test_present_and_absent_never_overlap(threshold, prior):
    low, high = two_sided(threshold, torch.tensor([prior]))
    assert 0 <= low <= 0.5 <= high <= 1


# --- the recipe ------------------------------------------------------------------------------


def test_parameters_reach_the_stage():
    made = plan({"name": "fixmatch", "threshold": 0.8, "ratio": 2, "align": False, "weight": 3.0})
    (stage,) = made.fits
    assert stage.objective == Consistency(0.8, 3.0, False)
    assert stage.ratio == 2
    assert stage.views[0] == made.augmentation != stage.views[1]
    assert stage.schedule.rate == "cosine"
