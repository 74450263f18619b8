from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.report.formats import (
    Scale,
    count,
    duration,
    p_clause,
    p_text,
    scale_for,
    scale_of,
    short_names,
)
from evomerge.report.summary import RunSummary

PERCENT = Scale(100.0, 1, "%", "points")


def test_shares_are_percentages(summary: RunSummary) -> None:
    assert scale_of(summary) == PERCENT


def test_log_likelihoods_are_plain_numbers(two_tasks: RunSummary) -> None:
    assert scale_of(two_tasks) == Scale(1.0, 3, "", "")


def test_a_small_loss_keeps_more_digits() -> None:
    assert scale_for([-0.8312, -0.829], [0.8312]).number(-0.8312) == "-0.8312"


def test_a_share_with_a_perplexity_beside_it_is_not_a_percentage() -> None:
    assert scale_for([0.4], [0.4, 12.0]).unit == ""


def test_values_that_are_not_numbers_do_not_decide_the_scale() -> None:
    assert scale_for([0.4, -math.inf], [0.4, math.nan]) == PERCENT


def test_numbers() -> None:
    assert PERCENT.quantity(0.936) == "93.6 %"
    assert PERCENT.lead(0.171) == "+17.1 points"
    assert PERCENT.interval(0.9164, 0.951) == "[91.6, 95.1]"
    assert PERCENT.signed_interval(-0.004, 0.02) == "[-0.4, +2.0]"
    assert replace(PERCENT, minus="\u2212").signed(-0.02) == "\u22122.0"


def test_rounding_never_leaves_a_negative_zero() -> None:
    assert PERCENT.number(-0.0001) == "0.0"
    assert PERCENT.signed(-0.0001) == "+0.0"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_missing_numbers_are_said_to_be_missing(value: float) -> None:
    assert PERCENT.quantity(value) == "n/a"
    assert PERCENT.interval(value, 0.5) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, "0.50"), (0.0432, "0.043"), (0.00012, "0.00012"), (9e-5, "<0.0001")]
)
def test_p_values(p: float, text: str) -> None:
    assert p_text(p) == text


def test_p_values_in_sentences() -> None:
    assert p_clause(0.031) == "p = 0.031"
    assert p_clause(1e-9) == "p < 0.0001"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.21, "3.2 s"), (42.4, "42 s"), (60.0, "1 min"), (203.4, "3 min 23 s"),
        (28_800.0, "8 h"), (29_461.0, "8 h 11 min"), (180_000.0, "2 d 2 h"), (math.nan, "n/a"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert (count(1, "item"), count(1250, "item")) == ("1 item", "1,250 items")


def test_short_names_drop_folders_unless_that_confuses() -> None:
    assert short_names(["org/alpha", "/data/beta"], 20) == {
        "org/alpha": "alpha", "/data/beta": "beta",
    }  # fmt: skip
    assert short_names(["a/model", "b/model"], 20) == {"a/model": "a/model", "b/model": "b/model"}


def test_only_names_of_models_have_folders() -> None:
    assert short_names(["<b>x</b>", "read / write"], 20) == {
        "<b>x</b>": "<b>x</b>", "read / write": "read / write",
    }  # fmt: skip


@given(st.lists(st.text(max_size=60)), st.integers(5, 40))
def test_short_names_fit(names: list[str], width: int) -> None:
    short = short_names(names, width)
    assert set(short) == set(names)
    assert all(len(text) <= width for text in short.values())
