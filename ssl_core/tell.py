"""Numbers as papers print them, for sentences."""

from __future__ import annotations

import math

from ssl_core.evidence import Difference, Estimate, Labels


def interval(found: Estimate) -> str:
    """ ".982 [.971, .990]"; "–" where undefined."""
    value, low, high = (share(x) for x in (found.value, found.low, found.high))
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"


def share(value: float) -> str:
    """ ".982", "–" where undefined."""
    if math.isnan(value):
        return "–"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def an(metric: str) -> str:
    """ "an AUROC", "a Dice"."""
    return f"{'an' if metric[0] in 'AEIOU' else 'a'} {metric}"


def signed(value: float) -> str:
    """ "+.012" or "−.004"."""
    if math.isnan(value):
        return "–"
    return ("−" if value < 0 else "+") + share(abs(value))


def difference(found: Difference) -> str:
    """ "+.012 [+.003, +.021]"; without its ends where they are not known."""
    if math.isnan(found.low):
        return signed(found.value)
    return f"{signed(found.value)} [{signed(found.low)}, {signed(found.high)}]"


def labels(found: Labels) -> str:
    """ "212 labels [150, 400]", with "at most" and "more than" where an end is a bound."""
    value = f"{_bound(found.value, found)} labels"
    if math.isnan(found.low):
        return value
    return f"{value} [{_bound(found.low, found)}, {_bound(found.high, found)}]"


def ratio(found: Labels, control: float) -> str:
    """ "0.53 [0.37, 1.20]" times the control's labels, "at most" and "more than" at bounds."""
    if math.isnan(found.low):
        return _times(found.value, found, control)
    ends = (_times(end, found, control) for end in (found.low, found.high))
    return f"{_times(found.value, found, control)} [{', '.join(ends)}]"


def amount(found: Estimate, digits: int = 0) -> str:
    """ "120 [−40, 210]"; an end that is open is a sign of infinity."""
    value, low, high = (_plain(x, digits) for x in (found.value, found.low, found.high))
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"


def _plain(value: float, digits: int) -> str:
    text = "∞" if math.isinf(value) else f"{abs(value):,.{digits}f}"
    return ("−" if value < 0 else "") + text


def _bound(value: float, known: Labels) -> str:
    if math.isinf(value):
        return f"more than {known.last:,.0f}"
    at_most = "at most " if value <= known.first else ""
    return f"{at_most}{math.ceil(value):,}"


def _times(value: float, known: Labels, control: float) -> str:
    if math.isinf(value):
        return f"more than {known.last / control:.2f}"
    return f"{'at most ' if value <= known.first else ''}{value / control:.2f}"
