"""The heart: a recipe and its parents become a stream of merged tensors, whoever consumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from typing import final

import torch
from torch import Tensor

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.choose import choose_kernels
from evomerge.merge.kernels import Kernels
from evomerge.merge.method import MergeMethod, Parents, Values
from evomerge.merge.methods import merge_methods
from evomerge.recipe import STACK, Recipe
from evomerge.seeding import derive
from evomerge.signatures import SIGNATURES, Signature
from evomerge.weights.compatibility import capped
from evomerge.weights.disk_cache import DiskCache
from evomerge.weights.expansion import Input, Target, expand
from evomerge.weights.headers import TensorInfo
from evomerge.weights.learned import Learned
from evomerge.weights.parts import Part, parts_of
from evomerge.weights.planned import PlannedTensor
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.stack_plan import planned_stack
from evomerge.weights.values import ValueLookup
from evomerge.weights.vocabulary_rows import AlignedRows


@dataclass(frozen=True)
class _Job:
    """What candidates that differ only in parameters share about one output tensor.

    `dtype` is the parents' promoted type.
    """

    target: Target
    base: Input | None
    others: tuple[Input, ...]
    streams: tuple[int, ...]
    dtype: torch.dtype

    @property
    def info(self) -> TensorInfo:
        return self.target.inputs[0].info

    @property
    def is_copy(self) -> bool:
        return self.target.part is None or not self.info.is_mergeable


@dataclass(frozen=True)
class _Work:
    """The jobs of all recipes of one structure, their parents, and what was learned about them."""

    jobs: tuple[_Job, ...]
    parents: Mapping[str, Parents]
    learned: Learned


@final
class Materializer:
    """Plans recipes over one pool of parents (stateful).

    Keeps what depends on the parents alone (the statistics of the merge methods, the expansion of
    recipes of one structure), so that a further candidate costs one pass over its tensors.
    """

    def __init__(self, pool: ParentPool, *, merges: int = 1) -> None:
        """Borrow `pool`; nothing is read yet. Kernels are compiled if `merges` merges repay it."""
        self.pool = pool
        self._merges = merges
        self._work: dict[object, _Work] = {}
        self._aligned = AlignedRows(pool, DiskCache.default)

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
        if recipe.merge_method == STACK:
            return planned_stack(recipe, self.pool, self.plan)
        work = self._work_of(recipe)
        lookup = ValueLookup(recipe)
        method = self._methods[recipe.merge_method]
        stored = None if recipe.storage_dtype is None else _torch_dtype(recipe.storage_dtype)
        planned = tuple(self._planned(job, work, lookup, method, stored) for job in work.jobs)
        if lookup.problems:
            raise InvalidInput(lookup.problems)
        return planned

    def merged_tensors(self, recipe: Recipe) -> Iterator[PlannedTensor]:
        """The tensors of `plan`, one at a time."""
        yield from self.plan(recipe)

    @property
    def threads(self) -> int:
        """How many tensors to write at once; blockwise kernels use torch's threads on their own."""
        return 1 if self._kernels is BLOCKWISE else torch.get_num_threads()

    @cached_property
    def _kernels(self) -> Kernels:
        sizes = [
            sum(torch.Size(info.shape).numel() for info in self.pool.infos(model).values())
            for model in self.pool.models
        ]
        return choose_kernels(max(sizes, default=0) * self._merges)

    @cached_property
    def _methods(self) -> Mapping[str, MergeMethod]:
        return merge_methods(self._kernels)

    def _planned(
        self,
        job: _Job,
        work: _Work,
        lookup: ValueLookup,
        method: MergeMethod,
        stored: torch.dtype | None,
    ) -> PlannedTensor:
        name, shape = job.target.name, job.target.inputs[0].shape
        if job.is_copy:
            return PlannedTensor(name, shape, job.dtype, partial(self._copy, job))
        values = Values(lookup.shared(job.target), lookup.models(job.target))
        write = partial(_merge, method, name, work, values)
        return PlannedTensor(name, shape, stored or job.dtype, write)

    def _copy(self, job: _Job, out: Tensor) -> None:
        out.copy_(self._borrow(job.target.inputs[0]))

    def _borrow(self, item: Input) -> Tensor:
        if item.alignment is not None:
            return self._aligned.get(item, item.alignment)
        return self.pool.get(item.model, item.info.name)

    def _work_of(self, recipe: Recipe) -> _Work:
        signature = SIGNATURES[recipe.merge_method]
        parts = parts_of(recipe)
        ranges = tuple(
            (part.where, part.base, tuple((s.model, s.layer_range) for s in part.sources))
            for part in parts
        )
        key = (signature.base, recipe.base_model, recipe.donor, ranges, recipe.tokenizer)
        if key not in self._work:
            jobs = tuple(_job(target, parts, signature) for target in expand(recipe, self.pool))
            self._check_copies(jobs)
            parents = {job.target.name: self._parents(job) for job in jobs if not job.is_copy}
            self._work[key] = _Work(jobs, parents, Learned(parents, DiskCache.default))
        return self._work[key]

    def _parents(self, job: _Job) -> Parents:
        base = None if job.base is None else self._borrow(job.base)
        return Parents(base, tuple(self._borrow(item) for item in job.others), job.streams)

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


def _job(target: Target, parts: tuple[Part, ...], signature: Signature) -> _Job:
    base, others = None, target.inputs
    if target.part is not None:
        base_index = parts[target.part].base_index(signature)
        base = None if base_index is None else target.inputs[base_index]
        others = tuple(target.inputs[index] for index in parts[target.part].others(signature))
    # Seed 0 on purpose: the recipe's own seed is a parameter of the methods that draw masks.
    streams = tuple(derive(0, target.name, position) for position in range(len(others)))
    types = [_torch_dtype(item.info.dtype) for item in target.inputs]
    return _Job(target, base, others, streams, reduce(torch.promote_types, types))


def _merge(method: MergeMethod, name: str, work: _Work, values: Values, out: Tensor) -> None:
    state = work.learned.state(method.statistic(values), name)
    method.merge(work.parents[name], state, values, out)


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
