"""Slow float64 reference of the methods with norms and angles, on the vectors themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tests.merge.reference_inputs import (
    Array,
    Expected,
    Inputs,
    Settings,
    differences,
    flag,
    flat,
    number,
    numbers,
    sure,
)


def expected(name: str, inputs: Inputs, settings: Settings) -> Expected:
    """base + sum_i c_i d_i, vector by vector; without a base sum_i c_i x_i."""
    if inputs.base is None:
        terms = [tensor.double().numpy() for tensor in inputs.others]
        value = np.zeros(terms[0].shape)
    else:
        terms = [delta.double().numpy() for delta in differences(inputs)]
        value = inputs.base.double().numpy().copy()
    size = np.abs(value)
    for place in _vectors(name, value.shape, settings):
        vectors = [term[place].reshape(-1) for term in terms]
        shape = value[place].shape
        for factor, vector in zip(_FACTORS[name](vectors, settings), vectors, strict=True):
            value[place] += factor * vector.reshape(shape)
            size[place] += np.abs(factor * vector.reshape(shape))
    return sure(value.reshape(-1), size.reshape(-1))


def _vectors(name: str, shape: tuple[int, ...], settings: Settings) -> Iterator[tuple[object, ...]]:
    rows = name == "model_stock" and flag(settings, "filter_wise")
    rows = rows or (name == "nuslerp" and not flag(settings, "nuslerp_flatten"))
    if not rows or not shape:
        yield (...,)
    elif name == "nuslerp" and flag(settings, "nuslerp_row_wise"):
        for place in np.ndindex(shape[1:]):
            yield (slice(None), *place)
    else:
        for place in np.ndindex(shape[:-1]):
            yield (*place, slice(None))


def _cosine(u: Array, v: Array, product: float = 1.0) -> float:
    return max(-1.0, min(1.0, math.fsum(u * v) / product))


def norm(vector: Array) -> float:
    """The Euclidean norm."""
    return math.sqrt(math.fsum(vector * vector))


def _model_stock(vectors: list[Array], settings: Settings) -> list[float]:  # noqa: ARG001
    count = len(vectors)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    norms = [norm(vector) for vector in vectors]
    cosines = [_cosine(vectors[i], vectors[j], max(norms[i] * norms[j], 1e-6)) for i, j in pairs]
    cosine = math.fsum(cosines) / len(pairs)
    divisor = 1 + (count - 1) * cosine
    t = 0.0 if abs(divisor) < 1e-6 else count * cosine / divisor
    return [t / count] * count


def _nuslerp(vectors: list[Array], settings: Settings) -> list[float]:
    first, second = numbers(settings, "weight")
    t = 0.5 if abs(first + second) < 1e-6 else second / (first + second)
    norms = [norm(vector) for vector in vectors]
    # The square needs no root, so that vectors on one line give exactly 0.
    parallel = math.fsum(vectors[0] * vectors[1]) ** 2
    squares = math.fsum(vectors[0] ** 2) * math.fsum(vectors[1] ** 2)
    if min(norms) > 1e-7 and 1 - parallel / squares <= 1e-15:
        return [1 - t, t]
    cosine = _cosine(*(vector / max(n, 1e-7) for vector, n in zip(vectors, norms, strict=True)))
    theta = math.acos(cosine)
    return [math.sin(s * theta) / math.sin(theta) for s in (1 - t, t)]


def _multislerp(vectors: list[Array], settings: Settings) -> list[float]:
    weights = list(numbers(settings, "weight"))
    eps = number(settings, "eps")
    if len(weights) == 1:
        return [1.0]
    if flag(settings, "normalize_weights"):
        weights = [w / sum(weights) for w in weights]
    norms = [norm(vector) for vector in vectors]
    units = [vector / (n + eps) for vector, n in zip(vectors, norms, strict=True)]
    length = norm(sum((w * u for w, u in zip(weights, units, strict=True)), np.zeros(1)))
    if length < 1e-7:
        return weights
    scale = sum(w * n for w, n in zip(weights, norms, strict=True)) / length
    return [scale * w / (n + eps) for w, n in zip(weights, norms, strict=True)]


_FACTORS = {"model_stock": _model_stock, "nuslerp": _nuslerp, "multislerp": _multislerp}


def multislerp_by_tangents(inputs: Inputs, settings: Settings) -> Array:
    """MultiSLERP as it is usually described: a step in the tangent space at the mean direction."""
    assert inputs.base is not None
    base, eps = flat(inputs.base), number(settings, "eps")
    vectors = [flat(other) - base for other in inputs.others]
    weights = np.array(numbers(settings, "weight"))
    weights = weights / weights.sum()
    norms = np.array([norm(vector) for vector in vectors])
    units = [vector / (n + eps) for vector, n in zip(vectors, norms, strict=True)]
    mean = sum((w * u for w, u in zip(weights, units, strict=True)), np.zeros(1))
    mean = mean / norm(mean)
    tangents = [w * (u - (u @ mean) * mean) for w, u in zip(weights, units, strict=True)]
    step = sum(tangents, np.zeros(1))
    angle = norm(step) + eps
    point = mean * math.cos(angle) + step * math.sin(angle) / angle
    result: Array = base + point * float(weights @ norms)
    return result


def karcher(inputs: Inputs, settings: Settings) -> Expected:
    """The iteration on the vectors."""
    vectors = [flat(tensor) for tensor in inputs.others]
    tol, steps = number(settings, "tol"), int(number(settings, "max_iter"))
    norms = [norm(vector) for vector in vectors]
    size = np.add.reduce([np.abs(vector) for vector in vectors])
    if len(vectors) == 1:
        return Expected(vectors[0], vectors[0], size)
    units = [vector / n for vector, n in zip(vectors, norms, strict=True) if n > tol]
    if not units:
        return Expected(0 * vectors[0], 0 * vectors[0], size)
    mean = np.add.reduce(units) / len(units)
    mean = units[0] if norm(mean) < tol else mean / norm(mean)
    for _ in range(steps):
        step = np.zeros_like(mean)
        for unit in units:
            cosine = max(-1.0, min(1.0, float(unit @ mean)))
            theta = math.acos(cosine)
            if theta >= tol:
                step += theta / math.sin(theta) * (unit - cosine * mean) / len(units)
        length = norm(step)
        if length < tol:
            break
        mean = math.cos(length) * mean + math.sin(length) * step / length
        mean = mean / norm(mean)
    value = mean * (sum(norms) / len(norms))
    return Expected(value, value, size + np.abs(value))


def nearswap(inputs: Inputs, t: float) -> Expected:
    """Moves of at most t."""
    assert inputs.base is not None
    base, other = flat(inputs.base), flat(inputs.others[0])
    share = np.clip(t / np.maximum(np.abs(other - base), 1e-6), 0.0, 1.0)
    value = share * other + (1 - share) * base
    return Expected(value, value, np.abs(other) + np.abs(base))
