"""What the shadow controls of a workspace measured of its strategy, as looks for `sequence`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ssl_core.claims.sequence import Look
from ssl_core.evidence import Z
from ssl_core.history.ledger import Ledger
from ssl_core.records import CONTROL, DIFFERENCE, Round, Split
from ssl_core.shadow import controls


def shadow_looks(
    ledger: Ledger, strategy: str, split: Split, until: int | None = None
) -> list[Look]:
    """One look a control up to round `until` (None: the newest), oldest first.

    A look counts where the labels of the models that the control was held against were all asked
    for while the settings named this strategy: another one's failure is not its own. One without
    an interval is left out. No label is read here.
    """
    measured = {
        number: m
        for number, m in ledger.measurements()
        if (m.stage, m.name, m.split, m.finding) == (CONTROL, DIFFERENCE, split, "macro")
    }
    rounds, found = ledger.rounds(), []
    for control in controls(ledger):
        m = measured.get(control.round)
        if m is None or not m.low <= m.high or (until is not None and control.round > until):
            continue
        if _asked_by(rounds, max(control.against, default=0)) == {strategy}:
            error = (m.high - m.low) / (2 * Z)
            found.append(Look(control.round, control.labels, m.value, error))
    return found


def _asked_by(rounds: Sequence[Round], before: int) -> set[str]:
    """The strategies in the settings of the rounds whose labels a round could learn from."""
    configs = (json.loads(one.config) for one in rounds if one.number < before)
    return {config["selection"]["strategy"] for config in configs}
