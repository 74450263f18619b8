from __future__ import annotations

from evomerge.candidate import Assignment, Failed, ItemSelection
from evomerge.recipe import Recipe, Source
from evomerge.run.deadlines import UNKNOWN, Deadlines
from evomerge.run.records import Tally


def assignment(number: int, items: int) -> Assignment:
    selection = ItemSelection((("task", tuple(str(item) for item in range(items))),))
    return Assignment(number, "search", Recipe("linear", models=(Source("a"),)), selection)


def scored(items: int, build: float, per_item: float) -> Tally:
    return Tally(1, 1, "search", (), None, build, items * per_item, items)


def observed(*times: float, floor: float = 0.0) -> Deadlines:
    deadlines = Deadlines(floor=floor)
    for per_item in times:
        deadlines.observe(scored(10, 2.0, per_item))
    return deadlines


def test_while_nothing_is_known_the_limit_counts() -> None:
    assert Deadlines()(assignment(1, 10)) == UNKNOWN
    assert observed(1.0, 1.0, 1.0, 1.0)(assignment(1, 10)) == UNKNOWN
    deadlines = Deadlines(30.0)
    for _ in range(9):
        deadlines.observe(Tally(1, 1, "search", None, Failed("error", "shape"), 0.0, 0.0, 0))
    assert deadlines(assignment(1, 10)) == 30.0


def test_more_items_may_take_longer() -> None:
    deadlines = observed(*[1.0] * 5)
    assert deadlines(assignment(1, 10)) == 10.0 * (2.0 + 10.0)
    assert deadlines(assignment(2, 100)) == 10.0 * (2.0 + 100.0)


def test_a_slow_candidate_gives_others_more_time() -> None:
    assert observed(*[1.0] * 6, 20.0)(assignment(1, 10)) == 3.0 * (2.0 + 200.0)


def test_floor_and_limit() -> None:
    assert observed(*[0.001] * 6, floor=60.0)(assignment(1, 10)) == 60.0
    assert observed(*[500.0] * 6)(assignment(1, 10)) == UNKNOWN


def test_a_second_try_gets_more_time() -> None:
    deadlines = observed(*[1.0] * 5)
    first, second = deadlines(assignment(1, 10)), deadlines(assignment(1, 10))
    assert second == 4.0 * first
    assert deadlines(assignment(2, 10)) == first
