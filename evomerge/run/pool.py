"""What a pool of workers promises the driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from evomerge.candidate import Assignment, Failed, Lost, Scored

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
