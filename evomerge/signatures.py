"""What a recipe may say about each merge method: inputs, parameters, ranges and paper; no tensors.

The arithmetic behind each name lives in `evomerge.merge.methods`, whose table has the same keys but
for `stack`: stacks become `passthrough` recipes before tensors are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from evomerge.parameter import Conflict, Joint, Parameter, Scope
from evomerge.recipe import STACK, Scalar


class Base(Enum):
    """What a method does with the base model."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    IGNORED = "ignored"


def _survival_chances(values: Mapping[str, Scalar]) -> Conflict | None:
    """DELLA draws survivors with chances from density - epsilon to density + epsilon."""
    density, width = float(values["density"]), float(values["epsilon"])
    low, high = density - width, density + width
    if not 0.0 < density < 1.0 or (low > 0.0 and high < 1.0):
        return None
    return Conflict(
        f"density {density:.4g} and epsilon {width:.4g} give survival chances from {low:.4g} to "
        f"{high:.4g}",
        "keep density - epsilon above 0 and density + epsilon below 1",
    )


@dataclass(frozen=True)
class Signature:
    """A merge method as a recipe sees it; `minimum`/`maximum` count the models besides the base."""

    name: str
    base: Base
    minimum: int
    maximum: int | None
    parameters: tuple[Parameter, ...]
    paper: str
    joint: Joint | None = None

    def parameter(self, name: str) -> Parameter | None:
        """The parameter called `name`, or None."""
        return next((p for p in self.parameters if p.name == name), None)

    def conflict(self, values: Mapping[str, Scalar]) -> Conflict | None:
        """Why one model's `values`, each of them valid, cannot go together; None when they can."""
        return None if self.joint is None else self.joint.check(values)


_WEIGHT = Parameter("weight", Scope.MODEL, float, None, "how much of the model to add")
_DENSITY = Parameter(
    "density", Scope.MODEL, float, 1.0, "share of the task vector's elements to keep", 0.0, 1.0
)
_LAMBDA = Parameter("lambda", Scope.SHARED, float, 1.0, "scale of the merged task vector")
_GAMMA = Parameter(
    "gamma", Scope.MODEL, float, 0.01, "share of largest elements to drop first", 0.0, 1.0
)
_HALF_WIDTH = Parameter(
    "epsilon",
    Scope.MODEL,
    float,
    0.15,
    "how far the survival chance of small and large elements is from the density",
    0.0,
    1.0,
)
_CHANGED = Parameter(
    "epsilon", Scope.SHARED, float, 1e-5, "difference up to which an element is unchanged", 0.0
)
_CHANCES = Joint(("density", "epsilon"), _survival_chances)
_SEED = Parameter("seed", Scope.SHARED, int, 0, "seed of the random masks", 0)
_UNBIASED = Parameter(
    "unbiased",
    Scope.SHARED,
    bool,
    False,
    "rescale as in the paper: divide what survives by its chance, not to the old L1 norm",
)
_INT8 = Parameter("int8_mask", Scope.SHARED, bool, False, "accepted; has no effect on the result")


def _flag(name: str, default: bool, doc: str) -> Parameter:
    return Parameter(name, Scope.SHARED, bool, default, doc)


def _task_vectors(
    name: str,
    normalize: bool,
    rescale: bool,
    paper: str,
    *more: Parameter,
    joint: Joint | None = None,
) -> Signature:
    parameters = (
        _WEIGHT,
        _DENSITY,
        _LAMBDA,
        _flag("normalize", normalize, "divide by the sum of the weights that take part"),
        _flag("rescale", rescale, "give each sparsified task vector its L1 norm back"),
        _INT8,
        *more,
    )
    return Signature(name, Base.REQUIRED, 0, None, parameters, paper, joint)


