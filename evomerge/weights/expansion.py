"""Which output tensors a recipe has and which parents' tensors each is made from; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import final

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.compatibility import capped
from evomerge.weights.headers import TensorInfo
from evomerge.weights.layout import Section, is_early
from evomerge.weights.parts import Part, parts_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.towers import Tower
from evomerge.weights.vocabulary import Alignment
from evomerge.weights.vocabulary_tensors import changing


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
        part: the index of the part of the recipe that it belongs to; None for a copy: a tensor of
            a module that the recipe leaves to the donor, or a buffer that some sources lack.
        depth: its place in the part for gradients: layer j of n at j/(n-1), 1 in a part of one
            layer, 0 outside the layers.
        inputs: one per source of the part, in order; of a copy, the models that have it.
    """

    name: str
    part: int | None
    depth: float
    inputs: tuple[Input, ...]


def expand(recipe: Recipe, pool: ParentPool) -> tuple[Target, ...]:
    """The output tensors in order: embeddings, layers, norm and head, then the donor's copies.

    Embeddings come from the first part, norm and head from the last. When no source stores a head
    there is none in the output; when at least one does, tied sources give their embedding. Names
    are the donor's. Without `modules:` the recipe is about the donor's main tower.

    Raises:
        PreflightFailed: a module that a model lacks, a layer range beyond a model's layers, a
            tensor that a source lacks, tensors of different shapes, integers mixed with floats.
    """
    expansion = _Expansion(recipe, pool)
    targets = expansion.targets()
    if expansion.problems:
        raise PreflightFailed(capped(expansion.problems, "recipe"))
    return targets


@dataclass(frozen=True)
class _Scene:
    """One part, the donor's module that it is about, and that module in every source.

    `stacks` names the sliced stack of layers in every source; it is empty for a list of models.
    """

    index: int
    part: Part
    donor: Tower
    towers: Mapping[str, Tower]
    stacks: Mapping[str, str]

    def sections(self, model: str) -> Iterator[tuple[str, Section]]:
        """Every local name of a source; layers beside the sliced stack are none."""
        stack = self.stacks.get(model)
        for local, place in self.towers[model].layout.places.items():
            if stack is None or place.stack == stack or place.section is not Section.LAYER:
                yield local, place.section
            else:
                yield local, Section.PRE if is_early(local) else Section.POST


