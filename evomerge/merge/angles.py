"""Coefficient rules of the methods that look at norms and angles; no passes over tensors."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from evomerge.merge.gram import Matrix
from evomerge.merge.method import Values
from evomerge.merge.span import Coefficients
from evomerge.merge.task_vector_span import Along, Array, SpanRule

_TINY_PRODUCT = 1e-6
_TINY_DIVISOR = 1e-6
_TINY_NORM = 1e-7
# What rounding leaves of 1 - cos^2 between vectors that are exactly parallel or opposite.
_COLLINEAR = 1e-13
# A Gram matrix in float64 cannot tell a sum of vectors from zero below this share of its terms.
_UNRESOLVED = 1e-14
_HALF_TURN = 1e-6


def _model_stock(values: Values, gram_KKG: Array) -> Array:  # noqa: ARG001 - no parameters
    """The mean of the parents, pulled to the base the more their task vectors disagree.

    Jang et al. 2024, Model Stock, arXiv:2403.19522, equation 4 (t = k c / (1 + (k-1) c)), with the
    mean cosine of all pairs. t is not limited: opposite task vectors extrapolate, and a product of
    norms below 1e-6 counts as 1e-6.
    """
    return _pulled(gram_KKG.shape, gram_KKG.tobytes())


@lru_cache(maxsize=1 << 12)
def _pulled(shape: tuple[int, ...], entries: bytes) -> Array:
    """Kept, because it depends on the parents alone."""
    gram_KKG = np.frombuffer(entries).reshape(shape)
    count = len(gram_KKG)
    norm_KG = np.sqrt(np.einsum("kkg->kg", gram_KKG))
    cosines = [
        gram_KKG[i, j] / np.maximum(norm_KG[i] * norm_KG[j], _TINY_PRODUCT)
        for i in range(count)
        for j in range(i)
    ]
    cosine_G = np.clip(cosines, -1.0, 1.0).mean(0)
    divisor_G = 1.0 + (count - 1) * cosine_G
    singular_G = np.abs(divisor_G) < _TINY_DIVISOR
    t_G = np.where(singular_G, 0.0, count * cosine_G / np.where(singular_G, 1.0, divisor_G))
    return np.broadcast_to(t_G / count, (count, len(t_G)))


def _nuslerp(values: Values, gram_KKG: Array) -> Array:
    """Spherical interpolation between two task vectors, w2 / (w1 + w2) of the way.

    Shoemake 1985, Animating rotation with quaternion curves, section 3.3; without a base between
    the parents themselves. Weights that cancel meet halfway; collinear vectors are interpolated
    linearly.
    """
    first, second = values.numbers("weight")
    t = 0.5 if abs(first + second) < _TINY_DIVISOR else second / (first + second)
    norms = [np.maximum(np.sqrt(gram_KKG[i, i]), _TINY_NORM) for i in range(2)]
    cosine_G = np.clip(gram_KKG[0, 1] / (norms[0] * norms[1]), -1.0, 1.0)
    straight_G = 1.0 - np.square(cosine_G) <= _COLLINEAR
    theta_G = np.arccos(cosine_G)
    sine_G = np.where(straight_G, 1.0, np.sin(theta_G))
    return np.stack(
        [np.where(straight_G, share, np.sin(share * theta_G) / sine_G) for share in (1.0 - t, t)]
    )


def _multislerp(values: Values, gram_KKG: Array) -> Array:
    """The weighted mean direction of the task vectors times their weighted mean norm.

    Without a base that of the parents themselves. The tangent step of the usual description
    vanishes: the tangents at the normalised mean sum to zero. A mean direction that vanishes gives
    the weighted sum; one parent alone is copied.
    """
    gram_KK = gram_KKG[:, :, 0]
    weight_K = np.array(values.numbers("weight"))
    if len(weight_K) == 1:
        return np.ones((1, 1))
    if values.flag("normalize_weights"):
        weight_K = weight_K / weight_K.sum()
    eps = values.number("eps")
    norm_K = np.sqrt(gram_KK.diagonal())
    share_K = weight_K / (norm_K + eps)
    terms_KK = share_K[:, None] * gram_KK * share_K
    square = float(terms_KK.sum())
    if square < max(eps * eps, _UNRESOLVED * float(np.abs(terms_KK).sum())):
        return weight_K[:, None]
    scale = (weight_K * norm_K).sum() / math.sqrt(square)
    found: Array = share_K * scale
    return found[:, None]


def _filters(values: Values) -> Along:
    return Along.LAST if values.flag("filter_wise") else Along.WHOLE


def _rows_or_columns(values: Values) -> Along:
    # mergekit's option names are the wrong way round, and recipes rely on it.
    if values.flag("nuslerp_flatten"):
        return Along.WHOLE
    return Along.FIRST if values.flag("nuslerp_row_wise") else Along.LAST


def _whole(values: Values) -> Along:  # noqa: ARG001 - whatever they are  # noqa: ARG001 - always
    return Along.WHOLE


model_stock = SpanRule(_filters, _model_stock)
nuslerp = SpanRule(_rows_or_columns, _nuslerp)
multislerp = SpanRule(_whole, _multislerp)


def karcher(values: Values, gram_PP: Matrix) -> Coefficients:
    """The Karcher mean of the parents' directions times the mean of their norms.

    Karcher 1977, Riemannian center of mass: gradient steps on the sphere, here on coordinates in
    the span of the parents, for which their Gram matrix is enough. Parents with a norm up to `tol`
    have no direction.
    """
    entries = tuple(map(tuple, gram_PP.tolist()))
    return _karcher(entries, values.number("tol"), int(values.number("max_iter")))


@lru_cache(maxsize=1 << 14)
def _karcher(entries: tuple[tuple[float, ...], ...], tol: float, max_iter: int) -> Coefficients:
    """Kept, because a search asks for the same tensors' means again and again."""
    gram_PP = np.array(entries)
    norm_P = np.sqrt(gram_PP.diagonal())
    if len(norm_P) == 1:
        return Coefficients((1.0,))
    present_P = ~(norm_P <= tol)
    factor_P = np.zeros(len(norm_P))
    if present_P.any():
        norm_K = norm_P[present_P]
        cosine_KK = gram_PP[np.ix_(present_P, present_P)] / np.outer(norm_K, norm_K)
        mean_K = _karcher_mean(cosine_KK, tol, max_iter)
        factor_P[present_P] = norm_P.mean() * mean_K / norm_K
    return Coefficients(tuple(factor_P.tolist()))


