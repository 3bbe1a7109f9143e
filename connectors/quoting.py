"""Text of a manifest in a message: always escaped and short, so that none can drive a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def show(text: str) -> str:
    """Quote text for a message: escaped, and short."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def some(texts: Sequence[str], most: int = 10) -> str:
    """The first few, and how many more there are."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def listed(names: Sequence[str]) -> str:
    """The first twenty names, each quoted."""
    return some([show(name) for name in names], 20)


def closest(name: str, there: Iterable[str]) -> str:
    """' (did you mean ...?)' for the nearest name, whatever its case; else nothing."""
    folded = {other.casefold(): other for other in there}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {show(folded[near[0]])}?)" if near else ""
