"""Numbers that belong to a name: drawn by a hash of it, whatever else is drawn, and in whatever order."""

import hashlib
import zlib


def lot(name: str, seed: int) -> int:
    """The rank, below 2**32, at which a name is drawn: it depends on nothing but the name and the seed."""
    return zlib.crc32(f"{seed}:{name}".encode())


def drawn(seed: int, question_id: str, purpose: str, n: int) -> int:
    """A number in 0..n-1 that is a question's own: no other question, and no order of evaluation, changes it."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{question_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n
