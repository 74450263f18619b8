"""Room: whether a budget has room for one more candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

_UNLIMITED = 10**9


@final
class Room:
    """What a search may still propose (stateful: the items promised to those it proposed)."""

    def __init__(
        self, candidates: int | None, items: float | None, cost: Callable[[int], int]
    ) -> None:
        """At most so many `candidates` and `items`; the k-th candidate costs `cost(k)` items.

        None is no limit. What a candidate costs is asked for in order.
        """
        self._candidates = _UNLIMITED if candidates is None else candidates
        self._items = items
        self._cost = cost
        self._promised = 0

    @property
    def expected(self) -> int:
        """How many candidates there will be if all cost as much as the first."""
        if self._items is None or self._candidates <= 0:
            return max(0, self._candidates)
        return max(0, min(self._candidates, int(self._items / self._cost(0))))

    def for_candidate(self, index: int) -> bool:
        """Whether candidate `index` may be proposed; it then counts as proposed."""
        if index >= self._candidates:
            return False
        if self._items is None:
            return True
        promised = self._promised + self._cost(index)
        if promised > self._items:
            return False
        self._promised = promised
        return True
