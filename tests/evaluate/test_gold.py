from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluate.gold import CHOICE_METRICS, choice_probability

LIKELIHOODS = st.lists(st.floats(-80.0, -0.1), min_size=2, max_size=6)


@given(likelihoods=LIKELIHOODS, metric=st.sampled_from(CHOICE_METRICS))
def test_probabilities_of_the_choices_sum_to_one(likelihoods: list[float], metric: str) -> None:
    choices = ["ä" * (place + 1) for place in range(len(likelihoods))]
    each = [choice_probability(metric, likelihoods, choices, [k]) for k in range(len(choices))]
    assert sum(each) == pytest.approx(1.0)
    assert choice_probability(metric, likelihoods, choices, range(len(choices))) == pytest.approx(
        1.0
    )


@given(likelihoods=LIKELIHOODS)
def test_above_a_half_the_metric_is_right(likelihoods: list[float]) -> None:
    choices = ["a"] * len(likelihoods)
    for place, value in enumerate(likelihoods):
        if choice_probability("acc", likelihoods, choices, [place]) > 0.5 + 1e-9:
            assert value == max(likelihoods)


def test_lengths_count_as_the_metric_counts_them() -> None:
    likelihoods, choices = [-4.0, -4.0], ["äb", "abcd"]
    by_characters = 1.0 / (1.0 + math.exp(-4.0 / 4.0 + 4.0 / 2.0))
    by_bytes = 1.0 / (1.0 + math.exp(-4.0 / 4.0 + 4.0 / 3.0))
    assert choice_probability("acc", likelihoods, choices, [0]) == pytest.approx(0.5)
    assert choice_probability("acc_norm", likelihoods, choices, [0]) == pytest.approx(by_characters)
    assert choice_probability("acc_bytes", likelihoods, choices, [0]) == pytest.approx(by_bytes)


def test_unconditional_likelihoods_after_the_choices_do_not_count() -> None:
    assert choice_probability("acc", [-1.0, -2.0, -9.0, -9.0], ["a", "b"], [0]) == pytest.approx(
        1.0 / (1.0 + math.exp(-1.0))
    )
