"""S2MTS2: the closed form against its definition, its limits, and the queue."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_core.recipes import Pretrain, plan
from ssl_core.recipes.mean_teacher import Consistency
from ssl_core.recipes.s2mts2 import JointContrast, joint_contrastive
from ssl_core.training.models import Output, build_model
from ssl_core.training.objectives import Batch
from ssl_core.training.steps import update_average

QUICK = settings(deadline=None, max_examples=30)


def reference(queries, keys, negatives, tau, influence):
    """The closed form, covariance written out, one query after the other, in float64."""
    losses = []
    for u, q in enumerate(queries):
        mine = keys[:, u]
        mu = mine.mean(axis=0)
        sigma = sum(np.outer(k - mu, k - mu) for k in mine) / len(mine)
        extra = influence / (2 * tau**2) * q @ sigma @ q
        positive = math.exp(q @ mu / tau + extra)
        whole = positive + sum(math.exp(q @ k / tau) for k in negatives)
        losses.append(math.log(whole) - q @ mu / tau)
    return sum(losses) / len(losses)


def unit(rng, *shape):
    z = rng.normal(size=shape)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@QUICK
@given(
    st.integers(1, 5), st.integers(1, 6), st.integers(0, 9), st.floats(0.1, 1.0),
    st.floats(0, 5), st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_closed_form(u, m, k, tau, influence, seed):
    rng = np.random.default_rng(seed)
    queries, keys, negatives = unit(rng, u, 4), unit(rng, m, u, 4), unit(rng, k, 4)
    got = joint_contrastive(*map(torch.tensor, (queries, keys, negatives)), tau, influence)
    assert got.item() == pytest.approx(reference(queries, keys, negatives, tau, influence))
    assert got.item() >= 0


def test_by_hand():
    """q = (1, 0), keys (.6, .8) and (1, 0): μ·q = .8, variance of q·k = .04; one negative at 0."""
    q = torch.tensor([[1.0, 0.0]])
    keys = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]]])
    loss = joint_contrastive(q, keys, torch.tensor([[0.0, 1.0]]), 0.5, 4.0)
    extra = 4.0 / (2 * 0.25) * 0.04
    assert loss.item() == pytest.approx(math.log(math.exp(1.6 + extra) + 1.0) - 1.6)


def test_it_bounds_the_mean_over_infinitely_many_gaussian_positives():
    """At λ = 1 it lies above the expected contrastive loss, and close to it (Jensen)."""
    rng = np.random.default_rng(3)
    q, mu = unit(rng, 3), 0.7 * unit(rng, 3)
    negatives, tau = unit(rng, 5, 3), 0.5
    drawn = mu + 0.3 * rng.normal(size=(200_000, 3))
    scores, others = drawn @ q / tau, np.exp(negatives @ q / tau).sum()
    expected = (np.log(np.exp(scores) + others) - scores).mean()
    keys = torch.tensor(drawn[:, None])
    bound = joint_contrastive(torch.tensor(q)[None], keys, torch.tensor(negatives), tau, 1.0)
    assert expected < bound.item() < expected + 0.1


def test_the_bound_is_nearly_tight_for_a_small_covariance():
    """The gap is Jensen's: where the spread is small, half of it leaves a quarter of the gap."""
    rng = np.random.default_rng(7)
    q, mu, negatives, tau = unit(rng, 6), 0.7 * unit(rng, 6), unit(rng, 9, 6), 0.5
    noise = rng.normal(size=(100_000, 6))
    noise = np.concatenate([noise, -noise])  # their mean is μ to the last bit
    gaps = []
    for spread in (0.3, 0.06, 0.03):
        drawn = mu + spread * noise
        scores, others = drawn @ q / tau, np.exp(negatives @ q / tau).sum()
        expected = np.log1p(others * np.exp(-scores)).mean()
        given = torch.tensor(drawn[:, None]), torch.tensor(negatives)
        gaps.append(joint_contrastive(torch.tensor(q)[None], *given, tau, 1.0).item() - expected)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 1e-3
    assert gaps[1] / gaps[2] == pytest.approx(4, rel=0.05)


