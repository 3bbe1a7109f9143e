"""SimCLRv2 by hand: NT-Xent against loops, distillation, and networks that hand features on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_core.errors import ConfigError
from ssl_core.pictures.activation import class_activation
from ssl_core.recipes import Fit, Pretrain, plan
from ssl_core.recipes.simclr_v2 import Contrast, Distil, nt_xent
from ssl_core.training.models import Output, build_model, load_model, save_model, with_new_head
from ssl_core.training.objectives import Batch

QUICK = settings(deadline=None, max_examples=30)


def reference(one, other, temperature):
    """Eq. 1 as it is printed: sums over k ≠ i, one pair after the other, in float64."""
    z = [v / np.linalg.norm(v) for v in np.concatenate([one, other]).astype(np.float64)]
    n, losses = len(one), []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        parts = [math.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        losses.append(-math.log(math.exp(z[i] @ z[j] / temperature) / sum(parts)))
    return sum(losses) / len(losses)


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        assert len(images) == len(self.logits)
        return Output(self.logits, self.logits)


def batch(several, views, *, exclusive=False):
    blank = torch.zeros(several, 1, 2, 2)
    return Batch(blank[:0], torch.zeros(0, 2), exclusive, (blank,) * views)


@QUICK
@given(st.integers(1, 7), st.integers(1, 9), st.floats(0.05, 2.0), st.integers(0, 99))
def test_nt_xent_is_the_reference(n, width, temperature, seed):
    one, other = np.random.default_rng(seed).normal(size=(2, n, width))
    got = nt_xent(torch.tensor(one), torch.tensor(other), temperature)
    assert got.item() == pytest.approx(reference(one, other, temperature), rel=1e-4, abs=1e-5)


def test_nt_xent_by_hand():
    """Two images whose views agree and which are at right angles: -log(e^2 / (e^2 + 2))."""
    z = torch.eye(2)
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert nt_xent(z, 3 * z, 0.5).item() == pytest.approx(expected)
    assert nt_xent(z[:1], z[1:], 0.1).item() == 0  # nothing to be told from


def test_contrast_shows_the_student_both_views_at_once():
    student = Fixed([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
    loss = Contrast(0.5)(student, None, batch(2, 2))
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)))
    loss.backward()
    assert student.logits.grad.isfinite().all()


def test_distillation_of_classes_by_hand():
    student, teacher = Fixed([[0.1, 0.3]]), Fixed([[0.2, 0.0]])
    loss = Distil(0.1)(student, teacher, batch(1, 1, exclusive=True))
    told = math.exp(2) / (math.exp(2) + 1)
    norm = math.log(math.exp(1) + math.exp(3))
    assert loss.item() == pytest.approx(-(told * (1 - norm) + (1 - told) * (3 - norm)), rel=1e-5)
    loss.backward()
    assert teacher.logits.grad is None


def test_distillation_of_findings_by_hand():
    """Two findings, each a binary cross-entropy of its own; the mean over both."""
    student, teacher = Fixed([[0.5, -1.0]]), Fixed([[1.0, 0.0]])
    loss = Distil(0.5)(student, teacher, batch(1, 1))
    told = 1 / (1 + math.exp(-2))
    first = told * math.log1p(math.exp(-1)) + (1 - told) * math.log1p(math.exp(1))
    second = 0.5 * math.log1p(math.exp(2)) + 0.5 * math.log1p(math.exp(-2))
    assert loss.item() == pytest.approx((first + second) / 2)
    loss.backward()
    assert teacher.logits.grad is None
    apart = 1 / (1 + math.exp(-1)) - told
    assert student.logits.grad[0, 0].item() == pytest.approx(apart / 2 / 0.5)  # 2 findings, 1 / τ


def test_distillation_looks_at_no_label():
    told = [
        Distil()(Fixed([[0.5, -1.0]]), Fixed([[1.0, 0.0]]), replace(batch(1, 1), targets=targets))
        for targets in (torch.zeros(0, 2), torch.ones(1, 2))
    ]
    assert torch.equal(*told)


def test_distillation_of_findings_is_least_where_both_agree():
    teacher = Fixed([[0.2, -0.1], [0.0, 0.4]])
    same, other = Fixed(teacher.logits.tolist()), Fixed([[0.3, -0.1], [0.0, 0.4]])
    best, worse = (Distil(0.5)(s, teacher, batch(2, 1)) for s in (same, other))
    assert worse > best
    best.backward()
    torch.testing.assert_close(same.logits.grad, torch.zeros(2, 2), atol=1e-6, rtol=0)


# --- networks with a projection head ---------------------------------------------------------


def test_a_neck_does_not_disturb_what_is_drawn_without_one():
    plain, necked = build_model("small_cnn", 3, seed=4), build_model("small_cnn", 3, seed=4, neck=2)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, necked.state_dict()[key])
    assert len(plain.neck) == 0
    assert len(necked.neck) == 6


def test_a_new_head_begins_with_the_first_hidden_layers(tmp_path):
    features = build_model("small_cnn", 128, seed=1, neck=2)
    for kept in (0, 1, 2):
        fresh = with_new_head(features, 3, neck=kept, seed=9)
        assert fresh.head.out_features == 3
        state, theirs = fresh.state_dict(), features.state_dict()
        shared = [key for key in state if not key.startswith("head.")]
        assert sum(key.endswith("running_mean") for key in shared if "neck" in key) == kept
        assert all(torch.equal(state[key], theirs[key]) for key in shared)
        path = tmp_path / f"{save_model(fresh, tmp_path)}.safetensors"
        images = torch.rand(2, 1, 16, 16)
        assert torch.equal(load_model(path, "small_cnn", 3)(images)[0], fresh.eval()(images)[0])
    with pytest.raises(ConfigError, match="fewer than 3 hidden layers"):
        with_new_head(features, 3, neck=3, seed=0)


def test_features_are_what_the_head_is_linear_in():
    model = build_model("small_cnn", 3, neck=1).eval()
    logits, features = model(torch.rand(4, 1, 16, 16))
    torch.testing.assert_close(model.head(features), logits)


# --- the recipe ------------------------------------------------------------------------------


def test_the_recipe_is_pretrain_finetune_distil():
    made = plan({"name": "simclr_v2", "student_backbone": "resnet18"})
    pretrain, finetuned, student = made.stages
    assert isinstance(pretrain, Pretrain)
    assert pretrain.objective == Contrast(0.1)
    assert (pretrain.schedule.optimizer, pretrain.schedule.rate) == ("lars", "cosine")
    assert (pretrain.schedule.learning_rate, pretrain.schedule.weight_decay) == (0.2, 1e-4)
    assert pretrain.layers + 1 == 3
    assert {view.crop for view in pretrain.views} == {(0.5, 1.0)}
    assert isinstance(finetuned, Fit)
    assert (finetuned.start, finetuned.neck) == ("pretrained", 1)
    assert (student.on, student.teacher, student.backbone) == (None, "finetuned", "resnet18")
    assert student.objective == Distil(0.1)


def test_a_network_with_a_neck_has_no_closed_form_map():
    model = build_model("small_cnn", 2, neck=1)
    with pytest.raises(ConfigError, match="does not end in global pooling"):
        class_activation(model, np.zeros((1, 1, 16, 16), np.uint8))
