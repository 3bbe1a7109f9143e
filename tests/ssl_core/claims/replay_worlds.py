"""Worlds in which strategies are replayed: true learning curves, luck of seeds and of test cases.

A history costs no training: AUROC is the true curve, plus the luck of the test patients (shared by
all seeds, with the influences that an analyst would see), plus the luck of every seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_core.claims.savings import Paths

BUDGETS = np.array([50.0, 100.0, 200.0, 400.0, 800.0])
CURVES = {
    "power": lambda n: 0.95 - 1.2 * n**-0.45,
    "slow power": lambda n: 0.99 - 0.65 * n**-0.2,
    "late": lambda n: 0.95 - 2.0 * (n + 100) ** -0.5,
    "logistic": lambda n: 1 / (1 + np.exp(-(0.4 * np.log(n / 50) + 1.0))),
    "logarithm": lambda n: 0.70 + 0.035 * np.log(n / 50),
}


@dataclass(frozen=True)
class World:
    """`faster`: the strategy has at n labels what the control has at `faster` times n.

    `seeds`, and standard deviations of a seed's luck (`luck`, at the first budget), with `nested`
    its correlation between neighbouring budgets, and of the test cases' luck (`cases`), of which
    the share `alike` is the same for both strategies and all budgets. `heavy` gives seeds Student's
    t with 4 degrees of freedom instead of a normal.
    """

    faster: float = 2.0
    seeds: int = 3
    luck: float = 0.015
    nested: float = 0.5
    cases: float = 0.01
    alike: float = 0.7
    heavy: bool = False
    curve: str = "power"
    groups: int = 60

    def truth(self, budgets=BUDGETS):
        """The true AUROC of strategy and control."""
        made = CURVES[self.curve]
        return made(budgets * self.faster), made(budgets)

    def draw(self, rng: np.random.Generator) -> tuple[Paths, Paths]:
        """One replay: the strategy's paths and the control's."""
        size, budgets = 2 * len(BUDGETS), len(BUDGETS)
        shared = rng.standard_normal((self.groups, 1)) * np.sqrt(self.alike)
        own = rng.standard_normal((self.groups, size)) * np.sqrt(1 - self.alike)
        per = (shared + own) * self.cases / np.sqrt(self.groups)
        influence = (per - per.mean(axis=0)) * np.sqrt(self.groups / (self.groups - 1))
        near = self.nested ** np.abs(np.subtract.outer(range(budgets), range(budgets)))
        root = np.linalg.cholesky(np.kron([[1, 0.3], [0.3, 1]], near) + 1e-9 * np.eye(size))
        drawn = rng.standard_normal((self.seeds, size))
        if self.heavy:
            drawn = rng.standard_t(4, (self.seeds, size)) / np.sqrt(2)
        shrinks = np.tile((BUDGETS / BUDGETS[0]) ** -0.3, 2)
        values = (
            np.concatenate(self.truth()) + per.sum(axis=0) + self.luck * drawn @ root.T * shrinks
        )
        both = np.broadcast_to(influence.T, (self.seeds, size, self.groups))
        none = np.zeros((self.seeds, budgets))
        return (
            Paths("ours", BUDGETS, values[:, :budgets], both[:, :budgets], none),
            Paths("random", BUDGETS, values[:, budgets:], both[:, budgets:], none),
        )


def noise(rate: float, runs: int) -> float:
    """Three standard deviations of a share of `runs` whose true value is `rate`."""
    return 3 * float(np.sqrt(rate * (1 - rate) / runs))
