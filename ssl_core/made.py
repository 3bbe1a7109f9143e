"""What a stage of a round hands to the ledger."""

from __future__ import annotations

import math
from typing import Any

Made = dict[str, Any]
"""What a stage made: `Ledger.add_stage`'s keyword arguments, and its `detail`."""


def finite(value: Any) -> Any:
    """JSON has no NaN: what is unknown becomes null."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