_ALL = (
    Signature(
        "linear",
        Base.IGNORED,
        1,
        None,
        (_WEIGHT, _flag("normalize", True, "divide by the sum of the weights")),
        "Wortsman et al. 2022, Model soups, arXiv:2203.05482",
    ),
    Signature(
        "passthrough",
        Base.IGNORED,
        1,
        1,
        (
            Parameter("scale", Scope.MODEL, float, 1.0, "factor on the tensor"),
            Parameter("shift", Scope.MODEL, float, 0.0, "what is added after that"),
        ),
        "copies one model",
    ),
    Signature(
        STACK,
        Base.IGNORED,
        1,
        1,
        (
            Parameter(
                "scale",
                Scope.MODEL,
                float,
                1.0,
                "factor where a slice begins, on what scale_mode says",
                0.01,
                100.0,
            ),
        ),
        "Akiba et al. 2024, Evolutionary optimization of model merging recipes, arXiv:2403.13187",
    ),
    Signature(
        "slerp",
        Base.REQUIRED,
        1,
        1,
        (Parameter("t", Scope.SHARED, float, None, "0 is the base, 1 the other model"),),
        "Shoemake 1985, Animating rotation with quaternion curves",
    ),
    _task_vectors(
        "task_arithmetic",
        False,
        False,
        "Ilharco et al. 2022, Editing models with task arithmetic, arXiv:2212.04089",
    ),
    _task_vectors("ties", True, False, "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"),
    _task_vectors(
        "dare_linear",
        False,
        True,
        "Yu et al. 2023, Language models are super Mario (DARE), arXiv:2311.03099",
        _SEED,
        _UNBIASED,
    ),
    _task_vectors(
        "dare_ties",
        False,
        True,
        "Yu et al. 2023 (DARE, arXiv:2311.03099) with the sign election of TIES",
        _SEED,
        _UNBIASED,
    ),
    _task_vectors(
        "breadcrumbs",
        False,
        False,
        "Davari and Belilovsky 2023, Model Breadcrumbs, arXiv:2312.06795",
        _GAMMA,
    ),
    _task_vectors(
        "breadcrumbs_ties",
        False,
        False,
        "Davari and Belilovsky 2023 (arXiv:2312.06795) with the sign election of TIES",
        _GAMMA,
    ),
    _task_vectors(
        "della_linear",
        False,
        True,
        "Deep et al. 2024 (DELLA, arXiv:2406.11617) without the sign election",
        _HALF_WIDTH,
        _SEED,
        _UNBIASED,
        joint=_CHANCES,
    ),
    _task_vectors(
        "della",
        True,
        True,
        "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617",
        _HALF_WIDTH,
        _SEED,
        _UNBIASED,
        joint=_CHANCES,
    ),
    Signature(
        "model_stock",
        Base.REQUIRED,
        2,
        None,
        (_flag("filter_wise", False, "one angle for each row of a tensor"),),
        "Jang et al. 2024, Model Stock, arXiv:2403.19522",
    ),
    Signature(
        "nuslerp",
        Base.OPTIONAL,
        2,
        2,
        (
            _WEIGHT,
            _flag("nuslerp_flatten", True, "one angle for each tensor"),
            _flag("nuslerp_row_wise", False, "unflattened: along the first axis, not the last"),
        ),
        "Shoemake 1985, Animating rotation with quaternion curves; on task vectors given a base",
    ),
    Signature(
        "multislerp",
        Base.OPTIONAL,
        1,
        None,
        (
            _WEIGHT,
            _flag("normalize_weights", True, "divide by the sum of the weights"),
            Parameter("eps", Scope.SHARED, float, 1e-8, "norm that counts as zero", 0.0),
        ),
        "the weighted mean direction of the models, or of task vectors given a base; no paper",
    ),
    Signature(
        "karcher",
        Base.IGNORED,
        1,
        None,
        (
            Parameter("max_iter", Scope.SHARED, int, 10, "most steps towards the mean", 0),
            Parameter("tol", Scope.SHARED, float, 1e-5, "step that ends the search", 0.0),
        ),
        "Karcher 1977, Riemannian center of mass and mollifier smoothing",
    ),
    Signature(
        "nearswap",
        Base.REQUIRED,
        1,
        1,
        (Parameter("t", Scope.SHARED, float, None, "how far an element may move"),),
        "moves elements by a limited distance; no paper",
    ),
    Signature(
        "sce",
        Base.REQUIRED,
        0,
        None,
        (
            Parameter("select_topk", Scope.SHARED, float, 1.0, "share of varying elements to keep"),
            Parameter(
                "energy_floor",
                Scope.SHARED,
                float,
                1e-6,
                "mean square below which parents count alike; 0 as in the paper",
                0.0,
            ),
            _INT8,
        ),
        "Wan et al. 2024, FuseChat, arXiv:2408.07990",
    ),
    Signature("ram", Base.REQUIRED, 0, None, (_CHANGED,), "arXiv:2601.13572"),
    Signature(
        "ramplus_tl",
        Base.REQUIRED,
        0,
        None,
        (
            _CHANGED,
            Parameter("r", Scope.SHARED, float, 0.1, "how much lone changes can gain"),
            Parameter("alpha", Scope.SHARED, float, 0.2, "limit of the shared-to-lone ratio", 0.0),
        ),
        "arXiv:2601.13572, gains of each tensor",
    ),
    Signature("arcee_fusion", Base.REQUIRED, 1, 1, (), "swaps elements by importance; no paper"),
)

SIGNATURES: Mapping[str, Signature] = MappingProxyType({s.name: s for s in _ALL})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt word: "did you mean 'x'?", else the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
