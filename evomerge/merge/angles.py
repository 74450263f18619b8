"""Coefficient rules of the methods that look at norms and angles; no walks over tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evomerge.merge.method import Values
from evomerge.merge.span import Coefficients, Gram
from evomerge.merge.task_vector_span import Along, Grams, Weights

_TINY_PRODUCT = 1e-6
_TINY_DIVISOR = 1e-6
_TINY_NORM = 1e-7
_COLLINEAR = 1e-16
# A Gram matrix in float64 cannot tell a sum of vectors from zero below this share of its terms.
_UNRESOLVED = 1e-14


def model_stock(values: Values, grams: Grams) -> Weights:
    """The mean of the parents, pulled to the base the more their task vectors disagree.

    Jang et al. 2024, Model Stock, arXiv:2403.19522, equation 4 (t = k c / (1 + (k-1) c)), with the
    mean cosine of all pairs. t is not limited: opposite task vectors extrapolate, and a product of
    norms below 1e-6 counts as 1e-6.
    """
    along = Along.LAST if values.flag("filter_wise") else Along.WHOLE
    gram_KKG = grams.by[along]
    count = len(gram_KKG)
    norm_KG = gram_KKG.diagonal().T.sqrt()
    cosines = [
        gram_KKG[i, j] / (norm_KG[i] * norm_KG[j]).clamp_min(_TINY_PRODUCT)
        for i in range(count)
        for j in range(i)
    ]
    cosine_G = torch.stack(cosines).clamp(-1.0, 1.0).mean(0)
    divisor_G = 1.0 + (count - 1) * cosine_G
    t_G = torch.where(divisor_G.abs() < _TINY_DIVISOR, 0.0, count * cosine_G / divisor_G)
    return Weights(along, (t_G / count).expand(count, -1))


def nuslerp(values: Values, grams: Grams) -> Weights:
    """Spherical interpolation between two task vectors, w2 / (w1 + w2) of the way.

    Shoemake 1985, Animating rotation with quaternion curves, section 3.3. Weights that cancel
    meet halfway; collinear vectors are interpolated linearly.
    """
    along = Along.WHOLE
    if not values.flag("nuslerp_flatten"):
        along = Along.FIRST if values.flag("nuslerp_row_wise") else Along.LAST
    first, second = values.numbers("weight")
    t = 0.5 if abs(first + second) < _TINY_DIVISOR else second / (first + second)
    gram_KKG = grams.by[along]
    norm_KG = gram_KKG.diagonal().T.sqrt().clamp_min(_TINY_NORM)
    cosine_G = (gram_KKG[0, 1] / (norm_KG[0] * norm_KG[1])).clamp(-1.0, 1.0)
    theta_G = cosine_G.acos()
    straight_G = 1.0 - cosine_G.square() <= _COLLINEAR
    return Weights(
        along,
        torch.stack(
            [
                torch.where(straight_G, share, (share * theta_G).sin() / theta_G.sin())
                for share in (1.0 - t, t)
            ]
        ),
    )


def multislerp(values: Values, grams: Grams) -> Weights:
    """The weighted mean direction of the task vectors times their weighted mean norm.

    The tangent step of the usual description vanishes: the tangents at the normalised mean sum to
    zero. A mean direction that vanishes gives the weighted sum; one parent alone is copied.
    """
    gram_KK = grams.by[Along.WHOLE][:, :, 0]
    weight_K = torch.tensor(values.numbers("weight"), dtype=torch.float64, device=gram_KK.device)
    if len(weight_K) == 1:
        return _whole(torch.ones_like(weight_K))
    if values.flag("normalize_weights"):
        weight_K = weight_K / weight_K.sum()
    eps = values.number("eps")
    norm_K = gram_KK.diagonal().sqrt()
    share_K = weight_K / (norm_K + eps)
    terms_KK = share_K[:, None] * gram_KK * share_K
    square = float(terms_KK.sum())
    if square < max(eps * eps, _UNRESOLVED * float(terms_KK.abs().sum())):
        return _whole(weight_K)
    return _whole(share_K * (weight_K * norm_K).sum() / math.sqrt(square))


def karcher(values: Values, parents: Gram) -> Coefficients:
    """The Karcher mean of the parents' directions times the mean of their norms.

    Karcher 1977, Riemannian center of mass: gradient steps on the sphere, here on coordinates in
    the span of the parents, for which their Gram matrix is enough. Parents with a norm up to `tol`
    have no direction.
    """
    tol = values.number("tol")
    norms = [math.sqrt(parents.entries[i][i]) for i in range(len(parents.entries))]
    if len(norms) == 1:
        return Coefficients((1.0,))
    present = [i for i, norm in enumerate(norms) if not norm <= tol]
    if not present:
        return Coefficients((0.0,) * len(norms))
    cosine_KK = torch.tensor(
        [[parents.entries[i][j] / (norms[i] * norms[j]) for j in present] for i in present],
        dtype=torch.float64,
    )
    mean_K = _karcher_mean(cosine_KK, tol, int(values.number("max_iter")))
    scale = sum(norms) / len(norms)
    factors = [0.0] * len(norms)
    for i, coordinate in zip(present, mean_K.tolist(), strict=True):
        factors[i] = scale * coordinate / norms[i]
    return Coefficients(tuple(factors))


def _karcher_mean(cosine_KK: Tensor, tol: float, max_iter: int) -> Tensor:
    """Coordinates of the mean of unit vectors with these inner products; shape (K,)."""
    count = len(cosine_KK)
    mean_K = torch.full((count,), 1.0 / count, dtype=torch.float64)
    length = _length(mean_K, cosine_KK)
    mean_K = torch.eye(count, dtype=torch.float64)[0] if length < tol else mean_K / length
    for _ in range(max_iter):
        along_K = (cosine_KK @ mean_K).clamp(-1.0, 1.0)
        theta_K = along_K.acos()
        pull_K = torch.where(theta_K < tol, 0.0, theta_K / theta_K.sin() / count)
        step_K = pull_K - (pull_K * along_K).sum() * mean_K
        length = _length(step_K, cosine_KK)
        if length < tol:
            break
        mean_K = math.cos(length) * mean_K + math.sin(length) / length * step_K
        length = _length(mean_K, cosine_KK)
        if length > tol:
            mean_K = mean_K / length
    return mean_K


def _length(coordinates_K: Tensor, gram_KK: Tensor) -> float:
    return math.sqrt(max(float(coordinates_K @ gram_KK @ coordinates_K), 0.0))


def _whole(factors_K: Tensor) -> Weights:
    return Weights(Along.WHOLE, factors_K[:, None])
