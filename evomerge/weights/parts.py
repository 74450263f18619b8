"""A recipe as parts: consecutive output layers and the models that they are made from; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.recipe import Parameters, Recipe, Source
from evomerge.signatures import Base, Signature


@dataclass(frozen=True)
class Part:
    """One slice of a recipe, or all of a recipe that lists models.

    `where` names the part in messages ("" for a recipe that lists models); `parameters` are those
    of the slice.
    """

    where: str
    sources: tuple[Source, ...]
    parameters: Parameters
    base: str | None

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
    """The parts in output order.

    A recipe that lists models gets its base as last source when the list lacks it; slices name all
    their sources.
    """
    if recipe.slices:
        base = recipe.base_model
        return tuple(
            Part(f"slices[{index}]", part.sources, part.parameters, part.base_model or base)
            for index, part in enumerate(recipe.slices)
        )
    sources = recipe.models
    base = recipe.base_model
    if base is not None and all(source.model != base for source in sources):
        sources = (*sources, Source(base))
    return (Part("", sources, Parameters(), base),)
