"""Deadlines: how long an evaluation may take, from how long others took."""

from __future__ import annotations

from collections import Counter, deque
from statistics import median
from typing import final

from evomerge.candidate import Assignment
from evomerge.run.records import Tally

UNKNOWN = 3600.0
"""Seconds that an evaluation may take while nothing is known, unless the user says otherwise."""
_TIMES_USUAL = 10.0  # a broken merge that generates without end is slow, not hung
_TIMES_SLOWEST = 3.0
_PER_START = 4.0
_FLOOR = 120.0  # a worker's first candidate compiles kernels and reads parents from disk
_ENOUGH = 5
_REMEMBERED = 200


@final
class Deadlines:
    """Ten times what is usual for this many items, and more for a second try (stateful)."""

    def __init__(self, limit: float = UNKNOWN, *, floor: float = _FLOOR) -> None:
        """No evaluation gets more than `limit` seconds, and few get less than `floor`."""
        self._limit = limit
        self._floor = floor
        self._starts: Counter[tuple[int, str, int]] = Counter()
        self._build: deque[float] = deque(maxlen=_REMEMBERED)
        self._per_item: deque[float] = deque(maxlen=_REMEMBERED)

    def observe(self, counted: Tally) -> None:
        """Learn from one evaluation; a failure says nothing about the time that success takes."""
        if counted.failure is None and counted.items:
            self._build.append(counted.build_seconds)
            self._per_item.append(counted.score_seconds / counted.items)

    def __call__(self, assignment: Assignment) -> float:
        """Seconds after which a worker that begins `assignment` now is taken for hung."""
        key = (*assignment.key, assignment.part)
        again = self._starts[key]
        self._starts[key] += 1
        if len(self._per_item) < _ENOUGH:
            return self._limit
        items = assignment.items.count
        usual = median(self._build) + items * median(self._per_item)
        slowest = max(self._build) + items * max(self._per_item)
        allowed = max(self._floor, _TIMES_USUAL * usual, _TIMES_SLOWEST * slowest)
        return min(self._limit, allowed * _PER_START**again)
