"""A stage whose candidates are stacks: its space from settings and parents, and its baselines."""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.recipe import Recipe
from evomerge.run.baselines import Baseline, short_name
from evomerge.stack import Segment, recipe_of
from evomerge.stack_file import StackSettings, earlier_stage
from evomerge.stack_space import Slots, StackSpace

_MOST = 1.5
_FEWEST = 0.5
_RANKS = {"best": "winner", "top1": "winner", "top2": "second", "top3": "third"}


def stack_space(settings: StackSettings, depths: Mapping[str, int]) -> StackSpace:
    """The space; `depths` has the layer count of every model of the settings.

    Raises:
        InvalidInput: limits that no stack satisfies, or too many slots.
    """
    own = depths[settings.donor]
    fewest, most = settings.layers or (max(2, round(_FEWEST * own)), round(_MOST * own))
    slots = Slots(tuple((model, depths[model]) for model in settings.models), settings.repeats)
    return StackSpace(
        slots,
        settings.donor,
        fewest,
        most,
        gains=settings.gains,
        scale_mode=settings.scale_mode,
        dtype=settings.dtype,
    )


def stack_baselines(settings: StackSettings, depths: Mapping[str, int]) -> tuple[Baseline, ...]:
    """Every model as it is, with its own embeddings and head."""
    stored = tuple(model for model in settings.models if earlier_stage(model) is None)
    found: list[Baseline] = []
    for model in settings.models:
        recipe = whole(model, depths[model], settings)
        if model in stored:
            label, kind = short_name(model, stored), "parent"
        else:
            label, kind = _earlier_label(model), "stage"
        found.append(Baseline(label, kind, recipe, {}, {}, model if model in stored else None))
    return tuple(found)


def whole(model: str, depth: int, settings: StackSettings) -> Recipe:
    """The stack that is `model` as it is."""
    path = (Segment(model, 0, depth),)
    return recipe_of(path, donor=model, scale_mode=settings.scale_mode, dtype=settings.dtype)


def _earlier_label(model: str) -> str:
    stage, _, what = model[1:].partition(".")
    return f"{_RANKS[what]} of stage {stage}"
