"""Recipe: one fully resolved merge, immutable and content-hashed; field names are mergekit's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evomerge.tokenizer_policy import TokenizerPolicy

Scalar = float | int | bool | str

DTYPES = ("bfloat16", "float16", "float32", "float64")
STACK = "stack"
"""The method whose slices are the path of a token through the layers of several models."""
SCALE_MODES = ("stream", "mlp_delta")
"""What a stack's `scale` multiplies where a slice begins.

`stream` is the hidden state that enters the slice (Akiba et al. 2024, arXiv:2403.13187, section
3.2), `mlp_delta` only what the last MLP before it has added, as the engine fork published with that
paper does.
"""


@dataclass(frozen=True)
class Gradient:
    """Values at equal distances over the layers of a slice, interpolated between them."""

    values: tuple[Scalar, ...]

    def at(self, depth: float) -> Scalar:
        """The value at `depth` in [0, 1]: numbers interpolate, booleans and strings step."""
        position = depth * (len(self.values) - 1)
        left = int(position)
        if any(isinstance(value, bool | str) for value in self.values):
            return self.values[left]
        right = min(left + 1, len(self.values) - 1)
        fraction = position - left
        low, high = float(self.values[left]), float(self.values[right])
        return (1.0 - fraction) * low + fraction * high


@dataclass(frozen=True)
class Clause:
    """A value for the tensors whose full name contains `filter` (None: for all)."""

    value: Scalar | Gradient
    filter: str | None = None

    def matches(self, tensor_name: str) -> bool:
        """Whether this clause speaks about the tensor: a case-sensitive substring test."""
        return self.filter is None or self.filter == "*" or self.filter in tensor_name


@dataclass(frozen=True)
class Setting:
    """The value of one parameter: clauses in order, the first that matches wins."""

    clauses: tuple[Clause, ...]

    @staticmethod
    def constant(value: Scalar) -> Setting:
        """A setting with the same value everywhere."""
        return Setting((Clause(value),))

    @property
    def is_constant(self) -> bool:
        """Whether every tensor gets the same value."""
        first = self.clauses[0] if self.clauses else None
        return first is not None and first.filter is None and not isinstance(first.value, Gradient)

    def at(self, tensor_name: str, depth: float) -> Scalar | None:
        """The value for a tensor at `depth` in [0, 1] of its slice; None when no clause matches."""
        for clause in self.clauses:
            if clause.matches(tensor_name):
                value = clause.value
                return value.at(depth) if isinstance(value, Gradient) else value
        return None


@dataclass(frozen=True)
class Parameters:
    """Settings by parameter name at one scope of a recipe (source, slice or whole recipe)."""

    settings: tuple[tuple[str, Setting], ...] = ()

    @staticmethod
    def of(settings: Iterable[tuple[str, Setting]]) -> Parameters:
        """Normal form: sorted by name, so that equal parameters have equal digests."""
        return Parameters(tuple(sorted(settings, key=lambda pair: pair[0])))

    @staticmethod
    def constants(values: dict[str, Scalar]) -> Parameters:
        """Parameters with one constant each."""
        return Parameters.of((name, Setting.constant(value)) for name, value in values.items())

    def get(self, name: str) -> Setting | None:
        """The setting called `name`, or None."""
        return next((setting for key, setting in self.settings if key == name), None)

    def __iter__(self) -> Iterator[tuple[str, Setting]]:
        return iter(self.settings)

    def __bool__(self) -> bool:
        return bool(self.settings)


@dataclass(frozen=True)
class Source:
    """One model that takes part in a merge; `layer_range` is half open and only used in slices."""

    model: str
    layer_range: tuple[int, int] | None = None
    parameters: Parameters = Parameters()


@dataclass(frozen=True)
class Slice:
    """Consecutive output layers made from equally long layer ranges of the sources."""

    sources: tuple[Source, ...]
    parameters: Parameters = Parameters()
    base_model: str | None = None


@dataclass(frozen=True)
class Module:
    """What one module of a model (a language tower, a vision tower) is made from."""

    name: str
    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    parameters: Parameters = Parameters()

    def __post_init__(self) -> None:
        assert bool(self.models) != bool(self.slices), "a module has models or slices, not both"


@dataclass(frozen=True)
class Recipe:
    """One merge with every value resolved; exactly one of `models` and `slices` is not empty.

    `dtype` is the storage type of the result unless `out_dtype` is given; None keeps the parents'
    promoted type. Arithmetic is always float32 (float64 for float64 parents). `scale_mode` is that
    of a stack, else None. A model called by a name in `nested` is the result of that recipe.
    """

    merge_method: str
    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: tuple[Module, ...] = ()
    base_model: str | None = None
    parameters: Parameters = Parameters()
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: TokenizerPolicy | None = None
    chat_template: str | None = None
    scale_mode: str | None = None
    nested: tuple[tuple[str, Recipe], ...] = ()

    def __post_init__(self) -> None:
        given = [form for form in (self.models, self.slices, self.modules) if form]
        assert len(given) == 1, "a recipe has models, slices or modules"
        assert (self.scale_mode is None) == (self.merge_method != STACK), "only stacks have scales"

    def referenced_models(self) -> tuple[str, ...]:
        """Every model named in the recipe, each once, base first, then in order of appearance."""
        named = [self.base_model]
        bodies: tuple[Recipe | Module, ...] = (self, *self.modules)
        for body in bodies:
            named += [source.model for source in body.models]
            for part in body.slices:
                named += [part.base_model, *(source.model for source in part.sources)]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def stored_models(self) -> tuple[str, ...]:
        """Every model that must be on disk; nested recipes count by their own models."""
        nested = dict(self.nested)
        found: list[str] = []
        for name in self.referenced_models():
            found += nested[name].stored_models() if name in nested else (name,)
        return tuple(dict.fromkeys(found))

    @property
    def donor(self) -> str:
        """The model that gives config, tokenizer and generation settings: base, else the first."""
        return self.referenced_models()[0]

    @property
    def storage_dtype(self) -> str | None:
        """The type that result tensors are rounded to, once; None: the parents' promoted type."""
        return self.out_dtype or self.dtype

    @cached_property
    def digest(self) -> str:
        """A hash of everything that can change the merged weights or their files; 16 hex digits."""
        return _hashed(canonical(self))


def canonical(value: Any) -> str:
    """JSON of a recipe, or of a part of one, that differs whenever the value does."""
    return _ENCODER.encode(value)


def written_as(recipe: Recipe, text: str) -> Recipe:
    """`recipe`, whose canonical text is known to be `text`: its digest need not write it again."""
    vars(recipe)["digest"] = _hashed(text)  # where the property keeps it
    return recipe


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fields(value: Any) -> dict[str, object]:
    """A part of a recipe as a mapping with its type's name."""
    found = {"": type(value).__name__, **vars(value)}  # faster than asking for each field
    found.pop("digest", None)  # what a recipe knows of itself once it was asked
    return found


# The encoder writes tuples as lists, and asks for the parts that it does not know: all dataclasses.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_fields)
