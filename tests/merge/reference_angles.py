"""Slow float64 reference of the methods with norms and angles, on the vectors themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from tests.merge.reference import Array, Expected, flat
from tests.merge.reference_inputs import Parents, Values


def expected(name: str, parents: Parents, values: Values) -> Expected:
    """base + sum_i c_i d_i, vector by vector; without a base sum_i c_i x_i."""
    wide = any(t.dtype == torch.float64 for t in parents.tensors)
    work = torch.float64 if wide else torch.float32
    nothing = torch.zeros_like(parents.tensors[0], dtype=work)
    base = nothing if parents.base is None else parents.base.to(work)
    deltas = [(other.to(work) - base).double().numpy() for other in parents.others]
    value = base.double().numpy().copy()
    size = np.array(np.abs(value))
    for place in _vectors(name, value.shape, values):
        vectors = [delta[place].reshape(-1) for delta in deltas]
        shape = value[place].shape
        for factor, vector in zip(_FACTORS[name](vectors, values), vectors, strict=True):
            value[place] += factor * vector.reshape(shape)
            size[place] += np.abs(factor * vector.reshape(shape))
    return Expected(value.reshape(-1), value.reshape(-1), size.reshape(-1))


def _vectors(name: str, shape: tuple[int, ...], values: Values) -> Iterator[tuple[object, ...]]:
    rows = name == "model_stock" and values.flag("filter_wise")
    rows = rows or (name == "nuslerp" and not values.flag("nuslerp_flatten"))
    if not rows or not shape:
        yield (...,)
    elif name == "nuslerp" and values.flag("nuslerp_row_wise"):
        for place in np.ndindex(shape[1:]):
            yield (slice(None), *place)
    else:
        for place in np.ndindex(shape[:-1]):
            yield (*place, slice(None))


def _cosine(u: Array, v: Array, floor: float) -> float:
    return max(-1.0, min(1.0, math.fsum(u * v) / max(norm(u) * norm(v), floor)))


def norm(vector: Array) -> float:
    """The Euclidean norm."""
    return math.sqrt(math.fsum(vector * vector))


def _model_stock(vectors: list[Array], values: Values) -> list[float]:  # noqa: ARG001
    count = len(vectors)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    cosine = sum(_cosine(vectors[i], vectors[j], 1e-6) for i, j in pairs) / len(pairs)
    divisor = 1 + (count - 1) * cosine
    t = 0.0 if abs(divisor) < 1e-6 else count * cosine / divisor
    return [t / count] * count


def _nuslerp(vectors: list[Array], values: Values) -> list[float]:
    first, second = values.numbers("weight")
    t = 0.5 if abs(first + second) < 1e-6 else second / (first + second)
    u, v = (vector / max(norm(vector), 1e-7) for vector in vectors)
    cosine = max(-1.0, min(1.0, math.fsum(u * v)))
    # Squares need no roots, so that vectors on one line give exactly 0, which the cosine may miss.
    squares = math.fsum(vectors[0] ** 2) * math.fsum(vectors[1] ** 2)
    on_line = squares > 0.0 and 1 - math.fsum(vectors[0] * vectors[1]) ** 2 / squares <= 1e-15
    if on_line and min(map(norm, vectors)) > 1e-7:
        return [1 - t, t]
    theta = math.acos(cosine)
    return [math.sin(s * theta) / math.sin(theta) for s in (1 - t, t)]


def _multislerp(vectors: list[Array], values: Values) -> list[float]:
    weights = list(values.numbers("weight"))
    eps = values.number("eps")
    if len(weights) == 1:
        return [1.0]
    if values.flag("normalize_weights"):
        weights = [w / sum(weights) for w in weights]
    norms = [norm(vector) for vector in vectors]
    units = [vector / (n + eps) for vector, n in zip(vectors, norms, strict=True)]
    length = norm(sum((w * u for w, u in zip(weights, units, strict=True)), np.zeros(1)))
    if length < 1e-7:
        return weights
    scale = sum(w * n for w, n in zip(weights, norms, strict=True)) / length
    return [scale * w / (n + eps) for w, n in zip(weights, norms, strict=True)]


_FACTORS = {"model_stock": _model_stock, "nuslerp": _nuslerp, "multislerp": _multislerp}


def multislerp_by_tangents(parents: Parents, values: Values) -> Array:
    """MultiSLERP as it is usually described: a step in the tangent space at the mean direction."""
    assert parents.base is not None
    base, eps = flat(parents.base), values.number("eps")
    vectors = [flat(other) - base for other in parents.others]
    weights = np.array(values.numbers("weight"))
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


def karcher(parents: Parents, values: Values) -> Expected:
    """The iteration on the vectors."""
    vectors = [flat(tensor) for tensor in parents.others]
    tol, steps = values.number("tol"), int(values.number("max_iter"))
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


def nearswap(parents: Parents, t: float) -> Expected:
    """Moves of at most t."""
    assert parents.base is not None
    base, other = flat(parents.base), flat(parents.others[0])
    share = np.clip(t / np.maximum(np.abs(other - base), 1e-6), 0.0, 1.0)
    value = share * other + (1 - share) * base
    return Expected(value, value, np.abs(other) + np.abs(base))
