"""Whether the cases that rounds asked for are those that the strategy put first.

A sort that is missing, or turned round, trains a model as well as chance does or a little worse,
which takes many rounds to show in AUROC. In what was asked it shows at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import entr
from scipy.stats import rankdata

from ssl_core.errors import ReadloopError
from ssl_core.probabilities import probabilities, stage_model
from ssl_core.records import Selection
from ssl_core.workspace import Workspace

FEWEST = 5  # cases of a strategy in a round: four are in order by chance once in 24 times
DOUBT = frozenset({"margin", "entropy", "least_confidence"})
"""Strategies whose score is the model's doubt of the case alone: it can be held against that."""
_AGREES = 0.5  # rank correlation of the kept scores with the doubt; 1 where all is well


def disorder(selections: Sequence[Selection], runs: int = 1) -> str | None:
    """What is wrong with the order in which one round's strategy asked; None where nothing is.

    `draw` asks by falling score, with the cases beyond the patient cap in further falling runs,
    `runs` of them at the most, and takes a case only if its place is within the batch, where its
    probability is above the slice's. Both hold of every batch, so one batch is proof.
    """
    asked = sorted((s for s in selections if s.kind == "strategy"), key=lambda s: s.rank)
    if len(asked) < FEWEST:
        return None
    scores = np.array([s.score for s in asked])
    rises = int((np.diff(scores) > 0).sum())
    if rises >= runs:
        turned = rises == len(asked) - 1
        return "the lowest scores were asked first" if turned else "not asked by falling score"
    unlikely = sum(s.probability <= s.slice_probability * (1 + 1e-9) < 1 for s in asked)
    if unlikely:
        return f"{unlikely} of {len(asked)} cases stand too far down the order to be asked"
    return None


def contradicted(scores: npt.ArrayLike, doubt: npt.ArrayLike) -> bool:
    """Whether kept scores are not those of the model's doubt, by Spearman's correlation."""
    kept, own = np.asarray(scores, np.float64), np.asarray(doubt, np.float64)
    if len(kept) < FEWEST or np.ptp(kept) == 0 or np.ptp(own) < 1e-6:
        return False
    return float(np.corrcoef(rankdata(kept), rankdata(own))[0, 1]) < _AGREES


def broken(ws: Workspace, *, ask_models: bool = False) -> tuple[int, str] | None:
    """The first round whose selection is not what its strategy says, and what is wrong.

    With `ask_models` the scores that a strategy of doubt kept are also held against what the
    round's model says of the same cases, which predicts them where no file holds it yet.
    """
    most = max(Counter(item.group for item in ws.ledger.items("train")).values(), default=1)
    for one in ws.ledger.rounds():
        selections = ws.ledger.selections(one.number)
        cap = json.loads(one.config)["selection"]["group_cap"]
        wrong = disorder(selections, -(-most // cap) if cap else 1)
        if wrong is None and ask_models and _contradicted(ws, one.number, selections):
            wrong = "the kept scores are not the model's doubt of the cases"
        if wrong is not None:
            return one.number, wrong
    return None


def _contradicted(ws: Workspace, number: int, selections: Sequence[Selection]) -> bool:
    asked = [s for s in selections if s.kind == "strategy" and s.strategy in DOUBT]
    if len(asked) < FEWEST:
        return False
    try:
        model = stage_model(ws, number)
        found = probabilities(ws, number, model, [s.item_id for s in asked])
    except ReadloopError:  # a model whose file is gone says nothing
        return False
    doubt = _doubt(asked[0].strategy, found, ws.ledger.task.exclusive)
    return contradicted([s.score for s in asked], doubt)


def _doubt(strategy: str, p: npt.NDArray[np.float64], exclusive: bool) -> npt.NDArray[np.float64]:
    """What the strategy's score is by its definition, up to scale, written a second time."""
    if not exclusive:
        p = np.stack([p, 1 - p], axis=-1)
    top = np.sort(p, axis=-1)
    doubt = {
        "margin": top[..., -2] - top[..., -1],
        "entropy": entr(p).sum(axis=-1),
        "least_confidence": -top[..., -1],
    }[strategy]
    return np.asarray(doubt if exclusive else doubt.mean(axis=1))
