"""Operators on vectors of numbers in [0, 1]: crossover and mutation that respect the bounds.

Simulated binary crossover (Deb & Agrawal 1995, Complex Systems 9) and polynomial mutation (Deb &
Goyal 1996), both bounded as in the code of NSGA-II (Deb et al. 2002).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ETA_CROSSOVER = 15.0
ETA_MUTATION = 20.0

Numbers = NDArray[np.float64]


def sbx(one: Numbers, two: Numbers, u: Numbers) -> tuple[Numbers, Numbers]:
    """Lower and upper child of each pair of numbers in [0, 1]; `u` in [0, 1) is the spread's draw.

    Deb & Agrawal 1995; without bounds the children's mean is that of the parents.
    """
    low, high = np.minimum(one, two), np.maximum(one, two)
    lower, upper = _lower_child(low, high, u), 1.0 - _lower_child(1.0 - high, 1.0 - low, u)
    # to the last bit, so that a child without news is known as one that was there
    return np.where(low == high, low, lower), np.where(low == high, low, upper)


def _lower_child(low: Numbers, high: Numbers, u: Numbers) -> Numbers:
    gap = np.maximum(high - low, 1e-14)
    power = ETA_CROSSOVER + 1.0
    inside = 2.0 - (1.0 + 2.0 * low / gap) ** -power  # of a spread that leaves no child below 0
    scaled = u * inside
    spread = np.where(scaled <= 1.0, scaled, 1.0 / np.maximum(2.0 - scaled, 1e-14)) ** (1.0 / power)
    child: Numbers = np.clip(0.5 * (low + high - spread * (high - low)), 0.0, 1.0)
    return child


def polynomial(numbers: Numbers, u: Numbers) -> Numbers:
    """Numbers in [0, 1] moved within their bounds; `u` in [0, 1): below 0.5 down, else up."""
    power = ETA_MUTATION + 1.0
    down = (2.0 * u + (1.0 - 2.0 * u) * (1.0 - numbers) ** power) ** (1.0 / power) - 1.0
    up = 1.0 - (2.0 * (1.0 - u) + (2.0 * u - 1.0) * numbers**power) ** (1.0 / power)
    moved: Numbers = np.clip(numbers + np.where(u < 0.5, down, up), 0.0, 1.0)
    return moved