@final
class _Expansion:
    """One walk over a recipe that collects problems (stateful)."""

    def __init__(self, recipe: Recipe, pool: ParentPool) -> None:
        self.parts = parts_of(recipe)
        self.donor = pool.parent(recipe.donor)
        self.pool = pool
        self.alignment = pool.alignment(recipe)
        self.problems: list[str] = []

    def targets(self) -> tuple[Target, ...]:
        """Everything: the modules of the recipe, then what it leaves to the donor."""
        stored = self.pool.infos(self.donor.name)
        owner: dict[str, str | None] = {}
        targets: list[Target] = []
        for module, numbered in groupby(enumerate(self.parts), lambda pair: pair[1].module):
            scenes = [self._scene(index, part) for index, part in numbered]
            ready = [scene for scene in scenes if scene is not None]
            if not ready or len(ready) < len(scenes):
                continue
            targets += self._module(ready)
            self._check_length(ready)
            for name in ready[0].donor.stored.values():
                first = owner.setdefault(name, module)
                if first != module:
                    self._note(f"modules: '{first}' and '{module}' overlap: name one of them")
        made = {target.name for target in targets} | owner.keys()
        return (*targets, *(self._copy(name) for name in stored if name not in made))

    def _note(self, line: str) -> None:
        if line not in self.problems:
            self.problems.append(line)

    def _check_length(self, scenes: list[_Scene]) -> None:
        """Only the main tower may change its depth: the config says where its layer count is."""
        scene, length = scenes[0], sum(scene.part.length for scene in scenes)
        if not scene.part.is_slice or scene.donor is self.donor.towers.main:
            return
        depth = scene.donor.layout.stacks[scene.stacks[self.donor.name]]
        if length != depth:
            self._note(
                f"modules.{scene.part.module}: slices of {length} layers in total, but "
                f"'{self.donor.name}' has {depth}: only a language model's depth can change"
            )

    def _scene(self, index: int, part: Part) -> _Scene | None:
        towers: dict[str, Tower] = {}
        stacks: dict[str, str] = {}
        models = dict.fromkeys((self.donor.name, *(source.model for source in part.sources)))
        for parent in map(self.pool.parent, models):
            tower = parent.towers.tower(part.module)
            if tower is None:
                self._note(
                    f"modules: model '{parent.name}' has no module '{part.module}': use "
                    f"{' or '.join(parent.towers.module_names)}, or the beginning of tensor names"
                )
                continue
            towers[parent.name] = tower
            stack = parent.main_stack(tower)
            if part.is_slice and stack is None:
                names = ", ".join(tower.layout.stacks) or "none"
                self._note(
                    f"{part.where}: model '{parent.name}' has {len(tower.layout.stacks)} stacks of "
                    f"layers ({names}), expected one: list models instead of slices or use modules"
                )
            elif part.is_slice and stack is not None:
                stacks[parent.name] = stack
        if len(towers) < len(models) or (part.is_slice and len(stacks) < len(models)):
            return None
        return _Scene(index, part, towers[self.donor.name], towers, stacks)

    def _module(self, scenes: list[_Scene]) -> list[Target]:
        """The tensors before the layers, of the layers, and after them."""
        first = 0
        layers: list[Target | None] = []
        for scene in scenes:
            layers += self._slice(scene, first) if scene.part.is_slice else self._stacks(scene)
            first += scene.part.length
        before = self._unnumbered(scenes[0], Section.PRE)
        after = self._unnumbered(scenes[-1], Section.POST)
        return [target for target in (*before, *layers, *after) if target is not None]

    def _unnumbered(self, scene: _Scene, section: Section) -> list[Target | None]:
        found = {
            local
            for source in scene.part.sources
            for local, own in scene.sections(source.model)
            if own is section
        }
        return [self._target(local, scene, 0.0, {}) for local in sorted(found)]

    def _stacks(self, scene: _Scene) -> list[Target | None]:
        """All layers of a list of models, stack after stack."""
        layouts = [scene.towers[source.model].layout for source in scene.part.sources]
        targets: list[Target | None] = []
        for stack in dict.fromkeys(stack for layout in layouts for stack in layout.stacks):
            count = max(layout.stacks.get(stack, 0) for layout in layouts)
            for layer in range(count):
                place = (stack, layer)
                rests = {rest for layout in layouts for rest in layout.layers.get(place, ())}
                targets += [
                    self._target(f"{stack}.{layer}.{rest}", scene, _depth(layer, count), {})
                    for rest in sorted(rests)
                ]
        return targets

    def _slice(self, scene: _Scene, first: int) -> list[Target | None]:
        """The layers of one slice, numbered from `first`."""
        starts = self._starts(scene)
        if len(starts) < len(scene.part.sources):
            return []
        targets: list[Target | None] = []
        for j in range(scene.part.length):
            rests = {
                rest
                for model, start in starts.items()
                for rest in scene.towers[model].layout.layers.get(
                    (scene.stacks[model], start + j), ()
                )
            }
            for rest in sorted(rests):
                locals_ = {m: f"{scene.stacks[m]}.{s + j}.{rest}" for m, s in starts.items()}
                name = f"{scene.stacks[self.donor.name]}.{first + j}.{rest}"
                targets.append(self._target(name, scene, _depth(j, scene.part.length), locals_))
        return targets

    def _starts(self, scene: _Scene) -> dict[str, int]:
        """The first layer of every source whose range lies within its model."""
        starts: dict[str, int] = {}
        for source in scene.part.sources:
            start, end = source.layer_range or (0, 0)
            depth = scene.towers[source.model].layout.stacks[scene.stacks[source.model]]
            if end <= depth:
                starts[source.model] = start
                continue
            self._note(
                f"{scene.part.where}: layer_range [{start}, {end}] of '{source.model}', which has "
                f"{depth} layers: end the range at {depth} or before"
            )
        return starts

    def _copy(self, name: str) -> Target:
        return Target(name, None, 0.0, (self._input(self.donor.name, name, name),))

    def _input(self, model: str, label: str, stored: str) -> Input:
        parent, info = self.pool.parent(model), self.pool.infos(model)[stored]
        alignment = None
        try:
            if self.alignment is not None:
                alignment = changing(self.alignment, parent, info)
        except PreflightFailed as error:
            for line in error.problems:
                self._note(line)
        return Input(model, label, info, alignment)

    def _target(
        self, local: str, scene: _Scene, depth: float, own: Mapping[str, str]
    ) -> Target | None:
        """The output tensor `local`; `own` has other local names by model. None with a problem."""
        like = next((t for t in scene.towers.values() if local in t.stored), scene.donor)
        name = scene.donor.full_name(local, like)
        inputs: list[Input] = []
        missing: list[str] = []
        for source in scene.part.sources:
            parent, tower = self.pool.parent(source.model), scene.towers[source.model]
            label = tower.full_name(own.get(source.model, local), like)
            stored = parent.find(tower, own.get(source.model, local))
            if stored is None:
                missing.append(
                    f"model '{source.model}': tensor '{label}' is missing, other models have it: "
                    "replace the model"
                )
            else:
                inputs.append(self._input(source.model, label, stored))
        if missing and not any(item.info.is_mergeable for item in inputs):
            return Target(name, None, 0.0, tuple(inputs))
        self.problems += missing[:1]
        shapes = {item.shape for item in inputs}
        if len(shapes) > 1 or len({item.info.is_mergeable for item in inputs}) > 1:
            self.problems.append(
                f"tensor '{name}': the models disagree: "
                + ", ".join(f"'{i.model}' {i.info.dtype} {list(i.info.shape)}" for i in inputs)
                + ": choose parents of one shape"
            )
            return None
        return None if missing else Target(name, scene.index, depth, tuple(inputs))


def _depth(layer: int, count: int) -> float:
    return layer / (count - 1) if count > 1 else 1.0
