"""A second read or a new case: which buys more, by how far readers agree.

Readers who err on a share ρ of a balanced finding have a kappa of (1 - 2ρ)² (Sheng, Provost and
Ipeirotis 2008 and Lin, Mausam and Weld 2014 weigh a vote more against a label more). Let R² be the
share of the true label's variance that a linear model can explain. Least squares then learns its
direction from n noisy labels as well as from n F without noise, F = kappa (1 - R²) / (1 - kappa
R²): the slope shrinks by 1 - 2ρ, and what it cannot explain grows. For R² = 0, F is kappa.

Reading every label a second time, two answers agree with chance 1 - d, d = (1 - kappa) / 2. Where
an even vote is unknown the agreed labels are left, whose kappa is kappa / (1 - d)²; with an
adjudicator who errs like the others all are left, right but for ρ²(3 - 2ρ), at 1 + d reads each.
So the n F grow by a share that is the worth of a second read in new cases, if both take as long.
R² comes from the model's AUROC: of two normal classes, μ²/(1 + μ²) with AUROC = Φ(√2 μ).

Held against logistic regression (`test_second_read.py`). For contradictions of a
model no such rule is given: one was tried and right in 14 of 32 settings, since items that a model
denies are not like others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ssl_core.evidence import Estimate, Z
from ssl_core.readers.agreement import kappa
from ssl_core.records import HeldRead, Label

Floats = npt.NDArray[np.float64]
Advice = Literal["new case", "second read", "undecided", "too few"]

LEAST = 20  # patients with an item that two have read, for a finding that both values were said of
DRAWS = 2000
SEED = 0
PRIOR = 0.25  # in each of four cells, as in `agreement`
SURE = 0.9


@dataclass(frozen=True, slots=True)
class SecondRead:
    """What a second read is worth, and the advice.

    `kappa`, the mean over `findings` of them, and `noise`, ρ in [0, 0.5], with 95 % intervals.
    `worth`: how many new cases one second read buys as much as, in equal reading time. `chance` in
    [0, 1] that it is above 1. `doubles` counts items that two readers have read blind.
    """

    advice: Advice
    kappa: Estimate
    noise: Estimate
    worth: Estimate
    chance: float
    findings: int
    doubles: int
    sentence: str


def worth_of_second(
    agreed: npt.ArrayLike, explained: npt.ArrayLike, *, adjudicated: bool
) -> Floats:
    """New cases that a second read buys as much as: by kappa and R², both in [0, 1)."""
    reliable = np.clip(np.asarray(agreed, dtype=np.float64), 1e-3, 1.0)
    r2, d = np.asarray(explained, dtype=np.float64), (1 - reliable) / 2
    once = _factor(reliable, r2)
    if adjudicated:
        wrong = noise_of(reliable)
        settled = (1 - 2 * wrong**2 * (3 - 2 * wrong)) ** 2
        return np.asarray((_factor(settled, r2) / once - 1) / (1 + d))
    return np.asarray((1 - d) * _factor(reliable / (1 - d) ** 2, r2) / once - 1)


def explained_by(auroc: npt.ArrayLike) -> Floats:
    """R² of two normal classes that a score parts with this AUROC; 0 for one of a half or less."""
    apart = np.maximum(ndtri(np.clip(auroc, 0.5, 1 - 1e-6)), 0.0) / math.sqrt(2)
    return np.asarray(apart**2 / (1 + apart**2))


def _factor(reliable: Floats, r2: Floats) -> Floats:
    return np.asarray(reliable * (1 - r2) / (1 - reliable * r2))


def noise_of(agreed: npt.ArrayLike) -> Floats:
    """The share ρ of a balanced finding on which readers of this kappa err."""
    return np.asarray((1 - np.sqrt(np.clip(agreed, 0.0, 1.0))) / 2)


def second_read(
    labels: Iterable[Label],
    reads: Iterable[HeldRead],
    groups: Mapping[str, str],
    *,
    adjudicated: bool,
    auroc: Estimate | None = None,
    new_takes: float = 1.0,
    left: int = 1,
) -> SecondRead:
    """Advise, from double reads.

    Args:
        labels: as `Ledger.labels` gives them; the adjudicator's and imported ones are passed over.
        reads: those that may count: blind ones, and no re-reads, which are not a fair sample.
        groups: each item's patient.
        adjudicated: whether somebody decides an even vote.
        auroc: of the model, with its interval; None: worth is then a lower bound (R² = 0).
        new_takes: how many times as long a new case takes as a second read.
        left: how many cases nobody was asked about yet.
    """
    tables = _tables(labels, reads, groups)
    doubles = len({item_id for of in tables.values() for item_id in of})
    draws = [_draws(list(_by_patient(of, groups).values())) for of in _told(tables, groups)]
    if not draws:
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        said = (
            f"Too few to tell whether a second read pays: {doubles:,} items were read blind by "
            f"two, and {LEAST} patients are needed with a finding of which both values were said."
        )
        return SecondRead("too few", nothing, nothing, nothing, math.nan, 0, doubles, said)
    agreed = np.mean(draws, axis=0)
    r2 = _explained(auroc)
    each = [worth_of_second(one, r2, adjudicated=adjudicated) for one in draws]
    worth = np.mean(each, axis=0) * new_takes
    chance = float((worth > 1).mean())
    value = _estimate(worth, doubles)
    advice = _advice(chance, left)
    return SecondRead(
        advice=advice,
        kappa=_estimate(agreed, doubles),
        noise=_estimate(noise_of(agreed), doubles),
        worth=value,
        chance=chance,
        findings=len(draws),
        doubles=doubles,
        sentence=_sentence(advice, _estimate(agreed, doubles), value, left),
    )


def _tables(
    labels: Iterable[Label], reads: Iterable[HeldRead], groups: Mapping[str, str]
) -> dict[str, dict[str, Floats]]:
    """By finding, each item's pairs of answers: both present, one alone (twice), both absent."""
    counted = {(r.item_id, r.reader) for r in reads if r.outcome == "read" and r.role == "reader"}
    said: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for one in labels:
        fair = one.role != "adjudicator" and one.source != "import" and one.value == one.value
        if fair and (one.item_id, one.reader) in counted:
            said.setdefault((one.finding, one.item_id), []).append((one.reader, one.value))
    tables: dict[str, dict[str, Floats]] = {}
    for (finding, item_id), answers in said.items():
        if len(answers) > 1 and item_id in groups:
            cells = np.zeros(4)
            pairs = list(combinations(sorted(answers), 2))
            for (_, a), (_, b) in pairs:
                cells[int(2 * (a == 0.0) + (b == 0.0))] += 1 / len(pairs)
            tables.setdefault(finding, {})[item_id] = cells
    return tables


