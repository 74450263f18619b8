"""What a recipe does, told from its models' headers alone: problems, copies, idle filters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from evomerge.recipe import Parameters, Recipe
from evomerge.weights.expansion import Target
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import places_of_parameters
from evomerge.weights.values import ValueLookup

_SIMILAR = 0.6


def value_problems(recipe: Recipe, targets: Iterable[Target]) -> list[str]:
    """Parameters without a valid value for some of the output tensors, one line each."""
    lookup = ValueLookup(recipe)
    for target in targets:
        if target.part is not None and target.inputs[0].info.is_mergeable:
            lookup.shared(target)
            lookup.models(target)
    return lookup.problems


def notices(recipe: Recipe, pool: ParentPool, targets: Sequence[Target]) -> list[str]:
    """What a person may not expect of a recipe that fits its models: lines to print as they are."""
    return [
        *_left_to_the_donor(recipe, pool, targets),
        *_left_out(recipe, pool),
        *_idle_filters(recipe, targets),
    ]


def _left_to_the_donor(
    recipe: Recipe, pool: ParentPool, targets: Sequence[Target]
) -> Iterator[str]:
    towers = pool.parent(recipe.donor).towers
    copied = {target.name for target in targets if target.part is None}
    counts: dict[str, int] = {}
    for module in towers.module_names:
        tower = towers.tower(module)
        names = copied.intersection(() if tower is None else tower.stored.values())
        # Buffers of integers are copied in every module.
        if any(pool.infos(recipe.donor)[name].is_mergeable for name in names):
            counts[module] = len(names)
    if counts:
        named = ", ".join(f"{module} ({count} tensors)" for module, count in counts.items())
        yield f"notice: copied unchanged from '{recipe.donor}': {named}"


def _left_out(recipe: Recipe, pool: ParentPool) -> Iterator[str]:
    """Multimodal models whose other towers have no place in a text model."""
    if pool.parent(recipe.donor).towers.is_multimodal:
        return
    for model in recipe.referenced_models():
        towers = pool.parent(model).towers
        if towers.is_multimodal:
            yield f"notice: of '{model}' only the language tower takes part: the donor has no other"


def _idle_filters(recipe: Recipe, targets: Sequence[Target]) -> Iterator[str]:
    """Filters that speak about no tensor: nearly always misspelt."""
    merged = [target for target in targets if target.part is not None]
    names = {name for t in merged for name in (t.name, *(item.name for item in t.inputs))}
    for where, parameters in places_of_parameters(recipe):
        for parameter, part in _filters(parameters):
            if not any(part in name for name in names):
                line = f"{where}: {parameter}: filter '{part}' matches no tensor"
                yield f"warning: {line}{_hint(part, names)}"


def _filters(parameters: Parameters) -> Iterator[tuple[str, str]]:
    for name, setting in parameters:
        for clause in setting.clauses:
            if clause.filter not in (None, "*"):
                yield name, str(clause.filter)


def _hint(part: str, names: Iterable[str]) -> str:
    """The nearest part of a tensor name with as many segments as the filter has."""
    length = part.strip(".").count(".") + 1
    known = {
        ".".join(segments[start : start + length])
        for segments in (name.split(".") for name in names)
        for start in range(len(segments) - length + 1)
    }
    close = difflib.get_close_matches(part.strip("."), sorted(known), n=1, cutoff=_SIMILAR)
    return f"; did you mean '{close[0]}'?" if close else ": write a part of a tensor's name"
