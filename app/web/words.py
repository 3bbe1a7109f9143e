"""Numbers as the pages write them."""

from __future__ import annotations

import math

from ssl_core.evidence import Estimate


def percent(value: float | None) -> str:
    """A share as a whole number of percent; a dash where it is unknown."""
    return "–" if value is None or math.isnan(value) else f"{value:.0%}"


def interval(found: Estimate) -> str:
    """A share with its interval."""
    if math.isnan(found.value):
        return "–"
    return f"{percent(found.value)} [{percent(found.low)}, {percent(found.high)}]"
