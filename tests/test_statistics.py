from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.score import (
    COST_TASK,
    PROBABILITY,
    ItemOutcome,
    Objective,
    TaskGoal,
    TaskOutcomes,
    contributions,
    task_score,
    totals,
)
from evomerge.seeding import generator
from evomerge.statistics import (
    best_of_many,
    expected_stderr,
    fitness_interval,
    interval_stderr,
    paired_difference,
    visible_difference,
)

ONE = Objective((TaskGoal("t", "acc,none"),))


def outcomes(values: list[float], task: str = "t") -> TaskOutcomes:
    items = [ItemOutcome(f"{index:04d}", value) for index, value in enumerate(values)]
    return TaskOutcomes(task, tuple(items))


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=200))
def test_mean_and_stderr_are_those_of_the_sample(values: list[float]) -> None:
    score = task_score(ONE.goals[0], outcomes(values))
    assert score.value == pytest.approx(np.mean(values))
    assert score.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)))
    assert ONE.fitness((outcomes(values),)) == pytest.approx(np.mean(values))


def test_perplexity_is_lower_for_better_models_and_fitness_higher() -> None:
    goal = TaskGoal("t", "word_perplexity,none", 1.0, "weighted_perplexity", False)
    objective = Objective((goal,))
    good = TaskOutcomes("t", (ItemOutcome("a", -2.0, 4.0), ItemOutcome("b", -1.0, 2.0)))
    bad = TaskOutcomes("t", (ItemOutcome("a", -8.0, 4.0), ItemOutcome("b", -4.0, 2.0)))
    assert task_score(goal, good).value == pytest.approx(math.exp(0.5))
    assert task_score(goal, bad).value == pytest.approx(math.exp(2.0))
    assert objective.fitness((good,)) > objective.fitness((bad,))


def test_a_metric_to_minimise_is_negated_once() -> None:
    objective = Objective((TaskGoal("t", "wer,none", higher_is_better=False),))
    assert objective.fitness((outcomes([0.2, 0.4]),)) == pytest.approx(-0.3)


def test_weights_share_the_fitness_whatever_the_item_counts() -> None:
    objective = Objective((TaskGoal("a", "m", 3.0), TaskGoal("b", "m", 1.0)))
    results = (outcomes([1.0] * 10, "a"), outcomes([0.0, 1.0], "b"))
    assert objective.fitness(results) == pytest.approx(0.75 + 0.125)
    assert contributions(objective, results).sum() == pytest.approx(objective.fitness(results))


def test_wilson_interval_agrees_with_a_textbook_case() -> None:
    # 81 of 263: 0.2553 to 0.3662, Newcombe 1998, Statistics in Medicine 17, table I
    interval = fitness_interval(ONE, (outcomes([1.0] * 81 + [0.0] * 182),))
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_wilson_interval_stays_inside_the_unit_interval() -> None:
    interval = fitness_interval(ONE, (outcomes([0.0] * 50),))
    assert interval.low == 0.0
    assert 0.0 < interval.high < 0.1


def test_mcnemar_is_exact() -> None:
    ours = [1.0] * 9 + [0.0] * 2 + [1.0] * 20
    theirs = [0.0] * 9 + [1.0] * 2 + [1.0] * 20
    paired = paired_difference(ONE, (outcomes(ours),), (outcomes(theirs),))
    # P(X >= 9), X ~ Binomial(11, 1/2) = (55 + 11 + 1) / 2048
    assert paired.p_value == pytest.approx(67 / 2048)
    assert paired.value == pytest.approx(7 / 31)
    assert paired.low < paired.value < paired.high


def test_permutation_test_for_values_of_many_sizes() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    base = rng.normal(size=200)
    same = paired_difference(
        ONE, (outcomes(list(base)),), (outcomes(list(base + rng.normal(size=200) * 0.01)),)
    )
    better = paired_difference(
        ONE, (outcomes(list(base + 0.1 + rng.normal(size=200) * 0.1)),), (outcomes(list(base)),)
    )
    assert same.p_value > 0.01
    assert better.p_value < 0.001
    assert better.low > 0.0


