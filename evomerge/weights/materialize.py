"""The heart: a recipe and its parents become a stream of merged tensors, whoever consumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import final

import torch
from torch import Tensor

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.merge.method import Parents, State, Values
from evomerge.merge.methods import METHODS
from evomerge.recipe import Recipe
from evomerge.seeding import derive
from evomerge.signatures import SIGNATURES, Signature
from evomerge.weights.compatibility import capped
from evomerge.weights.expansion import Input, Target, expand
from evomerge.weights.headers import TensorInfo
from evomerge.weights.parts import Part, parts_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.values import ValueLookup
from evomerge.weights.vocabulary_rows import AlignedRows, MemoryCache


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a merged model that is computed when it is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    _write: Callable[[Tensor], None] = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def write(self, out: Tensor) -> None:
        """Compute the tensor into `out`: contiguous, on the CPU, of this shape and dtype."""
        assert tuple(out.shape) == self.shape, "out has another shape than planned"
        assert out.dtype == self.dtype, "out has another dtype than planned"
        assert out.is_contiguous(), "out must be contiguous"
        self._write(out)


@dataclass(frozen=True)
class _Job:
    """What candidates that differ only in parameters share about one output tensor.

    `dtype` is the parents' promoted type; `state_key` says which parents' statistics apply.
    """

    target: Target
    base: Input | None
    others: tuple[Input, ...]
    streams: tuple[int, ...]
    dtype: torch.dtype
    state_key: tuple[object, ...]

    @property
    def info(self) -> TensorInfo:
        return self.target.inputs[0].info


@final
class Materializer:
    """Plans recipes over one pool of parents.

    Keeps what depends on the parents alone (the statistics of the merge methods, the expansion of
    recipes of one structure), so that a further candidate costs one pass over its tensors.
    """

    def __init__(self, pool: ParentPool) -> None:
        """Borrow `pool`; nothing is read yet."""
        self.pool = pool
        self._jobs: dict[object, tuple[_Job, ...]] = {}
        self._states: dict[object, State] = {}
        self._aligned = AlignedRows(pool, MemoryCache())

    def plan(self, recipe: Recipe) -> tuple[PlannedTensor, ...]:
        """The tensors of the merged model in order: embeddings, layers, norm and head.

        No tensor is merged before every coefficient of the recipe is known to be valid.

        Raises:
            InvalidInput: the recipe is wrong on its own, or lacks a value for some tensor.
            PreflightFailed: the recipe does not fit its models.
        """
        problems = validate_recipe(recipe)
        if problems:
            raise InvalidInput(problems)
        jobs = self._jobs_of(recipe)
        lookup = ValueLookup(recipe)
        planned = tuple(self._planned(recipe, job, lookup) for job in jobs)
        if lookup.problems:
            raise InvalidInput(lookup.problems)
        return planned

    def merged_tensors(self, recipe: Recipe) -> Iterator[PlannedTensor]:
        """The tensors of `plan`, one at a time."""
        yield from self.plan(recipe)

    def _planned(self, recipe: Recipe, job: _Job, lookup: ValueLookup) -> PlannedTensor:
        name, shape = job.target.name, job.target.inputs[0].shape
        if not job.info.is_mergeable:
            return PlannedTensor(name, shape, job.dtype, partial(self._copy, job))
        values = Values(lookup.shared(job.target), lookup.models(job.target))
        stored = recipe.storage_dtype
        dtype = job.dtype if stored is None else _torch_dtype(stored)
        write = partial(self._merge, recipe.merge_method, job, values)
        return PlannedTensor(name, shape, dtype, write)

    def _copy(self, job: _Job, out: Tensor) -> None:
        out.copy_(self._borrow(job.target.inputs[0]))

    def _merge(self, method: str, job: _Job, values: Values, out: Tensor) -> None:
        base = None if job.base is None else self._borrow(job.base)
        parents = Parents(base, tuple(self._borrow(item) for item in job.others), job.streams)
        key = (method, job.state_key)
        if key not in self._states:
            self._states[key] = METHODS[method].prepare(parents)
        METHODS[method].merge(parents, self._states[key], values, out)

    def _borrow(self, item: Input) -> Tensor:
        if item.alignment is not None:
            return self._aligned.get(item, item.alignment)
        return self.pool.get(item.model, item.info.name)

    def _jobs_of(self, recipe: Recipe) -> tuple[_Job, ...]:
        signature = SIGNATURES[recipe.merge_method]
        parts = parts_of(recipe)
        ranges = tuple(
            (part.where, part.base, tuple((s.model, s.layer_range) for s in part.sources))
            for part in parts
        )
        policy = None if recipe.tokenizer is None else (recipe.tokenizer, recipe.base_model)
        key = (signature.base, ranges, policy)
        if key not in self._jobs:
            jobs = tuple(
                _job(target, parts[target.part], signature) for target in expand(recipe, self.pool)
            )
            self._check_copies(jobs)
            self._jobs[key] = jobs
        return self._jobs[key]

    def _check_copies(self, jobs: tuple[_Job, ...]) -> None:
        """Tensors that cannot be averaged must be the same in all their models."""
        problems: list[str] = []
        for job in (job for job in jobs if not job.info.is_mergeable):
            first, *rest = job.target.inputs
            different = [
                item.model
                for item in rest
                if item.info.dtype != first.info.dtype
                or not self._borrow(item).equal(self._borrow(first))
            ]
            if different:
                problems.append(
                    f"tensor '{job.target.name}' of type {first.info.dtype} differs between "
                    f"'{first.model}' and '{different[0]}' and cannot be averaged: "
                    "choose parents that share it"
                )
        if problems:
            raise PreflightFailed(capped(problems, "recipe"))


def _job(target: Target, part: Part, signature: Signature) -> _Job:
    base_index = part.base_index(signature)
    base = None if base_index is None else target.inputs[base_index]
    others = tuple(target.inputs[index] for index in part.others(signature))
    # Seed 0 on purpose: the recipe's own seed is a parameter of the methods that draw masks.
    streams = tuple(derive(0, target.name, position) for position in range(len(others)))
    types = [_torch_dtype(item.info.dtype) for item in target.inputs]
    sources = [None if base is None else _identity(base)]
    sources += [_identity(item) for item in others]
    return _Job(target, base, others, streams, reduce(torch.promote_types, types), tuple(sources))


def _identity(item: Input) -> tuple[object, ...]:
    """What tells the tensor of `item` from all others of the pool."""
    alignment = None if item.alignment is None else item.alignment.digest
    return item.model, item.info.name, alignment


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
