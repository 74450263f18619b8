"""Stacks as recipes that mergekit 0.1.5 merges to the same weights, where it can; no torch."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.family_config import PER_LAYER_KEYS
from evomerge.weights.layout import text_config
from evomerge.weights.pool import ParentPool
from evomerge.weights.stack_fold import folded, is_scaled
from evomerge.weights.stack_repair import repair_of
from evomerge.weights.stack_rules import FOLD_RULES

_INSTEAD = "use the written model, or the recipe with evomerge merge"
# Families of which mergekit knows no biases: it leaves them out, and reports success.
_WITHOUT_BIASES = ("llama", "mistral", "qwen3", "gemma2", "gemma3_text", "olmo2")


def mergekit_form(recipe: Recipe, pool: ParentPool) -> Recipe:
    """The `passthrough` recipe of a valid stack, with its scales as `scale` filters.

    Raises:
        PreflightFailed: mergekit cannot express it, with one line per reason.
    """
    if recipe.nested:
        names = ", ".join(f"'{name}'" for name, _ in recipe.nested)
        raise PreflightFailed(
            f"mergekit: a recipe has no place for nested recipes ({names}): {_INSTEAD}"
        )
    problems = list(_problems(recipe, pool))
    if problems:
        raise PreflightFailed(problems)
    family = str(pool.config(recipe.donor).get("model_type"))
    return folded(recipe, family)


def _problems(recipe: Recipe, pool: ParentPool) -> Iterator[str]:
    models = recipe.referenced_models()
    family = str(pool.config(recipe.donor).get("model_type"))
    repair = repair_of(pool, models)
    if is_scaled(recipe) and family in FOLD_RULES and FOLD_RULES[family].centred:
        yield (
            f"mergekit: scales of '{family}' shift the gains of norms, and it can only multiply: "
            f"{_INSTEAD}"
        )
    if repair.is_needed:
        yield f"mergekit: layers of different sizes, which it does not make alike: {_INSTEAD}"
    biases = sorted(name for name in repair.shapes if name.endswith(".bias"))
    if biases and family in _WITHOUT_BIASES:
        yield (
            f"mergekit: it silently leaves out biases of '{family}' models such as "
            f"'{biases[0]}': {_INSTEAD}"
        )
    for key in PER_LAYER_KEYS:
        if any(isinstance(text_config(pool.config(model)).get(key), list) for model in models):
            yield f"mergekit: it does not move the entries of {key} with the layers: {_INSTEAD}"