def _told(
    tables: Mapping[str, Mapping[str, Floats]], groups: Mapping[str, str]
) -> list[Mapping[str, Floats]]:
    """The findings with enough patients, and with both values among the answers."""
    found = []
    for of in tables.values():
        both, first, second, neither = np.sum(list(of.values()), axis=0)
        varied = both + first + second > 0 and first + second + neither > 0
        if varied and len({groups[item_id] for item_id in of}) >= LEAST:
            found.append(of)
    return found


def _by_patient(of: Mapping[str, Floats], groups: Mapping[str, str]) -> dict[str, Floats]:
    cells: dict[str, Floats] = {}
    for item_id, table in of.items():
        cells[groups[item_id]] = cells.get(groups[item_id], np.zeros(4)) + table
    return cells


def _draws(patients: list[Floats]) -> Floats:
    """Draws of kappa: the Bayesian bootstrap by patient that `agreement` has its interval from."""
    rng, cells = np.random.default_rng(SEED), np.array(patients)
    kinds, counts = np.unique(cells, axis=0, return_counts=True)
    weights = rng.standard_gamma(counts, size=(DRAWS, len(kinds)))
    return np.nan_to_num(kappa(weights @ kinds + rng.standard_gamma(PRIOR, size=(DRAWS, 4))))


def _explained(auroc: Estimate | None) -> Floats:
    if auroc is None or math.isnan(auroc.value):
        return np.zeros(DRAWS)
    error = 0.0 if math.isnan(auroc.high) else (auroc.high - auroc.low) / (2 * Z)
    return explained_by(auroc.value + error * np.random.default_rng(SEED).standard_normal(DRAWS))


def _estimate(draws: Floats, n: int) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(draws.mean()), float(low), float(high), n)


def _advice(chance: float, left: int) -> Advice:
    if not left or chance > SURE:
        return "second read"
    return "new case" if chance < 1 - SURE else "undecided"


def _sentence(advice: Advice, agreed: Estimate, worth: Estimate, left: int) -> str:
    told = (
        f"At a kappa of {agreed.value:.2f} [{agreed.low:.2f}, {agreed.high:.2f}], a second read "
        f"buys as much as {worth.value:.2f} [{worth.low:.2f}, {worth.high:.2f}] new cases"
    )
    if not left:
        return f"{told}, and no new case is left: read again."
    ends = {
        "new case": "read new cases.",
        "second read": "read a second time.",
        "undecided": "neither is clearly better.",
        "too few": "too few to tell.",
    }
    return f"{told}: {ends[advice]}"
