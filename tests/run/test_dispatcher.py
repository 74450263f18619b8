from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import pytest

from evomerge.candidate import OUT_OF_MEMORY, Assignment, Failed, ItemSelection, Lost, Scored
from evomerge.recipe import Recipe, Source
from evomerge.run.pool import Answer, Dispatcher

SCORED = Scored((), 0.0, 0.0)


class ScriptedPool:
    """Answers what the test says, and remembers what it was given in which order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.given: list[int] = []
        self.begun: dict[int, Assignment] = {}
        self.queue: deque[Assignment] = deque()
        self.answers: list[Answer] = []

    def submit(self, assignment: Assignment) -> None:
        self.given.append(assignment.candidate)
        self.begun[assignment.candidate] = assignment

    def answer(self, candidate: int, outcome: Scored | Failed | Lost) -> None:
        self.answers.append(Answer(self.begun.pop(candidate), outcome, "worker 7"))

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        assert timeout == 0.5
        answers, self.answers = tuple(self.answers), []
        return answers

    def pending(self) -> int:
        return len(self.begun) + len(self.answers)

    def withdraw(self) -> tuple[Assignment, ...]:
        last = list(self.begun)[-1]
        return (self.begun.pop(last),)

    def close(self) -> None:
        raise AssertionError("the pool belongs to the caller")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def assignment(candidate: int) -> Assignment:
    recipe = Recipe("linear", models=(Source("a"),))
    return Assignment(candidate, "search", recipe, ItemSelection(()))


@pytest.fixture
def pool() -> ScriptedPool:
    return ScriptedPool(size=2)


@pytest.fixture
def dispatcher(pool: ScriptedPool) -> Dispatcher:
    dispatcher = Dispatcher(pool)
    for candidate in range(5):
        dispatcher.submit(assignment(candidate))
    return dispatcher


def test_the_pool_gets_as_much_as_it_has_workers(
    pool: ScriptedPool, dispatcher: Dispatcher
) -> None:
    assert pool.given == [0, 1]
    assert dispatcher.poll(0.5) == ()
    pool.answer(1, SCORED)
    (concluded,) = dispatcher.poll(0.5)
    assert (concluded.assignment.candidate, concluded.outcome) == (1, SCORED)
    assert (concluded.attempts, concluded.worker) == (1, "worker 7")
    assert pool.given == [0, 1, 2]
    assert dispatcher.pending() == 4


def test_lost_work_goes_first(pool: ScriptedPool, dispatcher: Dispatcher) -> None:
    pool.answer(0, Lost("killed"))
    assert dispatcher.poll(0.5) == ()
    assert pool.given == [0, 1, 0]
    assert dispatcher.pending() == 5
    pool.answer(0, Failed("unusable merge", "NaN"))
    (concluded,) = dispatcher.poll(0.5)
    assert (concluded.outcome, concluded.attempts) == (Failed("unusable merge", "NaN"), 2)


def test_three_losses_are_a_failure(pool: ScriptedPool, dispatcher: Dispatcher) -> None:
    for message in ("killed", "killed again"):
        pool.answer(0, Lost(message))
        assert dispatcher.poll(0.5) == ()
    pool.answer(0, Lost("hung"))
    (concluded,) = dispatcher.poll(0.5)
    assert concluded.outcome == Failed("worker lost", "3 times; the last: hung")
    assert concluded.attempts == 3
    assert pool.given == [0, 1, 0, 0, 2]


def test_out_of_memory_gets_a_second_worker(pool: ScriptedPool, dispatcher: Dispatcher) -> None:
    full = Failed(OUT_OF_MEMORY, "tried to allocate 4 GB")
    pool.answer(0, full)
    assert dispatcher.poll(0.5) == ()
    assert pool.given == [0, 1, 0]
    pool.answer(0, full)
    (concluded,) = dispatcher.poll(0.5)
    assert (concluded.outcome, concluded.attempts) == (full, 2)


def test_cancelling_keeps_only_what_a_worker_has_begun(
    pool: ScriptedPool, dispatcher: Dispatcher
) -> None:
    dispatcher.cancel_queued()
    assert dispatcher.pending() == 1
    pool.answer(0, SCORED)
    assert [entry.outcome for entry in dispatcher.poll(0.5)] == [SCORED]
    assert dispatcher.pending() == 0
    assert pool.given == [0, 1]


def test_work_lost_after_cancelling_is_not_tried_again(
    pool: ScriptedPool, dispatcher: Dispatcher
) -> None:
    dispatcher.cancel_queued()
    pool.answer(0, Lost("killed"))
    assert dispatcher.poll(0.5) == ()
    assert dispatcher.pending() == 0
    assert pool.given == [0, 1]


def test_a_settled_assignment_may_be_submitted_again_but_not_a_pending_one(
    pool: ScriptedPool, dispatcher: Dispatcher
) -> None:
    with pytest.raises(AssertionError, match="already pending"):
        dispatcher.submit(assignment(4))
    pool.answer(0, SCORED)
    dispatcher.poll(0.5)
    dispatcher.submit(assignment(0))
    assert dispatcher.pending() == 5
