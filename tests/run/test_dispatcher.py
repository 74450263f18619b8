from __future__ import annotations

from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import (
    OUT_OF_MEMORY,
    PART,
    Assignment,
    Failed,
    ItemSelection,
    Lost,
    Scored,
    parts,
)
from evomerge.recipe import Recipe, Source
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.pool import Answer
from evomerge.score import ItemOutcome, TaskOutcomes

SCORED = Scored((), 0.0, 0.0)


class ScriptedPool:
    """Answers what the test says, and remembers what it was given in which order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.given: list[int] = []
        self.begun: list[Assignment] = []
        self.queue: deque[Assignment] = deque()
        self.answers: list[Answer] = []

    def submit(self, assignment: Assignment) -> None:
        self.given.append(assignment.candidate)
        self.begun.append(assignment)

    def answer(self, candidate: int, outcome: Scored | Failed | Lost) -> None:
        """The first that is under way for a candidate."""
        place = [begun.candidate for begun in self.begun].index(candidate)
        self.answer_at(place, outcome)

    def answer_at(self, place: int, outcome: Scored | Failed | Lost) -> None:
        self.answers.append(Answer(self.begun.pop(place), outcome, "worker 7"))

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        assert timeout == 0.5
        answers, self.answers = tuple(self.answers), []
        return answers

    def pending(self) -> int:
        return len(self.begun) + len(self.answers)

    def withdraw(self) -> tuple[Assignment, ...]:
        return (self.begun.pop(),)

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


def large(candidate: int, items: int = 2 * PART + 1) -> Assignment:
    ids = tuple(f"{item:04d}" for item in range(items))
    return replace(assignment(candidate), items=ItemSelection((("task", ids), ("few", ("x",)))))


def scored(part: Assignment) -> Scored:
    results = tuple(
        TaskOutcomes(task, tuple(ItemOutcome(item, 0.5) for item in items))
        for task, items in part.items.tasks
        if items
    )
    cost = TaskOutcomes("cost", (ItemOutcome("layers", 1.5),))
    return Scored((*results, cost), 1.0, 2.0, ("small batch",) if part.part else ())


@pytest.fixture
def parted() -> tuple[ScriptedPool, Dispatcher]:
    pool = ScriptedPool(2)
    dispatcher = Dispatcher(pool)
    dispatcher.submit(large(0))
    dispatcher.submit(large(1))
    return pool, dispatcher


def test_parts_come_back_as_one(parted: tuple[ScriptedPool, Dispatcher]) -> None:
    pool, dispatcher = parted
    assert [part.part for part in pool.begun] == [0, 1]
    pool.answer_at(1, scored(pool.begun[1]))
    assert dispatcher.poll(0.5) == ()
    pool.answer_at(0, Lost("killed"))
    assert dispatcher.poll(0.5) == ()
    assert [(part.candidate, part.part) for part in pool.begun] == [(0, 2), (0, 0)]
    for part in tuple(pool.begun):
        pool.answer_at(pool.begun.index(part), scored(part))
    (concluded,) = dispatcher.poll(0.5)
    assert concluded.assignment == large(0)
    assert isinstance(concluded.outcome, Scored)
    assert tuple((r.task, r.items()) for r in concluded.outcome.results) == (
        *large(0).items.tasks,
        ("cost", ("layers",)),
    )
    assert (concluded.outcome.build_seconds, concluded.outcome.score_seconds) == (3.0, 6.0)
    assert concluded.outcome.remarks == ("small batch",)
    assert (concluded.attempts, concluded.worker) == (2, "worker 7")
    assert dispatcher.pending() == 1


def test_a_part_that_fails_settles_the_whole(parted: tuple[ScriptedPool, Dispatcher]) -> None:
    pool, dispatcher = parted
    late = pool.begun[1]
    pool.answer_at(0, Failed("error", "shape"))
    (concluded,) = dispatcher.poll(0.5)
    assert (concluded.assignment, concluded.outcome) == (large(0), Failed("error", "shape"))
    assert [(part.candidate, part.part) for part in pool.begun] == [(0, 1), (1, 0)]
    pool.answer_at(0, scored(late))
    assert dispatcher.poll(0.5) == ()
    assert dispatcher.pending() == 1


def test_what_is_begun_in_part_is_dropped_when_cancelling(
    parted: tuple[ScriptedPool, Dispatcher],
) -> None:
    pool, dispatcher = parted
    dispatcher.cancel_queued()
    assert dispatcher.pending() == 0
    pool.answer_at(0, scored(pool.begun[0]))
    assert dispatcher.poll(0.5) == ()


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=3))
def test_parts_divide_the_items_about_equally(sizes: list[int]) -> None:
    whole = ItemSelection(
        tuple((f"t{place}", tuple(map(str, range(size)))) for place, size in enumerate(sizes))
    )
    pieces = parts(whole)
    assert len(pieces) == max(1, *(-(-size // PART) for size in (0, *sizes)))
    for place, (task, items) in enumerate(whole.tasks):
        slices = [piece.tasks[place] for piece in pieces]
        assert {name for name, _ in slices} == {task}
        assert tuple(item for _, part in slices for item in part) == items
        lengths = [len(part) for _, part in slices]
        assert max(lengths) <= PART
        assert max(lengths) - min(lengths) <= 1


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
