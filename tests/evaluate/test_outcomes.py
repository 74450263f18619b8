from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evomerge.errors import BuildFailed, PreflightFailed
from evomerge.evaluate.outcomes import item_outcome
from evomerge.score import ItemOutcome, TaskGoal


@pytest.mark.parametrize(
    ("aggregation", "value", "expected"),
    [
        ("mean", True, (1.0, 1.0)),
        ("mean", np.float64(0.5), (0.5, 1.0)),
        ("perplexity", -3.5, (-3.5, 1.0)),
        ("weighted_perplexity", (-3.5, 7), (-3.5, 7.0)),
        ("bits_per_byte", (-3.5, 9), (-3.5, 9.0)),
    ],
)
def test_outcomes_of_the_aggregations(
    aggregation: str, value: Any, expected: tuple[float, float]
) -> None:
    goal = TaskGoal("t", "m,none", aggregation=aggregation)
    assert item_outcome(goal, "i", {"m": value}) == ItemOutcome("i", *expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_model(value: float) -> None:
    with pytest.raises(BuildFailed, match=r"task 't', item i: m,none is .*NaN or Inf"):
        item_outcome(TaskGoal("t", "m,none"), "i", {"m": value})


@pytest.mark.parametrize("value", [(1, 0.5), "text", None])
def test_a_value_that_is_no_number_is_the_tasks_fault(value: Any) -> None:
    with pytest.raises(PreflightFailed, match=r"metric m,none is not a number for item i"):
        item_outcome(TaskGoal("t", "m,none"), "i", {"m": value})