def test_it_is_the_two_terms_that_the_authors_code_adds():
    """A cross-entropy whose positive logit has the spread in it, and the spread once more."""
    rng = np.random.default_rng(1)
    q, keys, others = (torch.tensor(unit(rng, *shape)) for shape in ((4, 5), (6, 4, 5), (7, 5)))
    tau, theirs = 0.2, 10.0
    mean = keys.mean(0)
    sigma = torch.einsum("mui,muj->uij", keys - mean, keys - mean) / 6
    spread = theirs * torch.einsum("ui,uij,uj->u", q, sigma, q) / 2
    logits = torch.cat([((q * mean).sum(1) + spread)[:, None], q @ others.T], 1) / tau
    entropy = torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    got = joint_contrastive(q, keys, others, tau, theirs * tau)  # our λ is theirs times τ
    torch.testing.assert_close(got, entropy + spread.mean() / tau)


class Fixed(nn.Module):
    """A network whose projections are its parameter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        assert len(images) == len(self.logits)
        return Output(self.logits, self.logits)


def test_the_objective_by_hand():
    """Queries and keys of other lengths than 1; of the two keys, (.6, .8) and (1, 0)."""
    student, teacher = Fixed([[3.0, 0.0]]), Fixed([[1.2, 1.6], [0.5, 0.0]])
    blank = torch.zeros(1, 1, 2, 2)
    memory = {"keys": torch.tensor([[0.0, 1.0]])}
    material = Batch(blank[:0], torch.zeros(0, 2), False, (blank,) * 3, memory=memory)
    loss = JointContrast(0.5, 4.0)(student, teacher, material)
    extra = 4.0 / (2 * 0.25) * 0.04
    assert loss.item() == pytest.approx(math.log(math.exp(1.6 + extra) + 1.0) - 1.6)
    loss.backward()
    assert student.logits.grad.abs().sum() > 0
    assert teacher.logits.grad is None
    torch.testing.assert_close(memory["keys"], torch.tensor([[0.0, 1.0], [0.8, 0.4]]))


def test_equal_keys_make_it_plain_contrast():
    rng = np.random.default_rng(0)
    q, k, others = (torch.tensor(unit(rng, n, 4)) for n in (3, 3, 8))
    plain = torch.cat([(q * k).sum(1, keepdim=True), q @ others.T], dim=1) / 0.2
    expected = torch.nn.functional.cross_entropy(plain, torch.zeros(3, dtype=torch.long))
    for influence in (0.0, 4.0):
        got = joint_contrastive(q, torch.stack([k, k, k]), others, 0.2, influence)
        torch.testing.assert_close(got, expected)


def views(seed, several=4):
    chance = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(several, 1, 16, 16, generator=chance) for _ in range(3))


def test_the_queue_holds_the_newest_mean_keys():
    student, teacher = (build_model("small_cnn", 8, seed=s) for s in (1, 2))
    objective, memory, expected = JointContrast(queue=10), {}, []
    for step in range(4):
        batch = Batch(torch.zeros(0, 1, 16, 16), torch.zeros(0, 8), False, views(step), None,
                      memory=memory)  # fmt: skip
        objective(student, teacher, batch)
        with torch.no_grad():
            keys = [teacher.eval()(view).logits for view in batch.views[1:]]
            expected.append(sum(torch.nn.functional.normalize(k, dim=1) for k in keys) / 2)
        assert len(memory["keys"]) == min(10, 4 * (step + 1))
    torch.testing.assert_close(memory["keys"], torch.cat(expected)[-10:])
    assert not memory["keys"].requires_grad


def test_the_queue_repels():
    student, teacher = (build_model("small_cnn", 8, seed=s) for s in (1, 2))
    material = Batch(torch.zeros(0, 1, 16, 16), torch.zeros(0, 8), False, views(0))
    first, second = (JointContrast()(student, teacher, material) for _ in range(2))
    assert second > first + 0.5  # now with four keys to be told from


def test_the_teachers_momentum_is_the_same_from_the_first_step():
    schedule = plan({"name": "s2mts2"}).stages[0].schedule
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    teacher.weight.data.fill_(1.0)
    student.weight.data.fill_(0.0)
    for step in range(3):
        update_average(teacher, student, schedule.ema, step, schedule.ema_warmup)
        assert teacher.weight.item() == pytest.approx(0.999 ** (step + 1))


def test_the_recipe_is_pretrain_and_mean_teacher():
    made = plan({"name": "s2mts2", "keys": 3, "queue": 77, "weight": 2.0})
    pretrain, student = made.stages
    assert isinstance(pretrain, Pretrain)
    assert pretrain.objective == JointContrast(0.2, 4.0, 77)
    assert len(pretrain.views) == 4
    assert (pretrain.schedule.ema, pretrain.schedule.keep_average) == (0.999, False)
    assert (student.start, student.neck) == ("pretrained", 0)
    assert student.objective == Consistency(2.0, 0.3)
    assert student.schedule.ema > 0
