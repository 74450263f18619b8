from __future__ import annotations

import re
from typing import Any

import pytest

from evomerge.constraints import Constraint
from evomerge.errors import InvalidInput
from evomerge.run.config import ObjectiveConfig
from evomerge.run.objective_rules import check_objective, read_constraints

TASKS = [{"task": "a", "metric": "acc"}, {"task": "b", "metric": "acc", "weight": 0.0}]
STAGES = [frozenset({"base", "./p", "./q"})]


def objective(*constraints: dict[str, Any], **changed: Any) -> ObjectiveConfig:
    found = {"tasks": TASKS, "constraints": list(constraints), **changed}
    return ObjectiveConfig.model_validate(found)


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        ([{"task": "aa", "min": 0.1}], "[0].task: 'aa' is not in objective.tasks; did you mean"),
        ([{"task": "a", "metric": "f1", "min": 0.1}], "[0].metric: objective.tasks scores a by"),
        ([{"task": "a"}], "[0]: no limit; add one of min, max, min_ratio, max_ratio, max_drop"),
        ([{"task": "a", "min": 0.1, "of": "./p"}], "[0].of: min and max compare with no model"),
        ([{"task": "a", "min": 0.5, "max": 0.4}], "[0]: nothing keeps both min 0.5 and max 0.4"),
        (
            [{"task": "a", "min": 0.5}, {"task": "a", "max": 0.4}],
            "[1]: nothing keeps both min 0.5 and max 0.4 of a",
        ),
        (
            [{"task": "a", "min_ratio": 1.1}, {"task": "a", "max_ratio": 1.0}],
            "[1]: nothing keeps both min_ratio 1.1 and max_ratio 1",
        ),
    ],
)
def test_one_line_for_each_wrong_constraint(constraints: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)) as caught:
        check_objective(objective(*constraints))
    assert len(caught.value.problems) == 1


def test_all_problems_in_one_report() -> None:
    wrong = objective({"task": "x", "min": 0.1}, {"task": "a"}, combine="pareto")
    with pytest.raises(InvalidInput, match="pareto needs 2 to 4 tasks") as caught:
        check_objective(wrong)
    assert len(caught.value.problems) == 3


def test_limits_that_can_be_kept_pass() -> None:
    check_objective(
        objective(
            {"task": "a", "metric": "acc", "min": 0.4, "max": 0.9},
            {"task": "a", "min_ratio": 1.1, "of": "./p"},
            {"task": "a", "max_ratio": 1.0, "of": "./q"},
            {"task": "b", "max_drop": 0.0},
        )
    )


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "got 1; give another task weight, or use weighted_mean"),
        ([1.0, 0.0], "got 1; give another task weight"),
        ([1.0] * 5, "got 5; give some weight 0"),
        ([0.0, 0.0], "every weight is 0"),
    ],
)
def test_pareto_needs_two_to_four_objectives(weights: list[float], said: str) -> None:
    tasks = [{"task": f"t{k}", "metric": "acc", "weight": w} for k, w in enumerate(weights)]
    with pytest.raises(InvalidInput, match=said):
        check_objective(objective(tasks=tasks, combine="pareto"))


def test_cost_is_an_objective_too() -> None:
    cost = {"measure": "layers", "weight": 0.1}
    check_objective(objective(tasks=TASKS[:1], combine="pareto", cost=cost))


def test_relative_limits_compare_with_the_base_unless_they_say_otherwise() -> None:
    found = read_constraints(
        objective(
            {"task": "b", "max_drop": 0.02, "min": 0.1},
            {"task": "a", "min_ratio": 0.9, "of": "./p"},
        ),
        "base",
        STAGES,
    )
    assert found == (
        Constraint("b", "min", 0.1),
        Constraint("b", "max_drop", 0.02, "base"),
        Constraint("a", "min_ratio", 0.9, "./p"),
    )


def test_the_model_compared_with_must_be_there() -> None:
    wrong = objective({"task": "a", "max_drop": 0.1}, {"task": "b", "min_ratio": 1, "of": "./pp"})
    with pytest.raises(InvalidInput, match="there is none; name a model: of") as caught:
        read_constraints(wrong, None, STAGES)
    assert "'./pp' is neither the base nor a parent; did you mean './p'?" in str(caught.value)
    with pytest.raises(InvalidInput, match="nor a parent of every stage"):
        read_constraints(objective({"task": "a", "max_drop": 0.1}), "base", [*STAGES, frozenset()])
