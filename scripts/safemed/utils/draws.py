"""Numbers that belong to a name: drawn by a hash of it, whatever else is drawn, and in whatever order."""

import hashlib

RANKS = 2**32  # of things that are put in order by what is drawn for each


def draw(seed: int, name: str, purpose: str, n: int = RANKS) -> int:
    """A number in 0..n-1, uniform over seeds, names and purposes; it depends on these three alone."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n
