"""What a model costs to run, from headers alone; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe
from evomerge.score import COST_TASK, ItemOutcome, TaskOutcomes
from evomerge.weights.compatibility import Parent
from evomerge.weights.layout import is_head, is_token_embedding
from evomerge.weights.parts import parts_of
from evomerge.weights.pool import ParentPool

_MATRIX = 2


def relative_cost(recipe: Recipe, pool: ParentPool, measure: str) -> float:
    """The cost of the merged model over that of its donor.

    Args:
        recipe: with slices of one source each, or with models.
        pool: its parents.
        measure: "layers", "parameters" (repeated layers count every time, as they are stored) or
            "flops", multiplications and additions per token without those of the attention to
            earlier tokens.
    """
    donor = recipe.donor
    whole = [(donor, layer) for layer in range(depth_of(pool.parent(donor)))]
    outside = _outside(pool.parent(donor), measure)

    def cost(hops: Iterable[tuple[str, int]]) -> float:
        return outside + sum(_layer(pool.parent(model), layer, measure) for model, layer in hops)

    return cost(_hops(recipe, pool)) / cost(whole)


def depth_of(parent: Parent) -> int:
    """The number of layers that slices can name.

    Raises:
        PreflightFailed: the model has several stacks of layers, or none.
    """
    return parent.towers.main.layout.stacks[_stack(parent)]


def cost_task(recipe: Recipe, pool: ParentPool, measure: str) -> TaskOutcomes:
    """The relative cost as a task of one item, so that it weighs in the fitness like a task."""
    item = ItemOutcome(measure, relative_cost(recipe, pool, measure))
    return TaskOutcomes(COST_TASK, (item,))


def _stack(parent: Parent) -> str:
    stack = parent.main_stack(parent.towers.main)
    if stack is None:
        raise PreflightFailed(
            f"model '{parent.name}': expected one stack of layers, as decoders have: replace it"
        )
    return stack


def _hops(recipe: Recipe, pool: ParentPool) -> Iterator[tuple[str, int]]:
    for part in parts_of(recipe):
        model = part.sources[0].model
        start, end = part.sources[0].layer_range or (0, depth_of(pool.parent(model)))
        yield from ((model, layer) for layer in range(start, end))


def _layer(parent: Parent, layer: int, measure: str) -> float:
    if measure == "layers":
        return 1.0
    stack, tower = _stack(parent), parent.towers.main
    names = [f"{stack}.{layer}.{rest}" for rest in tower.layout.layers[stack, layer]]
    return sum(_size(parent, tower.stored[name], measure) for name in names)


def _outside(parent: Parent, measure: str) -> float:
    """Embeddings, norm and head; of the flops only the head's, which may be a tied embedding."""
    if measure == "layers":
        return 0.0
    stack, stored = _stack(parent), parent.towers.main.stored
    names = [name for name in stored if not name.startswith(f"{stack}.")]
    if measure == "flops":
        heads = [name for name in names if is_head(name)]
        names = heads or [name for name in names if is_token_embedding(name)]
    return sum(_size(parent, stored[name], measure) for name in names)


def _size(parent: Parent, name: str, measure: str) -> float:
    shape = parent.checkpoint.infos()[name].shape
    if measure == "flops":
        return 2.0 * prod(shape) if len(shape) >= _MATRIX else 0.0
    return float(prod(shape))
