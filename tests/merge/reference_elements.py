"""Slow float64 reference of the methods that select elements by comparing parents."""

from __future__ import annotations

import numpy as np
import torch

from tests.merge.reference import Array, Expected, flat
from tests.merge.reference_inputs import Parents, Values


def _deltas(parents: Parents) -> tuple[Array, list[Array]]:
    assert parents.base is not None
    wide = any(t.dtype == torch.float64 for t in parents.tensors)
    work = torch.float64 if wide else torch.float32
    base = parents.base.to(work)
    return flat(base), [flat(other.to(work) - base) for other in parents.others]


def sce(parents: Parents, topk: float) -> Expected:
    """Select, calculate, erase, element by element."""
    base, deltas = _deltas(parents)
    size = np.abs(base) + sum((np.abs(d) for d in deltas), np.zeros(1))
    if topk < 1.0:
        stack = np.stack(deltas)
        # The mean of three equal numbers may be off by a last bit.
        variance = np.where(np.ptp(stack, axis=0) == 0.0, 0.0, np.var(stack, axis=0))
        # Ranked by eight bits of exponent and seven of mantissa.
        rank = (variance.astype(np.float32).view(np.uint32) >> 16).astype(np.int64)
        keep = int(np.count_nonzero(rank) * max(topk, 0.0))
        chosen = np.zeros(base.size, dtype=bool)
        chosen[np.argsort(-rank, kind="stable")[:keep]] = True
        lowest = rank[chosen].min(initial=rank.max(initial=0))
        shared = (rank == lowest) * (chosen & (rank == lowest)).sum() / (rank == lowest).sum()
        entering = np.where(rank == lowest, shared, chosen)
    else:
        chosen = entering = np.ones(base.size)
    energies = [float(np.mean(d * d * entering)) for d in deltas]
    deltas = [np.where(chosen, d, 0.0) for d in deltas]
    total = sum(energies)
    shares = [1 / len(deltas) if total < 1e-6 else e / total for e in energies]
    value = base.copy()
    for i in range(base.size):
        column = [float(d[i]) for d in deltas]
        sign = 1 if sum(column) >= 0 else -1
        agree = [(s, d) for s, d in zip(shares, column, strict=True) if d * sign > 0]
        value[i] += sum(s * d for s, d in agree) / max(sum(s for s, _ in agree), 1e-6)
    return Expected(value, value, size)


def ram(parents: Parents, values: Values, *, plus: bool) -> Expected:
    """Lone changes in full (times their gain), shared changes as a mean."""
    base, deltas = _deltas(parents)
    size = np.abs(base) + sum((np.abs(d) for d in deltas), np.zeros(1))
    epsilon = values.number("epsilon")
    hits = [np.abs(d) > epsilon for d in deltas]
    count = sum((h.astype(int) for h in hits), np.zeros(base.size, dtype=int))
    value = base.copy()
    for hit, delta in zip(hits, deltas, strict=True):
        gain = 1.0
        if plus:
            ratio = (hit & (count > 1)).sum() / max((hit & (count == 1)).sum(), epsilon, 1e-30)
            gain += values.number("r") * min(max(ratio, 0.0), values.number("alpha"))
        value += np.where(hit, delta * np.where(count == 1, gain, 1 / np.maximum(count, 1)), 0.0)
    return Expected(value, value, size)


def arcee_fusion(parents: Parents) -> Expected:
    """Scores by full softmaxes, quartiles by a full sort."""
    assert parents.base is not None
    base, other = (t.double().numpy() for t in (parents.base, parents.others[0]))
    chances = [np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) + 1e-8 for x in (other, base)]
    divergence = (chances[0] * np.log(chances[0] / chances[1])).sum(axis=-1, keepdims=True)
    scores = (np.abs(_deltas(parents)[1][0]).reshape(base.shape) * divergence).reshape(-1)
    q1, q2, q3 = (np.sort(scores)[int(f * (scores.size - 1))] for f in (0.25, 0.5, 0.75))
    value = np.where(scores >= q2 + 1.5 * (q3 - q1), other.reshape(-1), base.reshape(-1))
    return Expected(value, value, np.abs(value))
