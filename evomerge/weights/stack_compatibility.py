"""What must agree before layers of two models may stand in one stack; reads configs and headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from evomerge.recipe import Recipe
from evomerge.stack import path_of
from evomerge.weights.compatibility import Parent, capped, own_problems
from evomerge.weights.family_config import PER_LAYER_KEYS, family_config
from evomerge.weights.layout import LAYER_COUNT_KEYS
from evomerge.weights.model_config import hidden_size, is_causal
from evomerge.weights.stack_repair import REPAIR_RULES, repair_of

if TYPE_CHECKING:
    from evomerge.weights.pool import ParentPool

# Settings of embeddings, final norm and head, which are the donor's alone.
_OUTSIDE = (
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "final_logit_softcapping",
    "embedding_multiplier",
    "logits_scaling",
    "logit_scale",
)
# Settings that change nothing that a model computes when it is asked for the next token.
_IDLE = (
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "dtype",
    "embd_pdrop",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
# What these say about single layers is in the lists of kinds.
_COUNTS = (*LAYER_COUNT_KEYS, *PER_LAYER_KEYS, "max_window_layers", "sliding_window_pattern")
_LENGTH = "max_position_embeddings"
_FIXED_ROTATIONS = ("default", "linear", "llama3")
# Settings by which a layer computes something else in another place, and their harmless values.
_BY_NUMBER: Mapping[str, tuple[Any, ...]] = {
    "scale_attn_by_inverse_layer_idx": (False, None),
    "first_k_dense_replace": (0, None),
    "mlp_only_layers": ([], (), None),
    "decoder_sparse_step": (1, None),
    "moe_layer_interval": (1, None),
    "interleave_moe_layer_step": (1, None),
    "num_kv_shared_layers": (0, None),
    "attn_layer_period": (None,),
    "expert_layer_period": (None,),
}


def stack_problems(pool: ParentPool, donor: str, models: tuple[str, ...]) -> list[str]:
    """Why layers of `models` cannot stand in one stack with this donor, one line per reason.

    One config.json must be right for all layers. Vocabularies and depths may differ, and what
    `stack_repair` makes alike: widths of MLPs, biases, groups of keys and values.
    """
    reference = pool.parent(donor)
    others = [pool.parent(model) for model in dict.fromkeys(models) if model != donor]
    found = [line for parent in (reference, *others) for line in _own_problems(parent)]
    families = [line for other in others for line in _family_problems(other, reference)]
    if found or families:
        return [*found, *families]
    settings = [line for other in others for line in _setting_problems(other, reference)]
    return settings or capped(list(repair_of(pool, (donor, *models)).problems), "stack")


def range_problems(recipe: Recipe, pool: ParentPool) -> list[str]:
    """Slices of the stack that end beyond their model's last layer, one line each."""
    lines: list[str] = []
    for index, part in enumerate(recipe.slices):
        (source,) = part.sources
        parent = pool.parent(source.model)
        stack, (start, end) = parent.main_stack(parent.towers.main), source.layer_range or (0, 0)
        depth = 0 if stack is None else parent.towers.main.layout.stacks[stack]
        if end > depth:
            lines.append(
                f"slices[{index}]: layer_range [{start}, {end}] of '{source.model}', which has "
                f"{depth} layers: end the range at {depth} or before"
            )
    return lines


def models_of(recipe: Recipe) -> tuple[str, ...]:
    """The models whose layers a stack uses, each once."""
    return tuple(dict.fromkeys(segment.model for segment in path_of(recipe)))


def _own_problems(parent: Parent) -> Iterator[str]:
    yield from own_problems(parent)
    config, subject = parent.checkpoint.config, f"model '{parent.name}'"
    if not is_causal(config):
        yield f"{subject}: stacks are made of text models that predict the next token: replace it"
    elif parent.main_stack(parent.towers.main) is None:
        yield f"{subject}: expected one stack of layers, as decoders have: replace it"
    settings = family_config(config)
    for key, harmless in _BY_NUMBER.items():
        if settings.get(key) not in harmless:
            yield (
                f"{subject}: {key} {settings[key]} makes layers depend on their number, so they "
                "cannot move: replace the model"
            )


def _family_problems(parent: Parent, donor: Parent) -> Iterator[str]:
    mine, other = parent.checkpoint.config, donor.checkpoint.config
    facts = (
        ("model_type", mine.get("model_type"), other.get("model_type")),
        ("hidden size", hidden_size(mine), hidden_size(other)),
    )
    for what, first, second in facts:
        if first != second:
            yield _differs(parent, donor, what, first, second)


def _setting_problems(parent: Parent, donor: Parent) -> Iterator[str]:
    mine, other = (family_config(p.checkpoint.config) for p in (parent, donor))
    rule = REPAIR_RULES.get(str(parent.checkpoint.config.get("model_type")))
    free = {*_OUTSIDE, *_IDLE, *_COUNTS, *(() if rule is None else rule.settings)}
    if _rotations(mine) <= set(_FIXED_ROTATIONS):
        free.add(_LENGTH)
    for key in sorted((mine.keys() | other.keys()) - free):
        if not key.startswith("_") and mine.get(key) != other.get(key):
            yield _differs(parent, donor, key, mine.get(key), other.get(key))


def _rotations(settings: Mapping[str, Any]) -> set[str]:
    """The kinds of rotary embedding; some of them depend on the longest text."""
    rotary = settings.get("rope_parameters") or {}
    levels = [rotary, *(level for level in rotary.values() if isinstance(level, dict))]
    return {str(level["rope_type"]) for level in levels if "rope_type" in level}


def _differs(parent: Parent, donor: Parent, what: str, mine: object, other: object) -> str:
    return (
        f"model '{parent.name}': {what} {mine}, but '{donor.name}' has {other}: one config.json "
        "holds for all layers of a stack: choose models that agree"
    )
