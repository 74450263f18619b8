"""Which nodes of a cluster get no workers at present, why, and until when. No Ray."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

_FIRST = 60.0
_LONGEST = 900.0
_QUICK_TIMES = 4
"""Refusals in a row before a node waits longest: about a quarter of an hour altogether."""


@dataclass
class _Refusal:
    """The clock's value from which the node may be tried again, and how often it failed in a row.

    `reason` outlives the time: until the node has had a ready worker, it is what is known of it.
    """

    due: float
    times: int
    reason: str


@final
class Refusals:
    """By Ray's id of a node: what happened to workers there (stateful).

    Most of it passes: a disk is full, a file server restarts, a copy breaks off. Other software
    stays. Times are those of a monotonic clock that the caller reads.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Refusal] = {}

    def add(self, node: str, reason: str, now: float, *, for_good: bool = False) -> None:
        """A worker could not start there; of several that failed together, the first counts."""
        before = self._known.pop(node, _Refusal(-math.inf, 0, reason))
        fresh = before.due <= now
        times = before.times + fresh
        due = now + min(_LONGEST, _FIRST * 2.0 ** min(times - 1, 10)) if fresh else before.due
        self._known[node] = _Refusal(math.inf if for_good else due, times, reason)

    def welcome(self, node: str) -> None:
        """A worker is ready there."""
        self._known.pop(node, None)

    def closed(self, now: float) -> frozenset[str]:
        """The nodes that must not be asked for a worker."""
        return frozenset(node for node, known in self._known.items() if known.due > now)

    def open_of(self, nodes: Iterable[str], now: float) -> frozenset[str]:
        """Those of `nodes` that may be asked."""
        return frozenset(nodes) - self.closed(now)

    def forgive(self) -> None:
        """Try all nodes again whose trouble may pass: there are no others."""
        for known in self._known.values():
            if known.due < math.inf:
                known.due, known.times = -math.inf, 0

    def lasting(self, node: str) -> bool:
        """Whether a node has failed so often that it is no longer new."""
        known = self._known.get(node)
        return known is not None and known.times > _QUICK_TIMES

    @property
    def last(self) -> str | None:
        """The reason of the latest refusal by a node that has had no ready worker since."""
        return next((known.reason for known in reversed(self._known.values())), None)
