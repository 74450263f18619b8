"""The config.json of a merged model: the donor's, changed only where the weights demand it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge.recipe import STACK, Recipe
from evomerge.weights.companion_files import with_moved_ids
from evomerge.weights.family_config import PER_LAYER_KEYS, kinds_of_layers
from evomerge.weights.layout import LAYER_COUNT_KEYS, is_head, text_config
from evomerge.weights.model_config import VOCABULARY_KEYS, is_causal, is_multimodal
from evomerge.weights.parts import parts_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.stack_repair import repaired_settings

if TYPE_CHECKING:
    from evomerge.weights.planned import PlannedTensor


def output_dtype(planned: Iterable[PlannedTensor]) -> str:
    """The type that most elements of the floating tensors have, such as "bfloat16"."""
    sizes: Counter[str] = Counter()
    for tensor in planned:
        if tensor.dtype.is_floating_point:
            name = str(tensor.dtype).removeprefix("torch.")
            sizes[name] += tensor.nbytes // tensor.dtype.itemsize
    return sizes.most_common(1)[0][0]


def output_config(
    recipe: Recipe, pool: ParentPool, planned: Sequence[PlannedTensor]
) -> dict[str, Any]:
    """The donor's config with dtype, layers, vocabulary and tied head of the `planned` tensors."""
    config: dict[str, Any] = copy.deepcopy(dict(pool.config(recipe.donor)))
    config = with_moved_ids(config, recipe, pool) or config
    text = text_config(config)
    assert isinstance(text, dict)
    for level in {id(level): level for level in (config, text)}.values():
        level.pop("torch_dtype", None)
        if level is config or "dtype" in level:
            level["dtype"] = output_dtype(planned)
        _set_vocabulary(level, recipe, pool)
    _set_layers(text, recipe, pool)
    if recipe.merge_method == STACK:
        text.update(repaired_settings(recipe, pool))
        text["use_cache"] = True
    has_head = any(is_head(tensor.name) for tensor in planned)
    donor = pool.parent(recipe.donor)
    # Encoder-decoders scale what a tied head sees: there the flag is more than a way to store.
    if (has_head or donor.is_tied) and _flag_means_storage(config):
        for level in {id(level): level for level in (config, text)}.values():
            if level is config or "tie_word_embeddings" in level:
                level["tie_word_embeddings"] = not has_head
    return config


def _flag_means_storage(config: Mapping[str, Any]) -> bool:
    return is_causal(config) or is_multimodal(config)


def _set_vocabulary(level: dict[str, Any], recipe: Recipe, pool: ParentPool) -> None:
    alignment = pool.alignment(recipe)
    for key in VOCABULARY_KEYS:
        if alignment is not None and key in level:
            level[key] = alignment.rows


def _set_layers(text: dict[str, Any], recipe: Recipe, pool: ParentPool) -> None:
    """The first source of each slice decides what kind of layers the output has there."""
    towers = pool.parent(recipe.donor).towers
    firsts = [
        part.sources[0]
        for part in parts_of(recipe)
        if part.is_slice and towers.tower(part.module) is towers.main
    ]
    ranges = [source.layer_range or (0, 0) for source in firsts]
    for key in LAYER_COUNT_KEYS if firsts else ():
        if key in text:
            text[key] = sum(end - start for start, end in ranges)
    for key in PER_LAYER_KEYS if firsts else ():
        kinds = {s.model: kinds_of_layers(pool.config(s.model), key) or [] for s in firsts}
        if isinstance(text.get(key), list) or any(len(set(found)) > 1 for found in kinds.values()):
            text[key] = [
                entry
                for source, (start, end) in zip(firsts, ranges, strict=True)
                for entry in kinds[source.model][start:end]
            ]
