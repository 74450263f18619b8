"""Parents and parameters for the tests: drawn by hypothesis, or made from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st

from evomerge.merge.method import Parents, Values
from evomerge.parameter import Scope
from evomerge.recipe import Scalar
from evomerge.signatures import SIGNATURES

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
KINDS = ("gauss", "grid", "sparse", "zero", "same", "opposite")
DENSITIES = (0.0, 1e-6, 0.3, 0.5, 1.0)
RANDOM_METHODS = ("dare_linear", "dare_ties", "della_linear", "della")
TASK_VECTOR_METHODS = (
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della_linear",
    "della",
)
VOTING_METHODS = ("ties", "dare_ties", "breadcrumbs_ties", "della")
GAMMAS = (0.0, 0.01, 0.3, 1.0)
STREAMS = (0, 7, 2**63 - 1, 123456789123456789)

shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)
# Multiples of 2^-10: their sums are exact, so that a sum of weights is zero or clearly not.
weights = st.one_of(
    st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]),
    st.integers(-1500, 1500).map(lambda i: i / 1024),
)
densities = st.one_of(st.sampled_from(DENSITIES), st.floats(0.0, 1.0))


def tensor(
    values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> torch.Tensor:
    """A float64 tensor."""
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def delta(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """A task vector of one kind; `same` and `opposite` must be made from another one."""
    noise = 0.1 * rng.standard_normal(shape)
    if kind == "grid":
        return tensor(rng.integers(-3, 4, shape) / 16)
    if kind == "sparse":
        return tensor(noise * (rng.random(shape) < 0.3))
    if kind == "zero":
        return tensor(np.zeros(shape))
    return tensor(noise)


@st.composite
def parents(
    draw: st.DrawFn,
    *,
    base: bool = True,
    low: int = 1,
    high: int = 4,
    floats: Sequence[torch.dtype] = FLOATS,
) -> Parents:
    """Parents with all kinds of task vectors and a dtype each."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtypes = st.sampled_from(floats)
    anchor = tensor(rng.integers(-16, 17, shape) / 16)
    deltas: list[torch.Tensor] = []
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=low, max_size=high)):
        if kind in ("same", "opposite") and deltas:
            deltas.append(deltas[-1] if kind == "same" else -deltas[-1])
        else:
            deltas.append(delta(kind, shape, rng))
    one = draw(dtypes)
    mixed = draw(st.booleans())
    others = tuple((anchor + d).to(draw(dtypes) if mixed else one) for d in deltas)
    return Parents(anchor.to(one) if base else None, others, STREAMS[: len(others)])


@st.composite
def task_vector_values(draw: st.DrawFn, count: int) -> Values:
    """Every parameter of the task-vector family for `count` parents."""
    shared: dict[str, Scalar] = {
        "normalize": draw(st.booleans()),
        "rescale": draw(st.booleans()),
        "lambda": draw(st.sampled_from([1.0, 0.0, 0.7, -1.3])),
        "int8_mask": draw(st.booleans()),
        "seed": draw(st.integers(0, 5)),
        "unbiased": draw(st.booleans()),
    }
    model = st.fixed_dictionaries(
        {
            "weight": weights,
            "density": densities,
            "gamma": st.sampled_from(GAMMAS),
            "epsilon": st.sampled_from([0.0, 0.15, 0.4]),
        }
    )
    return Values(shared, tuple(draw(model) for _ in range(count)))


def values(
    weights: Sequence[float],
    densities: Sequence[float] | None = None,
    *,
    normalize: bool = False,
    rescale: bool = False,
    scale: float = 1.0,
    seed: int = 0,
    gamma: float = 0.01,
    unbiased: bool = False,
) -> Values:
    """Parameters of the task-vector family; density 1 unless given."""
    densities = [1.0] * len(weights) if densities is None else densities
    shared: dict[str, Scalar] = {
        "normalize": normalize,
        "rescale": rescale,
        "lambda": scale,
        "int8_mask": False,
        "seed": seed,
        "unbiased": unbiased,
    }
    pairs = zip(weights, densities, strict=True)
    return Values(
        shared,
        tuple({"weight": w, "density": d, "gamma": gamma, "epsilon": 0.15} for w, d in pairs),
    )


def declared(name: str, count: int) -> Values:
    """The defaults of a method, with values that matter for what has none or switches it on."""
    chosen: dict[str, Scalar] = {"weight": 0.8, "density": 0.4, "scale": 1.5, "t": 0.4}
    chosen |= {"rescale": True, "normalize": True, "select_topk": 0.4}
    found: dict[Scope, dict[str, Scalar]] = {Scope.SHARED: {}, Scope.MODEL: {}}
    for parameter in SIGNATURES[name].parameters:
        value = chosen.get(parameter.name, parameter.default)
        assert value is not None
        found[parameter.scope][parameter.name] = value
    return Values(found[Scope.SHARED], (found[Scope.MODEL],) * count)


def random_parents(
    count: int, size: int, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Parents:
    """`count` parents around a base of `size` elements, like small fine-tunes."""
    rng = np.random.default_rng(seed)
    base = tensor(0.02 * rng.standard_normal(size))
    others = tuple(
        (base + 2e-4 * tensor(rng.standard_normal(size))).to(dtype) for _ in range(count)
    )
    return Parents(base.to(dtype), others, STREAMS[:count])
