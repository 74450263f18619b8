"""Turns what lm-eval logs about an item into an outcome; knows which aggregations have one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evomerge.errors import BuildFailed, PreflightFailed
from evomerge.score import AGGREGATIONS, ItemOutcome, TaskGoal

WEIGHTED = ("weighted_perplexity", "bits_per_byte")
"""Aggregations whose items are pairs of log-likelihood and the words or bytes it covers."""


def item_outcome(goal: TaskGoal, item: str, sample: Mapping[str, Any]) -> ItemOutcome:
    """The outcome of one logged sample of lm-eval under `goal`.

    A mean metric gives its value with weight 1; perplexity gives the log-likelihood in nats with
    weight 1; the weighted perplexities and bits_per_byte give the log-likelihood with the number
    of words or bytes.

    Raises:
        BuildFailed: the value is NaN or Inf.
        PreflightFailed: the metric gives something else than a number for an item.
    """
    value = sample[goal.metric.partition(",")[0]]
    try:
        pair = value if goal.aggregation in WEIGHTED else (value, 1.0)
        number, weight = (float(part) for part in pair)
    except (TypeError, ValueError):
        raise PreflightFailed(
            f"task '{goal.task}': metric {goal.metric} is not a number for item {item} but "
            f"{value!r}; choose a metric with one of the aggregations {', '.join(AGGREGATIONS)}"
        ) from None
    if not (math.isfinite(number) and math.isfinite(weight)):
        raise BuildFailed(
            f"task '{goal.task}', item {item}: {goal.metric} is {number}; the model answers with "
            "NaN or Inf"
        )
    return ItemOutcome(item, number, weight)
