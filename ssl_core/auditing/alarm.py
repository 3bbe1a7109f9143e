"""When to stop trusting a finding's pseudo-labels: two sequential tests over the rounds' audits.

A weak first teacher can teach its errors: the student repeats them with more confidence, and so on
(confirmation bias; five findings got worse in S3). Each round's slice, read blind, is a random
sample of what that round scored, so it may speak against one of two claims:

**Precision.** The mean confidence of what was kept with a sign (the teacher's score for that sign)
claims a precision. The null: of all that round r kept with this sign, no more than
μ_r = 1 - confidence_r + tolerance is wrong. When precision falls while confidence rises, the two
part. A teacher that is unsure and says so raises no alarm.

**Ratio.** The share of what was kept that was kept as present claims how common the finding is.
The null: the odds of the finding in the pool that was scored are no more than `drift` times those
of the share, or no less than 1 / `drift` of them. Counts of what is kept are rounded down, so a
share is given one item more: no item kept as present does not say that there is none. By
construction the share follows the round's
prior, so this catches a prior that drifted, or classes that found no room.

**The test.** For each of a finding's four claims (each sign's precision, the ratio high and low) a
gambler bets against the null: a read multiplies the stake by 1 + b (1 - μ) / μ if it speaks
against it, by 1 - b if not (Waudby-Smith and Ramdas 2024), on a grid of b, and on every round r
of the watch as the one at which things went wrong, 1 / (r (r + 1)) of the capital. An alarm is
raised where the capital passes a limit that it passes under the null, at its edge μ_r and in any
of the rounds so far, with a chance of α (1 - 1 / (1 + reads / 20)) at the most: alpha spending
(Lan and DeMets 1983) by what was read, so one may look after every round and for ever. The limits
come from 4,000 histories drawn at the edge (fixed seed). Ville's limit 1 / α for the same capital
needs no drawing, but was passed at the edge by .003 of histories where .05 were allowed, and took
up to twice as many rounds. The α of the four claims (.4, .4, .1 and .1 of it) add up to
`false_alarm`: the chance, for each finding and watch, of a false alarm in all its rounds together.
Capital rises with every read against the null, so a finding inside the null has a smaller chance.
The model may change from round to round; it was chosen before the slice was drawn. Reads are taken
as independent, though a slice is drawn without replacement (less favourable to the gambler:
Hoeffding 1963, theorem 4).

**A pause** begins with the round after the alarm, and ends (a new watch begins) with evidence from
reads since then, of what would have been kept: `recovery_reads` or more of the alarmed sign, of
which no more were wrong than the null allows (for the ratio: reads of the slice, whose share lies
within the drift). Naming the finding in `ignore` overrides it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from ssl_core.config import Alarm as Rules

Floats = npt.NDArray[np.float64]
Sign = Literal["present", "absent"]
Kind = Literal["present", "absent", "more common", "rarer"]
KINDS: tuple[Kind, ...] = ("present", "absent", "more common", "rarer")

BETS = np.array([0.05, 0.1, 0.2, 0.4, 0.7])
SPENT = (0.4, 0.4, 0.1, 0.1)  # of the chance of a false alarm, by claim
PATHS = 4000  # histories that set a limit
HALF = 20.0  # reads of a claim after which half of its chance of a false alarm may be spent
SEED = 0  # of the histories alone: the same reads give the same limits


@dataclass(frozen=True, slots=True)
class RoundAudit:
    """What the blind reads of a round's own slice say of one finding.

    `confidence` is the mean score for the sign of all that was kept (or would have been, during a
    pause) as (present, absent), NaN where nothing was; `judged` and `wrong` count the slice's
    reads of those. `share` is that of present among the `kept`; `positives` of `reads` of the whole
    slice are present, dropped items too.
    """

    round: int
    confidence: tuple[float, float]
    judged: tuple[int, int]
    wrong: tuple[int, int]
    share: float
    positives: int
    reads: int
    kept: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: which claim failed, at the audit of which round, and the numbers behind it.

    `evidence` is the capital over its limit, above 1. `first` and `last` are what was claimed
    (confidence of the sign, or its share of the kept) in the watch's first round and in this one.
    `against` of `reads` since the watch began spoke against it; `allowed` is the share that the
    null allows in this round.
    """

    finding: str
    round: int
    kind: Kind
    evidence: float
    since: int
    first: float
    last: float
    against: int
    reads: int
    allowed: float


