"""Which output tensors a recipe has and which parents' tensors each is made from; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.compatibility import capped
from evomerge.weights.headers import TensorInfo
from evomerge.weights.layout import Section, has_vocabulary_axis, is_head
from evomerge.weights.parts import Part, parts_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.vocabulary import Alignment


@dataclass(frozen=True)
class Input:
    """One parent's share of an output tensor.

    `name` is what filters see; `info` is the stored tensor, whose name differs only where a tied
    embedding stands in for a head. `alignment` says how its rows become the output's, None that
    they are the same.
    """

    model: str
    name: str
    info: TensorInfo
    alignment: Alignment | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor has in the merge."""
        rows = () if self.alignment is None else (self.alignment.rows,)
        return (*rows, *self.info.shape[len(rows) :])


@dataclass(frozen=True)
class Target:
    """One output tensor.

    Attributes:
        name: its name in the output.
        part: the index of the part of the recipe that it belongs to.
        depth: its place in the part for gradients: layer j of n at j/(n-1), 1 in a part of one
            layer, 0 outside the layers.
        inputs: one per source of the part, in order.
    """

    name: str
    part: int
    depth: float
    inputs: tuple[Input, ...]


def expand(recipe: Recipe, pool: ParentPool) -> tuple[Target, ...]:
    """The output tensors in order: embeddings, layers, norm and head.

    Embeddings come from the first part, norm and head from the last. When no source stores a head
    there is none in the output; when at least one does, tied sources give their embedding.

    Raises:
        PreflightFailed: a layer range beyond a model's layers, a tensor that a source lacks,
            tensors of different shapes, integers mixed with floats.
    """
    expansion = _Expansion(recipe, pool)
    targets = (*expansion.pre(), *expansion.layers(), *expansion.post())
    if expansion.problems:
        raise PreflightFailed(capped(expansion.problems, "recipe"))
    return targets


@final
class _Expansion:
    """One walk over a recipe that collects problems (stateful)."""

    def __init__(self, recipe: Recipe, pool: ParentPool) -> None:
        self.parts = parts_of(recipe)
        self.pool = pool
        self.alignment = pool.alignment(recipe)
        self.problems: list[str] = []

    def pre(self) -> list[Target]:
        return self._unnumbered(0, Section.PRE)

    def post(self) -> list[Target]:
        return self._unnumbered(len(self.parts) - 1, Section.POST)

    def layers(self) -> list[Target]:
        """Numbered tensors: for a recipe of slices the numbers count up over all parts."""
        if not self.parts[0].where:
            return self._all_stacks(self.parts[0])
        targets: list[Target] = []
        first = 0
        for index in range(len(self.parts)):
            targets += self._slice(index, first)
            first += _length(self.parts[index])
        return targets

    def _unnumbered(self, index: int, section: Section) -> list[Target]:
        models = [source.model for source in self.parts[index].sources]
        names = {name for model in models for name in self.pool.layout(model).unnumbered(section)}
        found = [self._target(n, index, 0.0, dict.fromkeys(models, n)) for n in sorted(names)]
        return [target for target in found if target is not None]

    def _all_stacks(self, part: Part) -> list[Target]:
        models = [source.model for source in part.sources]
        layouts = [self.pool.layout(model) for model in models]
        targets: list[Target | None] = []
        for stack in dict.fromkeys(stack for layout in layouts for stack in layout.stacks):
            count = max(layout.stacks.get(stack, 0) for layout in layouts)
            for layer in range(count):
                place = (stack, layer)
                rests = {rest for layout in layouts for rest in layout.layers.get(place, ())}
                names = sorted(f"{stack}.{layer}.{rest}" for rest in rests)
                depth = _depth(layer, count)
                targets += [self._target(n, 0, depth, dict.fromkeys(models, n)) for n in names]
        return [target for target in targets if target is not None]

    def _slice(self, index: int, first: int) -> list[Target]:
        part, count = self.parts[index], _length(self.parts[index])
        out_stack = self._stack(self.parts[0].sources[0].model)
        starts: dict[str, tuple[str, int]] = {}
        for source in part.sources:
            stack, (start, end) = self._stack(source.model), source.layer_range or (0, 0)
            depth = 0 if stack is None else self.pool.layout(source.model).stacks[stack]
            if stack is not None and end > depth:
                self.problems.append(
                    f"{part.where}: layer_range [{start}, {end}] of '{source.model}', which has "
                    f"{depth} layers: end the range at {depth} or before"
                )
            elif stack is not None:
                starts[source.model] = (stack, start)
        if out_stack is None or len(starts) < len(part.sources):
            return []
        targets: list[Target | None] = []
        for j in range(count):
            rests = {
                rest
                for model, (stack, start) in starts.items()
                for rest in self.pool.layout(model).layers.get((stack, start + j), ())
            }
            for rest in sorted(rests):
                inputs = {m: f"{stack}.{start + j}.{rest}" for m, (stack, start) in starts.items()}
                name = f"{out_stack}.{first + j}.{rest}"
                targets.append(self._target(name, index, _depth(j, count), inputs))
        return [target for target in targets if target is not None]

    def _stack(self, model: str) -> str | None:
        """The only stack of layers of a model; slices of several stacks have no meaning."""
        stacks = tuple(self.pool.layout(model).stacks)
        if len(stacks) == 1:
            return stacks[0]
        line = (
            f"slices: model '{model}' has {len(stacks)} stacks of layers, expected one: "
            "list models instead of slices"
        )
        if line not in self.problems:
            self.problems.append(line)
        return None

    def _target(self, name: str, part: int, depth: float, names: dict[str, str]) -> Target | None:
        """The output tensor `name` from each model's tensor in `names`; None with a problem."""
        inputs: list[Input] = []
        for model, wanted in names.items():
            stored = self.pool.parent(model).stored_name(wanted)
            if stored is None:
                self.problems.append(
                    f"model '{model}': tensor '{wanted}' is missing, other models have it: "
                    "replace the model"
                )
                return None
            label = name if is_head(name) else wanted
            info = self.pool.infos(model)[stored]
            inputs.append(Input(model, label, info, self._alignment(model, info)))
        shapes = {item.shape for item in inputs}
        if len(shapes) > 1 or len({item.info.is_mergeable for item in inputs}) > 1:
            self.problems.append(
                f"tensor '{name}': the models disagree: "
                + ", ".join(f"'{i.model}' {i.info.dtype} {list(i.info.shape)}" for i in inputs)
                + ": choose parents of one shape"
            )
            return None
        return Target(name, part, depth, tuple(inputs))

    def _alignment(self, model: str, info: TensorInfo) -> Alignment | None:
        """The alignment, for tensors with a vocabulary axis whose rows it changes."""
        if self.alignment is None or not has_vocabulary_axis(info.name):
            return None
        rows, expected = info.shape[0], self.pool.vocabulary_rows(model)
        if rows != expected:
            self.problems.append(
                f"model '{model}': tensor '{info.name}' has {rows} rows, its embedding {expected}: "
                "replace the model"
            )
            return None
        return None if self.alignment.keeps(model, rows) else self.alignment


def _length(part: Part) -> int:
    start, end = part.sources[0].layer_range or (0, 0)
    return end - start


def _depth(layer: int, count: int) -> float:
    return layer / (count - 1) if count > 1 else 1.0