def _karcher_mean(cosine_KK: Matrix, tol: float, max_iter: int) -> Matrix:
    """Coordinates of the mean of unit vectors with these inner products; shape (K,)."""
    count = len(cosine_KK)
    mean_K: Matrix = np.full(count, 1.0 / count)
    length = _length(mean_K, cosine_KK)
    mean_K = np.eye(count)[0] if length < tol else mean_K / length
    for _ in range(max_iter):
        along_K = np.clip(cosine_KK @ mean_K, -1.0, 1.0)
        theta_K = np.arccos(along_K)
        # A parent opposite to the mean has no direction in which to pull.
        near_K = (theta_K < tol) | (theta_K > math.pi - max(tol, _HALF_TURN))
        sine_K = np.where(near_K, 1.0, np.sin(theta_K))
        pull_K = np.where(near_K, 0.0, theta_K / sine_K / count)
        step_K = pull_K - (pull_K * along_K).sum() * mean_K
        length = _length(step_K, cosine_KK)
        if length < tol:
            break
        mean_K = math.cos(length) * mean_K + math.sin(length) / length * step_K
        length = _length(mean_K, cosine_KK)
        if length > tol:
            mean_K = mean_K / length
    return mean_K


def _length(coordinates_K: Matrix, gram_KK: Matrix) -> float:
    return math.sqrt(max(float(coordinates_K @ gram_KK @ coordinates_K), 0.0))
