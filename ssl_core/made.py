"""What a stage of a round hands to the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.evidence import Floats

Made = dict[str, Any]
"""What a stage made: `Ledger.add_stage`'s keyword arguments, and its `detail`."""


def finite(value: Any) -> Any:
    """JSON has no NaN: what is unknown becomes null."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def save_arrays(path: Path, arrays: Mapping[str, Floats]) -> None:
    """Keep what each item got, by name, for paired comparisons later; a name's spaces are _."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, allow_pickle=False, **{n.replace(" ", "_"): a for n, a in arrays.items()})
    scratch.replace(path)
