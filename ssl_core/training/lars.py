"""LARS: layer-wise adaptive rates, for the large batches of contrastive learning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Lars(Optimizer):
    """LARS with classic momentum (You et al. 2017, Algorithm 1), as the code of SimCLR has it.

    Of a weight w with gradient g: g' = g + β·w; v ← m·v + γ·λ·g' with the layer's own rate
    λ = η·|w| / |g'|; w ← w - v. You et al. divide by |g| + β·|w| instead, which is at least as
    much. λ is 1 where |w| or |g'| is 0. Biases and the scales of norms (one dimension) get neither
    weight decay nor a rate of their own: λ = 1 and β = 0. That too is the code's (Chen et al. 2020,
    "A Simple Framework for Contrastive Learning"), as is η.

    Args:
        params: parameters, or groups of them.
        lr: γ > 0.
        momentum: m in [0, 1).
        weight_decay: β ≥ 0.
        trust: η > 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.2,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        trust: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; the closure is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, rate = parameter.grad, torch.ones_like(parameter[..., :0].sum())
        assert gradient is not None
        if parameter.ndim > 1:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
            weight, size = parameter.norm(), gradient.norm()
            own = group["trust"] * weight / size
            rate = torch.where((weight > 0) & (size > 0), own, rate)
        state = self.state[parameter]
        if "speed" not in state:
            state["speed"] = torch.zeros_like(parameter)
        speed = state["speed"]
        speed.mul_(group["momentum"]).add_(gradient * rate * group["lr"])
        parameter.sub_(speed)
