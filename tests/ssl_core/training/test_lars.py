"""LARS against a reference written apart from it, in numpy."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from ssl_core.training.lars import Lars
from tests.training import network, schedule, train, weights


def reference(weight, gradients, *, lr, momentum, decay, trust):
    """Every step of one parameter, in float64: momentum on moves that are already scaled."""
    w, v, path = np.array(weight, float), np.zeros(np.shape(weight)), []
    for g in gradients:
        rate = lr
        if w.ndim > 1:
            g = g + decay * w
            sizes = np.linalg.norm(w), np.linalg.norm(g)
            if min(sizes) > 0:
                rate = lr * trust * sizes[0] / sizes[1]
        v = momentum * v + rate * g
        w = w - v
        path.append(w.copy())
    return path


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3, 3), (5,), (1, 1)])
@pytest.mark.parametrize("start", ["random", "zero"])
def test_it_is_the_reference(shape, start):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape) if start == "random" else np.zeros(shape)
    gradients = [rng.normal(size=shape) for _ in range(6)]
    gradients[3][:] = 0.0
    settings = {"lr": 0.3, "momentum": 0.9, "trust": 0.02}
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimizer = Lars([parameter], weight_decay=0.1, **settings)
    for g, expected in zip(gradients, reference(weight, gradients, decay=0.1, **settings),
                           strict=True):  # fmt: skip
        parameter.grad = torch.tensor(g)
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_one_step_by_hand():
    """|w| = 5, g' = g + .1 w = (.3, -.6) + ...: the layer's rate is .001 * 5 / |g'|."""
    w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    w.grad = torch.tensor([[0.0, 0.6]])
    Lars([w], lr=2.0, weight_decay=0.1).step()
    size = (0.3**2 + 1.0**2) ** 0.5
    move = 2.0 * 0.001 * 5 / size
    torch.testing.assert_close(w.detach(), torch.tensor([[3 - move * 0.3, 4 - move * 1.0]]))


def test_a_network_follows_the_reference_while_its_rate_changes():
    """Several layers at once: each has a rate of its own, and the schedule's changes every step."""
    chance = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3),
        torch.nn.BatchNorm2d(3),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 2),
    ).double()
    images, targets = torch.rand(6, 1, 4, 4, generator=chance).double(), torch.arange(6) % 2
    optimizer = Lars(model.parameters(), lr=1.0, weight_decay=0.2, trust=0.05)
    kept = [(p.detach().numpy().copy(), np.zeros(p.shape)) for p in model.parameters()]
    for rate in (0.1, 0.5, 0.9, 0.3, 0.0):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), targets).backward()
        for i, (p, (w, v)) in enumerate(zip(model.parameters(), kept, strict=True)):
            g, own = p.grad.numpy(), 1.0
            if p.ndim > 1:
                g = g + 0.2 * w
                own = 0.05 * np.sqrt((w**2).sum()) / np.sqrt((g**2).sum())
            v = 0.9 * v + rate * own * g
            kept[i] = (w - v, v)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        for p, (w, _) in zip(model.parameters(), kept, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-8, atol=1e-12)


def test_the_layers_rate_is_that_of_the_decayed_gradient():
    """SimCLR's code, not You et al.'s sum of two norms: where both cancel, a layer moves on."""
    w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    w.grad = torch.tensor([[-0.3, -0.3]])
    Lars([w], lr=1.0, weight_decay=0.1).step()  # g' = (0, .1): |w| / |g'| = 50, not 5 / .92
    torch.testing.assert_close(w.detach(), torch.tensor([[3.0, 4.0 - 0.001 * 50 * 0.1]]))


def test_its_state_survives_save_and_load():
    moves = [torch.randn(2, 3, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    whole, halved = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimizer, first = Lars([whole]), Lars([halved])
    for move in moves:
        whole.grad = move
        optimizer.step()
    for move in moves[:2]:
        halved.grad = move
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Lars([halved])
    second.load_state_dict(torch.load(file, weights_only=True))
    for move in moves[2:]:
        halved.grad = move
        second.step()
    assert torch.equal(whole, halved)


def test_what_has_no_gradient_stays():
    w = torch.nn.Parameter(torch.ones(2, 2))
    Lars([w]).step()
    assert torch.equal(w, torch.ones(2, 2))


def test_norms_and_biases_are_not_decayed_in_the_loop():
    """With a learning signal of zero only the weights of layers shrink."""
    model = network()
    before = weights(model)

    def silent(student, teacher, batch):
        return student(batch.images).logits.sum() * 0.0

    plan = schedule(optimizer="lars", learning_rate=1.0, weight_decay=0.1, epochs=1)
    train(model, plan, objective=silent)
    for name, parameter in model.named_parameters():
        shrunk = bool((parameter.abs() < before[name].abs()).any())
        assert shrunk == (parameter.ndim > 1), name
