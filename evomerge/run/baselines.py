"""The fixed recipes that every search is measured against, and how they start the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evomerge.candidate import Genotype
from evomerge.recipe import Parameters, Recipe, Scalar, Source
from evomerge.signatures import SIGNATURES
from evomerge.space import Place, SearchSpace

_PAIR = 2


@dataclass(frozen=True)
class Baseline:
    """A recipe known before the search, and its constants as a point for the search space.

    `kind` is "base", "parent", "baseline", or "stage" for what an earlier stage found. `weights`
    are effective task-vector weights by model. `model` is the one that the recipe is, unchanged.
    """

    label: str
    kind: str
    recipe: Recipe
    weights: Mapping[str, float]
    constants: Mapping[str, Scalar]
    model: str | None = None


def baselines(space: SearchSpace) -> tuple[Baseline, ...]:
    """Base, parents, uniform soup, and the common fixed recipes that the inputs allow."""
    start = space.decode(space.start)
    parents = space.parents
    base = start.base_model
    if base is not None and SIGNATURES[start.merge_method].maximum == 1:
        # a path between two models: the base is one end of it, a parent like the other
        parents, base = (base, *parents), None
    found = [] if base is None else [_single(start, base, "base", "base")]
    found += [_single(start, parent, short_name(parent, parents), "parent") for parent in parents]
    soup = {parent: 1.0 / len(parents) for parent in parents}
    if len(parents) > 1:
        recipe = _average(start, parents)
        found.append(Baseline("uniform soup", "baseline", recipe, soup, {"density": 1.0, "t": 0.5}))
    if base is not None:
        found += _task_vector_defaults(start, base, parents)
    # Beside a base that it leaves out, slerp would have another vocabulary than the rest.
    if len(parents) == _PAIR and (base is None or start.tokenizer is None):
        recipe = _recipe(start, "slerp", parents[0], parents[1:], {"t": 0.5}, {})
        found.append(Baseline("slerp 0.5", "baseline", recipe, soup, {"density": 1.0, "t": 0.5}))
    return tuple(found)


def _task_vector_defaults(start: Recipe, base: str, parents: tuple[str, ...]) -> list[Baseline]:
    """Task arithmetic at three scales, TIES and DARE-TIES at weight 1 and density 0.5."""
    ones = dict.fromkeys(parents, 1.0)
    found: list[Baseline] = []
    for scale in (0.3, 0.5, 1.0):
        if len(parents) == 1 and scale == 1.0:
            continue  # that is the parent itself
        recipe = _recipe(start, "task_arithmetic", base, parents, {"lambda": scale}, ones)
        weights = dict.fromkeys(parents, scale)
        label = f"task arithmetic {scale:g}"
        found.append(Baseline(label, "baseline", recipe, weights, {"density": 1.0}))
    for method, label in (("ties", "TIES 0.5"), ("dare_ties", "DARE-TIES 0.5")):
        recipe = _recipe(start, method, base, parents, {"density": 0.5}, ones)
        found.append(Baseline(label, "baseline", recipe, ones, {"density": 0.5}))
    return found


def _single(start: Recipe, model: str, label: str, kind: str) -> Baseline:
    recipe = (
        _recipe(start, "passthrough", None, (model,), {}, {})
        if start.tokenizer is None
        else _average(start, (model,))
    )
    is_base = kind == "base"
    constants: dict[str, Scalar] = {"density": 1.0, "t": 0.0 if is_base else 1.0}
    return Baseline(label, kind, recipe, {} if is_base else {model: 1.0}, constants, model)


def _average(start: Recipe, models: tuple[str, ...]) -> Recipe:
    """The mean of `models`.

    Where vocabularies are aligned the others take part with weight 0: the tokens follow from all
    models of a recipe.
    """
    if start.tokenizer is None:
        return _recipe(start, "linear", None, models, {}, dict.fromkeys(models, 1.0))
    named = start.referenced_models()
    weights = {model: float(model in models) for model in named}
    return _recipe(start, "linear", start.base_model, named, {}, weights)


def _recipe(
    start: Recipe,
    method: str,
    base: str | None,
    models: tuple[str, ...],
    shared: dict[str, Scalar],
    weights: dict[str, float],
) -> Recipe:
    """A recipe over whole models with the storage type and tokenizer of the search space."""
    sources = tuple(
        Source(m, None, Parameters.constants({"weight": weights[m]} if m in weights else {}))
        for m in models
    )
    return replace(
        start,
        merge_method=method,
        base_model=base,
        models=sources,
        slices=(),
        parameters=Parameters.constants(shared),
    )


def short_name(model: str, models: tuple[str, ...]) -> str:
    """The last part of a model's path, longer where that would be ambiguous."""
    parts = model.rstrip("/").split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        if sum(1 for other in models if other.rstrip("/").endswith(name)) == 1:
            return name
    return model


def starting_points(space: SearchSpace, best: Sequence[Baseline]) -> tuple[Genotype, ...]:
    """The start of `space` and its points nearest to the best baselines, each once."""
    points = [space.start, *(starting_point(space, baseline) for baseline in best)]
    return tuple(dict.fromkeys(points))


def starting_point(space: SearchSpace, baseline: Baseline) -> Genotype:
    """The genotype of `space` whose recipe is nearest to a baseline's."""
    has_lambda = any(place.parameter == "lambda" for place in space.places)
    scale = max((abs(w) for w in baseline.weights.values()), default=1.0)

    def value_at(place: Place) -> Scalar | None:
        if place.parameter == "weight":
            models = space.parents if place.model is None else (place.model,)
            values = {baseline.weights.get(model, 0.0) for model in models}
            if len(values) > 1:
                return None
            return values.pop() / (scale if has_lambda else 1.0)
        if place.parameter == "lambda":
            return scale
        if place.parameter == "merge_method":
            return baseline.recipe.merge_method
        return baseline.constants.get(place.parameter)

    return space.encode(value_at)
