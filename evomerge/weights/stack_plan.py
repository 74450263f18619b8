"""The tensors of the plain model that a stack becomes: scales folded in, layers made alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial, reduce

import torch
from torch import Tensor

from evomerge.errors import PreflightFailed
from evomerge.recipe import STACK, Recipe
from evomerge.stack import hops, path_of
from evomerge.weights.family_config import family_config
from evomerge.weights.layout import place_of
from evomerge.weights.planned import PlannedTensor
from evomerge.weights.pool import ParentPool
from evomerge.weights.stack_compatibility import models_of, range_problems, stack_problems
from evomerge.weights.stack_fold import folded
from evomerge.weights.stack_repair import Repair, repair_of

Plan = Callable[[Recipe], tuple[PlannedTensor, ...]]


def planned_stack(recipe: Recipe, pool: ParentPool, plan: Plan) -> tuple[PlannedTensor, ...]:
    """The tensors of a valid stack; `plan` plans the recipe into which it is folded.

    Raises:
        PreflightFailed: the models do not fit into one stack, lack layers, or have scales that
            cannot be folded.
    """
    check_stack(recipe, pool)
    passthrough = folded(recipe, str(pool.config(recipe.donor).get("model_type")))
    planned = plan(replace(passthrough, dtype=dtype_of_stack(recipe, pool), out_dtype=None))
    repair = repair_of(pool, recipe.referenced_models())
    return tuple(_repaired(planned, recipe, pool, repair)) if repair.is_needed else planned


def check_stack(recipe: Recipe, pool: ParentPool) -> None:
    """Compare the models of a valid stack, and its slices with their depths.

    Raises:
        PreflightFailed: with one line per problem.
    """
    problems = stack_problems(pool, recipe.donor, models_of(recipe))
    problems = problems or range_problems(recipe, pool)
    if problems:
        raise PreflightFailed(problems)


def check_models(recipe: Recipe, pool: ParentPool) -> None:
    """Whether the models of any valid recipe fit together; logs what a person should know of them.

    Raises:
        PreflightFailed: with one line per problem.
        InvalidInput: a tokenizer file is damaged.
    """
    if recipe.merge_method != STACK:
        pool.check_recipe(recipe)
        return
    check_stack(recipe, pool)
    pool.log_notices()


def dtype_of_stack(recipe: Recipe, pool: ParentPool) -> str:
    """The type of all weights, such as "bfloat16": the recipe's, else what holds all parents'."""
    if recipe.storage_dtype is not None:
        return recipe.storage_dtype
    names = {
        info.dtype
        for model in recipe.referenced_models()
        for info in pool.infos(model).values()
        if info.is_mergeable
    }
    return str(reduce(torch.promote_types, (getattr(torch, n) for n in names)))[len("torch.") :]


def _repaired(
    planned: tuple[PlannedTensor, ...], recipe: Recipe, pool: ParentPool, repair: Repair
) -> Iterator[PlannedTensor]:
    """The same tensors in the common shapes; biases of zero follow the weights that lack them."""
    names = {tensor.name for tensor in planned}
    path = hops(path_of(recipe))
    for tensor in planned:
        place = place_of(tensor.name)
        if place.layer is None or place.rest not in repair.shapes:
            yield tensor
            continue
        head = _head_size(pool, path[place.layer].model)
        yield _fitted(tensor, place.rest, repair, head)
        bias = f"{place.rest.removesuffix('weight')}bias"
        name = f"{tensor.name.removesuffix('weight')}bias"
        if bias in repair.added and name not in names:
            yield PlannedTensor(name, repair.shapes[bias], tensor.dtype, _write_zeros)


def _fitted(tensor: PlannedTensor, rest: str, repair: Repair, head_size: int) -> PlannedTensor:
    shape, rule = repair.shapes[rest], repair.rule
    if shape == tensor.shape or rule is None:
        return tensor
    write = partial(_write_widened, tensor)
    if rest.endswith(rule.grouped):
        write = partial(_write_repeated, tensor, head_size)
    return PlannedTensor(tensor.name, shape, tensor.dtype, write)


def _write_zeros(out: Tensor) -> None:
    out.zero_()


def _write_widened(tensor: PlannedTensor, out: Tensor) -> None:
    """Put the tensor into a corner of `out` and zeros around it."""
    out.zero_()
    out[tuple(slice(length) for length in tensor.shape)].copy_(_written(tensor))


def _write_repeated(tensor: PlannedTensor, head_size: int, out: Tensor) -> None:
    """Write every block of `head_size` rows, a head of keys or values, several times in a row."""
    rows, *rest = tensor.shape
    times = out.shape[0] // rows
    blocks = _written(tensor).view(rows // head_size, 1, head_size, *rest)
    out.view(rows // head_size, times, head_size, *rest).copy_(blocks)


def _written(tensor: PlannedTensor) -> Tensor:
    written = torch.empty(tensor.shape, dtype=tensor.dtype)
    tensor.write(written)
    return written


def _head_size(pool: ParentPool, model: str) -> int:
    settings = family_config(pool.config(model))
    width, heads = settings.get("hidden_size"), settings.get("num_attention_heads")
    return int(settings.get("head_dim") or int(width or 1) // int(heads or 1))
