"""A recipe as parts: consecutive output layers and the models that they are made from; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evomerge.recipe import Module, Parameters, Recipe, Source
from evomerge.signatures import Base, Signature


@dataclass(frozen=True)
class Part:
    """One slice of a recipe or of a module, or all of a recipe or module that lists models.

    Attributes:
        where: names the part in messages: "models", "slices[0]", "modules.vision_tower.slices[0]".
        module: what the recipe calls the module; None for the one that the donor's family merges.
        is_slice: whether the sources have layer ranges.
        sources: the models, in order.
        scopes: the parameters that hold for all sources, the most specific ones first.
        base: the base model of this part.
    """

    where: str
    module: str | None
    is_slice: bool
    sources: tuple[Source, ...]
    scopes: tuple[Parameters, ...]
    base: str | None

    @property
    def length(self) -> int:
        """The number of output layers of a slice."""
        start, end = self.sources[0].layer_range or (0, 0)
        return end - start

    def base_index(self, signature: Signature) -> int | None:
        """Which source is the base, for methods that use one; None when no source is."""
        if signature.base is Base.IGNORED:
            return None
        models = [source.model for source in self.sources]
        return models.index(self.base) if self.base in models else None

    def others(self, signature: Signature) -> tuple[int, ...]:
        """Which sources have per-model parameters: all but the base of methods that use one."""
        base = self.base_index(signature)
        return tuple(index for index in range(len(self.sources)) if index != base)


def parts_of(recipe: Recipe) -> tuple[Part, ...]:
    """The parts in output order, those of one module next to each other.

    A list of models gets the recipe's base as last source when it lacks it; slices name all their
    sources.
    """
    if not recipe.modules:
        return tuple(_parts(recipe, None, recipe))
    return tuple(part for module in recipe.modules for part in _parts(recipe, module.name, module))


def _parts(recipe: Recipe, module: str | None, body: Recipe | Module) -> Iterator[Part]:
    start = "" if module is None else f"modules.{module}."
    outer = (recipe.parameters,) if module is None else (body.parameters, recipe.parameters)
    base = recipe.base_model
    for index, part in enumerate(body.slices):
        where, own = f"{start}slices[{index}]", part.base_model or base
        yield Part(where, module, True, part.sources, (part.parameters, *outer), own)
    if body.models:
        sources = body.models
        if base is not None and all(source.model != base for source in sources):
            sources = (*sources, Source(base))
        yield Part(f"{start}models", module, False, sources, outer, base)