def test_identical_models_are_not_different() -> None:
    paired = paired_difference(ONE, (outcomes([0.0, 1.0]),), (outcomes([0.0, 1.0]),))
    assert (paired.value, paired.p_value) == (0.0, 1.0)


def test_other_items_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same items"):
        paired_difference(ONE, (outcomes([0.0, 1.0]),), (outcomes([0.0]),))


def test_interval_covers_the_truth() -> None:
    rng = np.random.Generator(np.random.PCG64(11))
    hits = 0
    for _ in range(200):
        a = (rng.random(150) < 0.6).astype(float)
        b = (rng.random(150) < 0.5).astype(float)
        paired = paired_difference(ONE, (outcomes(list(a)),), (outcomes(list(b)),))
        hits += paired.low <= 0.1 <= paired.high
    assert hits >= 180


def _with_cost(values: list[float], cost: float) -> tuple[TaskOutcomes, ...]:
    return (outcomes(values), TaskOutcomes(COST_TASK, (ItemOutcome("layers", cost),)))


def test_what_a_model_costs_is_certain() -> None:
    weighed = Objective((*ONE.goals, TaskGoal(COST_TASK, "layers", 0.25, higher_is_better=False)))
    answers = [float(index % 3 == 0) for index in range(120)]
    cheaper = paired_difference(weighed, _with_cost(answers, 1.0), _with_cost(answers, 1.2))
    assert cheaper.value == pytest.approx(0.2 * 0.2)
    assert cheaper.low == pytest.approx(cheaper.value)
    assert cheaper.p_value < 1e-6
    dearer = paired_difference(weighed, _with_cost(answers, 1.2), _with_cost(answers, 1.0))
    assert dearer.p_value > 0.99
    # Six answers better of 120 against a cost that takes half of the gain.
    better = [1.0 if index < 6 else value for index, value in enumerate(answers)]
    free = paired_difference(weighed, _with_cost(better, 1.0), _with_cost(answers, 1.0))
    paid = paired_difference(weighed, _with_cost(better, 1.06), _with_cost(answers, 1.0))
    assert 0 < paid.value < free.value
    assert free.p_value < paid.p_value


@pytest.mark.parametrize("n", [250, 1500])
def test_a_visible_difference_is_found_in_four_of_five_cases(n: int) -> None:
    stderr = expected_stderr(ONE, {"t": n})
    assert stderr is not None
    truth = visible_difference(stderr)
    rng = generator(0, "power", n)
    # one item in ten changes, so much more often for the better that the mean is `truth`
    better = (0.1 + truth) / 2.0
    changes = rng.choice([1.0, -1.0, 0.0], p=[better, 0.1 - better, 0.9], size=(4000, n))
    z = changes.mean(axis=1) / (changes.std(axis=1) / math.sqrt(n))
    assert (z > 1.6449).mean() == pytest.approx(0.8, abs=0.04)


def test_the_expected_error_weights_tasks_as_the_objective_does() -> None:
    def goal(task: str, weight: float, aggregation: str = "mean") -> TaskGoal:
        return TaskGoal(task, "m", weight, aggregation)

    two = Objective((goal("a", 3.0), goal("b", 1.0)))
    expected = math.sqrt(0.1 * (0.75**2 / 100 + 0.25**2 / 400))
    assert expected_stderr(two, {"a": 100, "b": 400}) == pytest.approx(expected)
    ignored = Objective((goal("a", 1.0), goal("b", 0.0, "perplexity")))
    assert expected_stderr(ignored, {"a": 100, "b": 9}) == pytest.approx(math.sqrt(0.001))
    mixed = Objective((goal("a", 1.0), goal("b", 0.1, "perplexity")))
    assert expected_stderr(mixed, {"a": 100, "b": 9}) is None


def test_the_error_behind_an_interval() -> None:
    assert interval_stderr(0.5 - 1.959964 * 0.02, 0.5 + 1.959964 * 0.02) == pytest.approx(0.02)


