"""Dispatcher: large evaluations in parts, and another try for work whose worker vanished."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import final

from evomerge.candidate import (
    OUT_OF_MEMORY,
    Assignment,
    Failed,
    Lost,
    Outcome,
    Scored,
    parts,
)
from evomerge.run.pool import Answer, WorkerPool
from evomerge.score import joined

MAX_ATTEMPTS = 3
MEMORY_ATTEMPTS = 2
"""How many workers, each with all its memory, a candidate that does not fit is tried on."""


@dataclass(frozen=True)
class Concluded:
    """An assignment that is settled: its outcome, after how many attempts, and by which worker."""

    assignment: Assignment
    outcome: Outcome
    attempts: int
    worker: str


@dataclass
class _Work:
    """A pending assignment, what its parts gave, and how often each was begun."""

    assignment: Assignment
    attempts: list[int]
    done: dict[int, tuple[Scored, str]] = field(default_factory=dict)


@final
class Dispatcher:
    """Feeds a pool and tries lost work again, first in line, up to `max_attempts` (stateful).

    An assignment of many items goes out in parts, so that a final of few candidates keeps many
    workers busy. Lost parts are first in line, because a whole generation may wait for them. A
    part that loses every worker it gets makes its assignment Failed: it must not take the run down
    with it. One that does not fit in memory gets a second worker before that is the candidate's
    own failure.
    """

    def __init__(self, pool: WorkerPool, *, max_attempts: int = MAX_ATTEMPTS) -> None:
        """The pool stays the caller's to close."""
        self._pool = pool
        self._max_attempts = max_attempts
        self._queue: deque[Assignment] = deque()
        self._work: dict[tuple[int, str], _Work] = {}
        self._stopping = False

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment; its key must not be pending already."""
        assert assignment.key not in self._work, f"{assignment.key} is already pending"
        pieces = parts(assignment.items)
        self._work[assignment.key] = _Work(assignment, [0] * len(pieces))
        self._queue += (
            replace(assignment, items=items, part=part) for part, items in enumerate(pieces)
        )
        self._feed()

    def poll(self, timeout: float) -> tuple[Concluded, ...]:
        """What has been settled; waits up to `timeout` seconds for the first news.

        Raises:
            EvomergeError: the pool cannot start workers.
        """
        self._feed()
        concluded = [self._settle(answer) for answer in self._pool.poll(timeout)]
        self._feed()
        return tuple(entry for entry in concluded if entry is not None)

    def pending(self) -> int:
        """How many assignments are not settled yet."""
        return len(self._work)

    def cancel_queued(self) -> None:
        """Begin nothing more: drop what no worker has begun in full, and what is lost from now on.

        An assignment of which a part is dropped can never be settled, so it is dropped as well.
        """
        self._stopping = True
        for assignment in (*self._queue, *self._pool.withdraw()):
            self._work.pop(assignment.key, None)
        self._queue.clear()

    def _feed(self) -> None:
        """Hand over as much as the pool has workers: what waits here can still change places."""
        while self._queue and self._pool.pending() < self._pool.size:
            assignment = self._queue.popleft()
            self._work[assignment.key].attempts[assignment.part] += 1
            self._pool.submit(assignment)

    def _settle(self, answer: Answer) -> Concluded | None:
        part, outcome = answer.assignment, answer.outcome
        work = self._work.get(part.key)
        if work is None:  # another part has failed meanwhile
            return None
        attempts = work.attempts[part.part]
        if isinstance(outcome, Lost):
            if self._stopping:
                del self._work[part.key]
                return None
            if attempts < self._max_attempts:
                self._queue.appendleft(part)
                return None
            outcome = Failed("worker lost", f"{attempts} times; the last: {outcome.message}")
        elif _out_of_memory(outcome) and attempts < MEMORY_ATTEMPTS:
            if self._stopping:
                del self._work[part.key]
            else:
                self._queue.appendleft(part)
            return None
        if isinstance(outcome, Failed):
            del self._work[part.key]
            self._queue = deque(entry for entry in self._queue if entry.key != part.key)
            return Concluded(work.assignment, outcome, attempts, answer.worker)
        work.done[part.part] = (outcome, answer.worker)
        return self._concluded(work) if len(work.done) == len(work.attempts) else None

    def _concluded(self, work: _Work) -> Concluded:
        del self._work[work.assignment.key]
        scored = [work.done[part][0] for part in sorted(work.done)]
        outcome = Scored(
            joined([part.results for part in scored]),
            sum(part.build_seconds for part in scored),
            sum(part.score_seconds for part in scored),
            tuple(dict.fromkeys(remark for part in scored for remark in part.remarks)),
        )
        first, *others = sorted({worker for _, worker in work.done.values()})
        worker = f"{first} and {len(others)} more" if others else first
        return Concluded(work.assignment, outcome, max(work.attempts), worker)


def _out_of_memory(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.kind == OUT_OF_MEMORY
