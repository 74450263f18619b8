from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.constraints import Constraint, Kept, finding, violation
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes, totals

ACC = TaskGoal("t", "acc,none")
PPL = TaskGoal("t", "word_perplexity,none", 0.0, "weighted_perplexity", higher_is_better=False)


def answers(right: int, count: int) -> tuple[TaskOutcomes, ...]:
    found = (ItemOutcome(f"{i:04d}", float(i < right)) for i in range(count))
    return (TaskOutcomes("t", tuple(found)),)


def text(loss: float, count: int = 40) -> tuple[TaskOutcomes, ...]:
    """Perplexity exp(loss), the words of some items a little harder."""
    found = (ItemOutcome(f"{i:04d}", -10.0 * (loss + 0.1 * (-1) ** i), 10.0) for i in range(count))
    return (TaskOutcomes("t", tuple(found)),)


@pytest.mark.parametrize(
    ("constraint", "right", "expected"),
    [
        (Constraint("t", "min", 0.4), 50, 0.0),
        (Constraint("t", "min", 0.6), 50, 0.1),
        (Constraint("t", "max", 0.3), 50, 0.2),
        (Constraint("t", "min_ratio", 0.5, "m"), 50, 0.0),
        (Constraint("t", "min_ratio", 0.9, "m"), 50, 0.22),
        (Constraint("t", "max_ratio", 0.5, "m"), 50, 0.1),
        (Constraint("t", "max_drop", 0.3, "m"), 50, 0.0),
        (Constraint("t", "max_drop", 0.1, "m"), 50, 0.2),
    ],
)
def test_how_far_a_limit_is_exceeded(constraint: Constraint, right: int, expected: float) -> None:
    ours, known = totals(answers(right, 100)), {"m": totals(answers(80, 100))}
    found = violation(Objective((ACC,)), [constraint], ours, known)
    assert found == pytest.approx(expected)


def test_violations_of_a_perplexity_are_in_nats() -> None:
    objective = Objective((PPL,))
    ratio = Constraint("t", "max_ratio", 1.1, "m")
    drop = Constraint("t", "max_drop", 0.5, "m")
    known = {"m": totals(text(2.0))}
    assert violation(objective, [ratio, drop], totals(text(2.05)), known) == 0.0
    # exp(2.2) is 1.2214 times exp(2.0): (1.2214 - 1.1) / 1.2214 at the slope of exp(2.2)
    found = violation(objective, [ratio], totals(text(2.2)), known)
    assert found == pytest.approx(1.0 - 1.1 / math.exp(0.2))
    assert violation(objective, [drop], totals(text(1.5)), known) == 0.0


def test_violations_add_up() -> None:
    both = [Constraint("t", "min", 0.6), Constraint("t", "min_ratio", 1.0, "m")]
    known = {"m": totals(answers(55, 100))}
    found = violation(Objective((ACC,)), both, totals(answers(50, 100)), known)
    assert found == pytest.approx(0.15)


@given(st.integers(0, 200))
def test_the_interval_holds_the_room_and_decides(right: int) -> None:
    constraint = Constraint("t", "min", 0.5)
    found = finding(Objective((ACC,)), constraint, answers(right, 200), None)
    assert found.room.low <= found.room.value <= found.room.high
    assert found.room.value == pytest.approx(right / 200 - 0.5)
    assert (found.kept is Kept.KEPT) == (found.room.low >= 0.0)
    assert (found.kept is Kept.VIOLATED) == (found.room.high < 0.0)


@pytest.mark.parametrize(
    ("right", "kept"), [(395, Kept.KEPT), (300, Kept.VIOLATED), (380, Kept.UNCLEAR)]
)
def test_a_guard_is_judged_on_the_same_items(right: int, kept: Kept) -> None:
    guard = Constraint("t", "max_drop", 0.05, "m")
    found = finding(Objective((ACC,)), guard, answers(right, 500), answers(400, 500))
    assert found.kept is kept
    assert found.limit == pytest.approx(0.75)
    # only the discordant items are uncertain: far less than either score alone
    assert found.room.high - found.room.low < 0.09


def test_the_interval_of_a_perplexity_is_paired_too() -> None:
    ratio = Constraint("t", "max_ratio", 1.1, "m")
    found = finding(Objective((PPL,)), ratio, text(2.05), text(2.0))
    assert found.kept is Kept.KEPT
    assert found.limit == pytest.approx(1.1 * math.exp(2.0))


def test_how_constraints_read() -> None:
    assert Constraint("t", "min", 0.4).text(ACC) == "t acc at least 0.4"
    assert Constraint("t", "max_drop", 0.02, "./m").text(PPL) == (
        "t word_perplexity at most 0.02 above that of ./m"
    )
    assert Constraint("t", "min_ratio", 0.9, "m").text(ACC) == "t acc at least 0.9 times that of m"
