"""The probability that a model gives to the right answer: what 0 or 1 leaves out.

A ranking by it needs less than half the items for the same certainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes")
"""Metrics of multiple choice that ask which answer is the most likely."""


def choice_probability(
    metric: str, likelihoods: Sequence[float], choices: Sequence[str], right: Sequence[int]
) -> float:
    """The probability of the right choices among all, in [0, 1].

    Args:
        metric: one of `CHOICE_METRICS`; the likelihoods are divided by lengths as it does.
        likelihoods: log-likelihood of every choice, in nats.
        choices: their texts.
        right: positions of the right ones.
    """
    lengths = [_length(metric, choice) for choice in choices]
    scaled = [value / length for value, length in zip(likelihoods, lengths, strict=False)]
    top = max(scaled)
    shares = [math.exp(value - top) for value in scaled]
    return sum(shares[place] for place in right) / sum(shares)


def right_choices(task: Any, doc: Any, choices: Sequence[str]) -> tuple[int, ...]:
    """The positions of the right choices of a document, as lm-eval's multiple choice finds them."""
    label = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    labels = label if isinstance(label, list) else [label]
    return tuple(one if isinstance(one, int) else list(choices).index(one) for one in labels)


def _length(metric: str, choice: str) -> float:
    if metric == "acc_norm":
        return float(max(len(choice), 1))
    return float(max(len(choice.encode()), 1)) if metric == "acc_bytes" else 1.0
