"""Slow float64 reference of every merge method, written from the papers' steps with plain loops."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tests.merge.reference_inputs import Parents, Values

RANDOM_METHODS = ("dare_linear", "dare_ties", "della_linear", "della")
Array = NDArray[np.float64]
MASK_32 = 0xFFFFFFFF
VOTING_METHODS = ("ties", "dare_ties", "breadcrumbs_ties", "della")


@dataclass(frozen=True)
class Expected:
    """What a merge must give, flat: `other` is as good where a vote is undecided by rounding.

    `size` is the sum of absolute terms at each element; rounding errors are relative to it.
    """

    value: Array
    other: Array
    size: Array


def draw(seed: int, streams: Sequence[int], index: int, element: int) -> int:
    """The random 16-bit number of one element of one task vector, in Python integers."""
    text = f"{seed}\x1fstr:mask\x1fint:{streams[index // 2 * 2]}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    x = (element ^ key) & MASK_32
    x ^= x >> 16
    x = (x * 0x7FEB352D + (key >> 32)) & MASK_32
    x ^= x >> 15
    x = (x * 0x846CA68B) & MASK_32
    half = (x ^ (x >> 16)) & 0xFFFF if index % 2 else x >> 16
    return half ^ 0x8000


def random_keep(
    seed: int, streams: Sequence[int], index: int, density: float, count: int
) -> NDArray[np.bool_]:
    """Which elements survive DARE."""
    limit = round(density * 2**16)
    return np.array([draw(seed, streams, index, i) < limit for i in range(count)], dtype=bool)


def largest_keep(delta: Array, density: float) -> NDArray[np.bool_]:
    """Which elements survive trimming: a full stable sort."""
    keep = np.zeros(delta.size, dtype=bool)
    count = max(1, int(density * delta.size))
    keep[np.argsort(-np.abs(delta), kind="stable")[:count]] = True
    return keep


def middle_keep(delta: Array, density: float, gamma: float) -> NDArray[np.bool_]:
    """Which elements survive Breadcrumbs: positions in a full stable sort, outliers first."""
    keep = np.zeros(delta.size, dtype=bool)
    count, top = int(density * delta.size), int(gamma * delta.size)
    bottom = max(0, delta.size - count - top)
    order = np.argsort(-np.abs(delta), kind="stable")
    keep[order[delta.size - bottom - count : delta.size - bottom]] = True
    return keep


def ranked_keep(
    delta: torch.Tensor, density: float, epsilon: float, draws: Sequence[int]
) -> tuple[NDArray[np.bool_], Array]:
    """Which elements survive DELLA and their chances: ranks along the second axis, line by line."""
    size = delta.double().abs().numpy()
    grid = size.reshape(1, -1) if size.ndim < 2 else size
    step = np.full(grid.shape, 128)
    length = grid.shape[1]
    for place in np.ndindex(grid.shape[:1] + grid.shape[2:]):
        line = (place[0], slice(None), *place[1:])
        if length > 1:
            ranks = np.empty(length)
            ranks[np.argsort(grid[line], kind="stable")] = np.arange(length)
            step[line] = np.round(255 * (ranks / (length - 1)))
    low, rise = round((density - epsilon) * 2**24), round(2 * epsilon * 2**24 / 255)
    limits = (low + rise * step.reshape(-1)) // 256
    kept = np.array([d < limit for d, limit in zip(draws, limits, strict=True)], dtype=bool)
    return kept, np.clip(limits, 1, 2**16) / 2**16


def flat(tensor: torch.Tensor) -> Array:
    """The tensor as a float64 vector."""
    return tensor.detach().double().reshape(-1).numpy().copy()


def task_vectors(name: str, parents: Parents, values: Values) -> Expected:
    """Every method of the task-vector family."""
    assert parents.base is not None
    base = flat(parents.base)
    sparse = [_sparse(name, parents, values, i) for i in range(len(parents.others))]
    weights = list(values.numbers("weight"))
    normalize, scale = values.flag("normalize"), values.number("lambda")
    combine = _vote if name in VOTING_METHODS else _sum
    value, other, size = base.copy(), base.copy(), np.abs(base)
    for index in range(base.size):
        column = [float(delta[index]) for delta in sparse]
        low, high, terms = combine(column, weights, normalize)
        value[index] += scale * low
        other[index] += scale * high
        size[index] += abs(scale) * terms
    return Expected(value, other, size)


def _sparse(name: str, parents: Parents, values: Values, index: int) -> Array:
    assert parents.base is not None
    tensors = parents.tensors
    # Task vectors are differences in working precision; everything after that is float64 here.
    work = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    difference = parents.others[index].to(work) - parents.base.to(work)
    delta = flat(difference)
    density = values.numbers("density")[index]
    if name == "task_arithmetic" or density >= 1.0:
        return delta
    if density <= 0.0:
        return np.zeros_like(delta)
    seed, streams = int(values.shared["seed"]), parents.streams
    unbiased = name in RANDOM_METHODS and bool(values.shared.get("unbiased", False))
    chance: Array | float = 1.0
    if name == "ties":
        keep = largest_keep(delta, density)
    elif name.startswith("breadcrumbs"):
        keep = middle_keep(delta, density, values.numbers("gamma")[index])
    elif name.startswith("della"):
        epsilon = values.numbers("epsilon")[index]
        draws = [draw(seed, streams, index, i) for i in range(delta.size)]
        keep, chance = ranked_keep(difference, density, epsilon, draws)
    else:
        keep = random_keep(seed, streams, index, density, delta.size)
        chance = max(round(density * 2**16), 1) / 2**16
    kept = np.where(keep, delta, 0.0)
    if unbiased and values.flag("rescale"):
        return kept / chance
    whole, part = math.fsum(np.abs(delta)), math.fsum(np.abs(kept))
    if values.flag("rescale") and whole >= 1e-7 and part >= 1e-7:
        kept = kept * (whole / part)
    return kept


def _sum(column: list[float], weights: list[float], normalize: bool) -> tuple[float, float, float]:
    products = [w * d for w, d in zip(weights, column, strict=True)]
    divisor = sum(weights) if normalize else 1.0
    divisor = 1.0 if abs(divisor) < 1e-8 else divisor
    total = sum(products) / divisor
    return total, total, sum(map(abs, products)) / abs(divisor)


def _vote(column: list[float], weights: list[float], normalize: bool) -> tuple[float, float, float]:
    products = [w * d for w, d in zip(weights, column, strict=True)]
    total, size = sum(products), sum(map(abs, products))
    plus, minus = (_agreeing(products, weights, normalize, sign) for sign in (1, -1))
    spread = max(plus[1], minus[1])
    present = [p for p in products if p != 0.0]
    cancel = len(present) == 2 and present[0] == -present[1]
    if abs(total) <= 1e-6 * size and not cancel:
        return plus[0], minus[0], spread
    return (plus[0], plus[0], spread) if total >= 0.0 else (minus[0], minus[0], spread)


def _agreeing(
    products: list[float], weights: list[float], normalize: bool, sign: int
) -> tuple[float, float]:
    agree = [i for i, p in enumerate(products) if p * sign > 0.0]
    divisor = sum(weights[i] for i in agree) if normalize else 1.0
    divisor = 1.0 if divisor == 0.0 else divisor
    return (
        sum(products[i] for i in agree) / divisor,
        sum(abs(products[i]) for i in agree) / abs(divisor),
    )


def weighted_sum(parents: Parents, factors: list[float], divisor: float = 1.0) -> Expected:
    """sum_i factor_i x_i / divisor; a divisor of zero gives NaN."""
    products = [f * flat(t) for f, t in zip(factors, parents.tensors, strict=True)]
    divisor = divisor if divisor != 0.0 else math.nan
    value = sum(products, np.zeros(1)) / divisor
    size = sum((np.abs(p) for p in products), np.zeros(1)) / abs(divisor)
    return Expected(value, value, size)


def slerp_factors(parents: Parents, t: float) -> tuple[list[float], float]:
    """The two coefficients, and the cosine they come from."""
    a, b = (flat(tensor) for tensor in parents.tensors)
    norms = [math.sqrt(math.fsum(v * v)) for v in (a, b)]
    first, second = (1.0 if norm <= 1e-8 else norm for norm in norms)
    cosine = max(-1.0, min(1.0, math.fsum((a / first) * (b / second))))
    if abs(cosine) > 0.9995:
        return [1.0 - t, t], cosine
    theta = math.acos(cosine)
    return [math.sin((1 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)], (
        cosine
    )


def check(out: torch.Tensor, want: Expected, *, work: torch.dtype = torch.float32) -> None:
    """Fail unless `out` is `want` up to rounding: some ulps of `work`, half an ulp of the store."""
    got = flat(out)
    store, tiny = torch.finfo(out.dtype), torch.finfo(work).tiny
    allowed = 32 * torch.finfo(work).eps * want.size + tiny + store.tiny * store.eps
    allowed = allowed + 0.5 * store.eps * (np.abs(want.value) + allowed)
    wrong = (np.abs(got - want.value) > allowed) & (np.abs(got - want.other) > allowed)
    assert np.isfinite(got).all()
    assert not wrong.any(), (got[wrong], want.value[wrong], want.other[wrong], np.nonzero(wrong))