def answers(quality: float, seed: int, count: int = 300) -> TaskOutcomes:
    """Right where the item is easy enough; models share how hard items are, not their luck."""
    hard = np.random.default_rng(7).normal(0.0, 1.0, count)
    luck = np.random.default_rng(seed).normal(0.0, 0.7, count)
    return outcomes([float(q) for q in quality + luck > hard])


def test_the_best_of_one_is_a_paired_test() -> None:
    ours, theirs = (answers(0.2, 1),), (answers(0.0, 2),)
    alone = paired_difference(ONE, ours, theirs).p_value
    assert best_of_many(ONE, ours, (), theirs) == pytest.approx(alone, abs=0.01)


def test_the_best_of_many_needs_a_larger_lead() -> None:
    ours, theirs = (answers(0.2, 1),), (answers(0.0, 2),)
    others = [(answers(0.0, seed),) for seed in range(3, 11)]
    few, many = (best_of_many(ONE, ours, others[:n], theirs) for n in (1, 8))
    assert best_of_many(ONE, ours, (), theirs) < few < many


def test_models_that_answer_alike_count_as_one() -> None:
    ours, theirs = (answers(0.2, 1),), (answers(0.0, 2),)
    assert best_of_many(ONE, ours, (ours, ours, ours), theirs) == best_of_many(
        ONE, ours, (), theirs
    )


def test_chance_alone_rarely_makes_the_best_of_many_look_better() -> None:
    """Nobody is better; the best of twenty wins a plain paired test too often."""
    plain = corrected = 0
    for trial in range(40):
        models = [(answers(0.0, 1000 + 30 * trial + k, 200),) for k in range(21)]
        theirs, others = models[0], models[1:]
        best = max(others, key=ONE.fitness)
        rivals = [model for model in others if model is not best]
        plain += paired_difference(ONE, best, theirs).p_value < 0.05
        corrected += best_of_many(ONE, best, rivals, theirs) < 0.05
    assert plain >= 5  # of 40
    assert corrected <= 2


def test_who_left_early_was_scored_on_fewer_items() -> None:
    ours, theirs = (answers(0.2, 1),), (answers(0.0, 2),)
    part = answers(0.0, 3).only(frozenset(f"{index:04d}" for index in range(75)))
    whole = best_of_many(ONE, ours, (), theirs)
    assert whole <= best_of_many(ONE, ours, ((part,),), theirs) < 1.0
    with pytest.raises(ValueError, match="same items"):
        best_of_many(ONE, (outcomes([1.0] * 301),), (), theirs)


def test_cost_shifts_every_item_in_the_family_test_as_in_the_paired_one() -> None:
    goals = (TaskGoal("t", "acc,none"), TaskGoal(COST_TASK, "layers", 0.5, higher_is_better=False))
    objective = Objective(goals)

    def model(quality: float, seed: int, cost: float) -> tuple[TaskOutcomes, ...]:
        return (answers(quality, seed), outcomes([cost], COST_TASK))

    ours, cheap, dear = model(0.2, 1, 1.0), model(0.0, 2, 1.0), model(0.0, 2, 1.5)
    assert best_of_many(objective, ours, (), dear) < best_of_many(objective, ours, (), cheap)
    alone = paired_difference(objective, ours, dear).p_value
    assert best_of_many(objective, ours, (), dear) == pytest.approx(alone, abs=0.01)


def test_a_strategy_learns_from_probabilities_and_people_see_the_metric() -> None:
    goals = (TaskGoal("a", "acc,none", 3.0, learn_from=PROBABILITY), TaskGoal("b", "acc,none"))
    objective = Objective(goals)
    likely = TaskOutcomes(
        "a", tuple(ItemOutcome(f"{k}", float(k > 1), probability=0.2 * k) for k in range(4))
    )
    results = (likely, outcomes([1.0, 0.0], "b"))
    assert objective.fitness(results) == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    assert objective.aims(totals(results)) == pytest.approx((0.75 * 0.3 + 0.25 * 0.5,))
    assert contributions(objective, results).sum() == pytest.approx(objective.fitness(results))