@dataclass(frozen=True, slots=True)
class Watch:
    """How a finding stands after its last audit.

    `alarm` is the one in force (None: none), and every one there was is in `history`. `recovered`
    are the rounds whose audit ended one. `evidence` is the largest of the four claims' capitals
    over their limits in the present watch: an alarm is raised above 1.
    """

    finding: str
    alarm: Alarm | None
    history: tuple[Alarm, ...]
    recovered: tuple[int, ...]
    evidence: float


def watch(finding: str, audits: Sequence[RoundAudit], rules: Rules) -> Watch:
    """Follow one finding through its rounds' audits, in order; no audit, no alarm."""
    history, recovered, start = list[Alarm](), list[int](), 0
    while True:
        here = audits[start:]
        evidence = evidence_of(here, rules)
        crossed = np.flatnonzero((evidence > 1).any(axis=0))
        if not crossed.size:
            last = float(evidence[:, -1].max()) if here else 0.0
            return Watch(finding, None, tuple(history), tuple(recovered), last)
        at = int(crossed[0])
        history.append(_alarm(finding, here[: at + 1], evidence[:, at], rules))
        since = range(at + 1, len(here))
        good = next(
            (t for t in since if _recovered(history[-1], here[at + 1 : t + 1], rules)), None
        )
        if good is None:
            return Watch(
                finding, history[-1], tuple(history), tuple(recovered), history[-1].evidence
            )
        recovered.append(here[good].round)
        start += good + 1


def evidence_of(audits: Sequence[RoundAudit], rules: Rules) -> Floats:
    """Each claim's capital over its limit after each round, (4, R)."""
    found = np.zeros((len(KINDS), len(audits)))
    for c, (against, reads, allowed) in enumerate(zip(*counts(audits, rules), strict=True)):
        if reads.any():
            limit = limits(tuple(reads), tuple(allowed), rules.false_alarm * SPENT[c])
            found[c] = capital(against, reads, allowed) / limit
    return found


def capital(against: npt.ArrayLike, reads: npt.ArrayLike, allowed: npt.ArrayLike) -> Floats:
    """What a gambler against the null holds after each round, `(…, R)`, from 1 at the start.

    Args:
        against: `(…, R)`, how many of the round's reads spoke against the null.
        reads: `(R,)`, how many there were; 0 changes nothing.
        allowed: `(R,)`, the largest share that may speak against it; NaN, and 1 or more, claim
            nothing. A share of 0 or less is taken as one in a million.
    """
    k, n, mu = (np.asarray(a, dtype=np.float64) for a in (against, reads, allowed))
    staked, held = np.zeros((*k.shape[:-1], len(BETS))), np.empty(k.shape)
    for r, (count, share) in enumerate(zip(n.tolist(), mu.tolist(), strict=True)):
        staked = staked + 1 / ((r + 1) * (r + 2))
        if count and share < 1:  # NaN is not below 1
            possible = np.arange(count + 1)[:, None]
            odds = (1 - max(share, 1e-6)) / max(share, 1e-6)
            gain = possible * np.log1p(BETS * odds) + (count - possible) * np.log1p(-BETS)
            step = np.exp(np.minimum(gain, 300.0))
            staked = np.minimum(staked * step[k[..., r].astype(np.intp)], 1e200)
        held[..., r] = staked.mean(axis=-1) + 1 / (r + 2)
    return held


@lru_cache(maxsize=4096)
def limits(reads: tuple[float, ...], allowed: tuple[float, ...], alpha: float) -> Floats:
    """What the capital must pass for an alarm, after each of R rounds, `(R,)`.

    Drawn at the edge of the null, it is passed in any of the first t rounds with probability
    α (1 - 1 / (1 + reads so far / 20)) at the most; what a round could not spend is left to the
    later ones. A later round does not change the limits of earlier ones.
    """
    rng = np.random.default_rng(SEED)
    edge = np.clip(np.nan_to_num(np.array(allowed), nan=1.0), 0.0, 1.0)
    counts = np.array(reads)
    drawn = np.stack(
        [rng.binomial(int(n), p, PATHS) for n, p in zip(reads, edge, strict=True)], axis=-1
    )
    held = capital(drawn, counts, np.array(allowed))
    open_, spent, found = np.ones(PATHS, dtype=bool), 0, np.empty(len(reads))
    so_far = np.cumsum(np.where(edge < 1, counts, 0.0))
    for r, seen in enumerate(so_far.tolist()):
        room = int(alpha * PATHS * (1 - 1 / (1 + seen / HALF))) - spent
        still = np.sort(held[open_, r])[::-1]
        found[r] = max(1 + 1e-9, float(still[room]))  # no claim: a capital of 1
        passed = open_ & (held[:, r] > found[r])
        spent += int(passed.sum())
        open_ &= ~passed
    found.setflags(write=False)
    return found


