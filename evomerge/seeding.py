"""Seeds: every random choice derives from (run seed, names), never from time, worker or order."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under `seed`; a pure function of both."""
    text = "\x1f".join([str(seed), *(f"{type(n).__name__}:{n}" for n in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A private generator for the stream called `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
