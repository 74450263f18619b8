"""Fronts: an order over points with several objectives (Deb et al. 2002, NSGA-II, section III)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def by_fronts(values_ND: NDArray[np.float64]) -> list[int]:
    """The rows' numbers, best first: by non-dominated front, in a front the less crowded first.

    Every column is maximised. Equal rows keep their order.
    """
    left = np.arange(len(values_ND))
    found: list[int] = []
    while len(left):
        values = values_ND[left]
        better = np.all(values[:, None] >= values[None], axis=2)
        dominated = (better & np.any(values[:, None] > values[None], axis=2)).any(axis=0)
        front = left[~dominated]
        found += [int(front[i]) for i in np.argsort(-_distances(values_ND[front]), kind="stable")]
        left = left[dominated]
    return found


def _distances(values_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """The crowding distance of every row; infinite at the ends of an objective."""
    distances = np.zeros(len(values_ND))
    for column in values_ND.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distances[order[[0, -1]]] = np.inf
        if spread > 0.0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distances