def counts(audits: Sequence[RoundAudit], rules: Rules) -> tuple[Floats, Floats, Floats]:
    """What spoke against each claim, of how many reads, and what is allowed: three of (4, R)."""
    against = [[*a.wrong, a.positives, a.reads - a.positives] for a in audits]
    reads = [[*a.judged, a.reads, a.reads] for a in audits]
    allowed = [allows(a, rules) for a in audits]
    shaped = (np.array(x, dtype=np.float64).reshape(-1, 4).T for x in (against, reads, allowed))
    return tuple(shaped)  # type: ignore[return-value]


def allows(audit: RoundAudit, rules: Rules) -> tuple[float, float, float, float]:
    """The share of reads that may speak against each claim of a round."""
    present, absent = (1 - c + rules.tolerance for c in audit.confidence)
    one = 1 / audit.kept if audit.kept else math.nan
    common, rare = (min(1.0, share + one) for share in (audit.share, 1 - audit.share))
    return present, absent, odds_times(common, rules.drift), odds_times(rare, rules.drift)


def odds_times(share: float, factor: float) -> float:
    """The share whose odds are `factor` times those of `share`."""
    return factor * share / (1 + (factor - 1) * share)


def sentence(alarm: Alarm) -> str:
    """An alarm in plain words, with its numbers."""
    told = f"{alarm.against} of {alarm.reads} blind reads"
    since = f"rounds {alarm.since} to {alarm.round}"
    if alarm.since == alarm.round:
        since = f"round {alarm.round}"
    if alarm.kind in ("present", "absent"):
        moved = f"went from {alarm.first:.0%} to {alarm.last:.0%}"
        if alarm.since == alarm.round or f"{alarm.first:.0%}" == f"{alarm.last:.0%}":
            moved = f"is {alarm.last:.0%}"
        return (
            f"{told} of what was kept as {alarm.kind} were wrong ({since}), while the teacher's "
            f"confidence {moved}: {alarm.allowed:.0%} wrong is what that allows."
        )
    which = "present" if alarm.kind == "more common" else "absent"
    return (
        f"{told} were {which} ({since}), but {alarm.last:.0%} of what was kept is {which}: the "
        f"finding is {alarm.kind} than the pseudo-labels say ({alarm.allowed:.0%} is what that "
        "allows)."
    )


def _alarm(finding: str, audits: Sequence[RoundAudit], evidence: Floats, rules: Rules) -> Alarm:
    claim = int(evidence.argmax())
    against, reads, allowed = (table[claim] for table in counts(audits, rules))
    told = [_claimed(a, claim) for a in audits]
    known = [value for value in told if not math.isnan(value)]
    return Alarm(
        finding=finding,
        round=audits[-1].round,
        kind=KINDS[claim],
        evidence=float(evidence[claim]),
        since=audits[0].round,
        first=known[0],
        last=known[-1],
        against=int(against.sum()),
        reads=int(reads.sum()),
        allowed=float(allowed[~np.isnan(allowed)][-1]),
    )


def _claimed(audit: RoundAudit, claim: int) -> float:
    return (*audit.confidence, audit.share, 1 - audit.share)[claim]


def _recovered(alarm: Alarm, audits: Sequence[RoundAudit], rules: Rules) -> bool:
    """Whether the reads since the alarm are enough, and no worse than the null allows."""
    against, reads, allowed = counts(audits, rules)
    claims = (2, 3) if alarm.kind in ("more common", "rarer") else (KINDS.index(alarm.kind),)
    for claim in claims:
        n = reads[claim].sum()
        if n < rules.recovery_reads:
            return False
        if against[claim].sum() > np.nansum(reads[claim] * allowed[claim]):
            return False
    return True
