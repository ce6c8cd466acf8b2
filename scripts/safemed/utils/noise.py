"""Gaussian noise that belongs to a name: the same for the same name in any batch, shard or process, on any device."""

import hashlib

import numpy as np
import torch
from torch import Tensor


def gaussian(shape: tuple[int, ...], names: list[str]) -> Tensor:
    """Standard normal noise, fp32 [len(names), *shape] on the CPU.

    Each name keys a counter-based generator (Philox, Salmon et al. 2011) with 128 bits of its hash: millions of draws
    do not collide, as 32-bit seeds would.
    """
    drawn = [_generator(name).standard_normal(shape, dtype=np.float32) for name in names]
    return torch.from_numpy(np.stack(drawn))


def uniform(name: str) -> float:
    """One uniform number in [0, 1)."""
    return float(_generator(name).random())


def _generator(name: str) -> np.random.Generator:
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest())
    return np.random.Generator(np.random.Philox(key=key))


def named_rng(purpose: str, words: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{purpose}/{words}".encode()).digest()[:16]))
