"""The pool for debugging and tests: one worker, in this process, when it is polled."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Self, final

from evomerge.candidate import OUT_OF_MEMORY, Assignment, Failed, Lost
from evomerge.run.pool import Answer, EvaluatingWorker, WorkerFactory, WorkerPool
from evomerge.run.pools.backoff import Backoff
from evomerge.run.pools.serving import answer, start_failure, started


@final
class InlinePool:
    """Carries out one assignment per `poll`, however long it takes; it knows no deadline."""

    def __init__(self, factory: WorkerFactory) -> None:
        """The worker is made at the first poll with something to do."""
        self._factory = factory
        self._worker: EvaluatingWorker | None = None
        self._queue: deque[Assignment] = deque()
        self._backoff = Backoff()

    @property
    def size(self) -> int:
        """Always 1."""
        return 1

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment."""
        self._queue.append(assignment)

    def poll(self, timeout: float) -> tuple[Answer, ...]:  # noqa: ARG002 - nothing to wait for
        """Carry out the next assignment.

        Raises:
            EvomergeError: the worker cannot be made.
        """
        if not self._queue:
            return ()
        worker = self._ready_worker()
        assignment = self._queue.popleft()
        outcome = answer(worker, assignment)
        lost = isinstance(outcome, Lost)
        if lost or (isinstance(outcome, Failed) and outcome.kind == OUT_OF_MEMORY):
            self._worker = None
        return (Answer(assignment, outcome, started().name),)

    def pending(self) -> int:
        """How many assignments wait."""
        return len(self._queue)

    def withdraw(self) -> tuple[Assignment, ...]:
        """Take back all assignments: none is begun outside `poll`."""
        taken = tuple(self._queue)
        self._queue.clear()
        return taken

    def close(self) -> None:
        """Let go of the worker."""
        self._queue.clear()
        self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ready_worker(self) -> EvaluatingWorker:
        while self._worker is None:
            try:
                self._worker = self._factory()
            except Exception as error:
                failure = start_failure(error)
                final_error = self._backoff.not_started(
                    0, failure, time.monotonic(), ready=False, starting=False
                )
                if final_error is not None:
                    raise final_error from error
                time.sleep(max(0.0, self._backoff.due(0) - time.monotonic()))
        self._backoff.started(0)
        return self._worker


_conforms: type[WorkerPool] = InlinePool
