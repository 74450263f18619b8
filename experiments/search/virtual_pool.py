"""VirtualPool: workers whose evaluations take virtual time, some much longer than others."""

from __future__ import annotations

import heapq
import math
from collections import deque
from types import TracebackType
from typing import Self

from evomerge.candidate import Assignment
from evomerge.run.pool import Answer, EvaluatingWorker, WorkerPool
from evomerge.seeding import generator

SPREAD = 0.42
"""Sigma of a lognormal time whose 95th percentile is 4 times its 5th."""


class VirtualPool:
    """`size` workers and a clock (stateful)."""

    def __init__(self, worker: EvaluatingWorker, size: int, seed: int) -> None:
        self.size = size
        self.clock = 0.0
        self.busy = 0.0
        self._worker = worker
        self._rng = generator(seed, "times")
        self._queue: deque[Assignment] = deque()
        self._running: list[tuple[float, int, Assignment]] = []
        self._begun = 0

    def submit(self, assignment: Assignment) -> None:
        self._queue.append(assignment)

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        """The next to end; `timeout` is in a time that does not pass here."""
        del timeout
        while self._queue and len(self._running) < self.size:
            assignment = self._queue.popleft()
            duration = assignment.items.count * math.exp(SPREAD * self._rng.standard_normal())
            self.busy += duration
            self._begun += 1
            heapq.heappush(self._running, (self.clock + duration, self._begun, assignment))
        if not self._running:
            return ()
        self.clock, _, assignment = heapq.heappop(self._running)
        return (Answer(assignment, self._worker.evaluate(assignment), "virtual"),)

    def pending(self) -> int:
        return len(self._queue) + len(self._running)

    def withdraw(self) -> tuple[Assignment, ...]:
        taken = tuple(self._queue)
        self._queue.clear()
        return taken

    def close(self) -> None:
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_conforms: type[WorkerPool] = VirtualPool
