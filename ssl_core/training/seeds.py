"""Seeds named by what they are for: randomness is an argument, and resuming needs no state."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: object) -> int:
    """A seed of 63 bits named by its parts: resuming needs no generator's state."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
