"""What a pool of workers promises the driver, and what becomes of work whose worker vanished."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, final

from evomerge.candidate import OUT_OF_MEMORY, Assignment, Failed, Lost, Outcome, Scored

MAX_ATTEMPTS = 3
MEMORY_ATTEMPTS = 2
"""How many workers, each with all its memory, a candidate that does not fit is tried on."""
Deadline = Callable[[Assignment], float]
"""Seconds after which the worker that begins an assignment now is taken for hung."""


class EvaluatingWorker(Protocol):
    """One place where models are merged and scored."""

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Carry out one evaluation.

        A candidate that cannot be scored is a Failed. An exception means that this worker is
        broken: the pool replaces it, and another one tries the assignment again.
        """
        ...


class WorkerFactory(Protocol):
    """What a pool sends to a process to make a worker there: picklable, a few hundred bytes."""

    def __call__(self) -> EvaluatingWorker:
        """Make a worker; an EvomergeError from here ends the run with its message."""
        ...


@dataclass(frozen=True)
class Answer:
    """What became of one assignment at one worker; `worker` names it for people."""

    assignment: Assignment
    outcome: Scored | Failed | Lost
    worker: str


class WorkerPool(Protocol):
    """Workers that take assignments in the order submitted and answer in any order.

    Each assignment is answered exactly once. The pool replaces workers that die or miss the
    deadline and answers Lost for what they were doing; it never tries an assignment again itself.
    A worker that ran out of memory is replaced, too: the next one starts with all of it.
    Workers start when the pool is made and get ready in their own time.
    """

    @property
    def size(self) -> int:
        """How many workers it tries to keep."""
        ...

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment; never waits."""
        ...

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        """The answers that have arrived; waits up to `timeout` seconds for the first.

        Returns at once when nothing is pending.

        Raises:
            EvomergeError: a worker could not be started and trying again is hopeless.
        """
        ...

    def pending(self) -> int:
        """How many assignments are not answered yet."""
        ...

    def withdraw(self) -> tuple[Assignment, ...]:
        """Take back the assignments that no worker has begun; they will not be answered."""
        ...

    def close(self) -> None:
        """Stop all workers at once and drop what they were doing; may be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True)
class Concluded:
    """An assignment that is settled: its outcome, after how many attempts, and by which worker."""

    assignment: Assignment
    outcome: Outcome
    attempts: int
    worker: str


@final
class Dispatcher:
    """Feeds a pool and tries lost work again, first in line, up to `max_attempts` (stateful).

    First in line, because a whole generation may wait for it. An assignment that loses every
    worker it gets is then Failed: it must not take the run down with it. One that does not fit in
    memory gets a second worker before that is the candidate's own failure.
    """

    def __init__(self, pool: WorkerPool, *, max_attempts: int = MAX_ATTEMPTS) -> None:
        """The pool stays the caller's to close."""
        self._pool = pool
        self._max_attempts = max_attempts
        self._queue: deque[Assignment] = deque()
        self._attempts: dict[tuple[int, str], int] = {}
        self._stopping = False

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment; its key must not be pending already."""
        assert assignment.key not in self._attempts, f"{assignment.key} is already pending"
        self._attempts[assignment.key] = 0
        self._queue.append(assignment)
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
        return len(self._attempts)

    def cancel_queued(self) -> None:
        """Begin nothing more: drop what no worker has begun, and what is lost from now on."""
        self._stopping = True
        for assignment in (*self._queue, *self._pool.withdraw()):
            del self._attempts[assignment.key]
        self._queue.clear()

    def _feed(self) -> None:
        """Hand over as much as the pool has workers: what waits here can still change places."""
        while self._queue and self._pool.pending() < self._pool.size:
            assignment = self._queue.popleft()
            self._attempts[assignment.key] += 1
            self._pool.submit(assignment)

    def _settle(self, answer: Answer) -> Concluded | None:
        assignment, outcome = answer.assignment, answer.outcome
        attempts = self._attempts[assignment.key]
        if isinstance(outcome, Lost):
            if self._stopping:
                del self._attempts[assignment.key]
                return None
            if attempts < self._max_attempts:
                self._queue.appendleft(assignment)
                return None
            outcome = Failed("worker lost", f"{attempts} times; the last: {outcome.message}")
        elif _out_of_memory(outcome) and attempts < MEMORY_ATTEMPTS and not self._stopping:
            self._queue.appendleft(assignment)
            return None
        del self._attempts[assignment.key]
        return Concluded(assignment, outcome, attempts, answer.worker)


def _out_of_memory(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.kind == OUT_OF_MEMORY
