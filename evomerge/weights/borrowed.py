"""Builds transformers models around tensors that stay where they are: in the parents' files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from evomerge.errors import BuildFailed
from evomerge.weights.family_config import PER_LAYER_KEYS
from evomerge.weights.foreign import read_by_transformers
from evomerge.weights.pool import ParentPool
from evomerge.weights.quiet import quiet_loading

Kinds = tuple[tuple[Any, ...], ...]
"""For every layer, its entries of the lists PER_LAYER_KEYS; None where there is no such list."""
_SHOWN = 5


def read_config(directory: Path) -> PreTrainedConfig:
    """The config of a model as transformers sees it."""
    with read_by_transformers(f"{directory / 'config.json'}", "stack models that it knows"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    return config


def kinds_in(config: PreTrainedConfig) -> Kinds:
    """What kind each layer is of."""
    lists = [vars(config).get(key) for key in PER_LAYER_KEYS]
    return tuple(
        tuple(None if found is None else found[layer] for found in lists)
        for layer in range(config.num_hidden_layers)
    )


def with_layers(config: PreTrainedConfig, kinds: Kinds) -> PreTrainedConfig:
    """The same config for layers of these kinds."""
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = len(kinds)
    for key, entries in zip(PER_LAYER_KEYS, zip(*kinds, strict=True), strict=True):
        if vars(config).get(key) is not None:  # some classes compute the list from the count
            setattr(changed, key, list(entries))
    return changed


def borrowed_model(
    pool: ParentPool, model: str, names: Iterable[str], config: PreTrainedConfig, dtype: str
) -> tuple[PreTrainedModel, frozenset[str]]:
    """A model with `config` around the tensors `names` of a parent, in evaluation mode.

    Tensors of type `dtype` are not copied, unless transformers keeps them in another form than the
    file does. Buffers that are not stored, such as rotary frequencies, are computed.

    Returns:
        The model, and the weights for which `names` had nothing: they are random.
    """
    tensors = {name: pool.get(model, name) for name in names}
    # Not AutoModel: it asks for a directory, which would be read instead of the tensors.
    with quiet_loading(), torch.random.fork_rng(devices=[]):
        built, report = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=copy.deepcopy(config),
            state_dict=tensors,
            dtype=getattr(torch, dtype),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    directory = pool.directory(model)
    if (directory / "generation_config.json").exists():
        built.generation_config = GenerationConfig.from_pretrained(directory, local_files_only=True)
    mismatched = {entry[0] for entry in report["mismatched_keys"]}
    return built.eval(), frozenset({*report["missing_keys"], *mismatched})


def assert_complete(model: str, missing: Iterable[str]) -> None:
    """Check that a parent has all weights that its class has.

    Raises:
        BuildFailed: some are `missing`.
    """
    names = sorted(missing)
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise BuildFailed(
            f"model '{model}': its weights lack {', '.join(names[:_SHOWN])}{more}, or have them in "
            "other shapes: download the model again"
        )


def list_of_layers(model: torch.nn.Module, stack: str) -> tuple[torch.nn.Module, str]:
    """The module that has the list of layers `stack`, such as "layers", and the list's name in it.

    Raises:
        BuildFailed: there is no such list.
    """
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.ModuleList) and f".{name}".endswith(f".{stack}"):
            owner, _, attribute = name.rpartition(".")
            return model.get_submodule(owner), attribute
    raise BuildFailed(
        f"{type(model).__name__}: expected a list of layers called '{stack}', as in the files; got "
        "none: this family cannot be stacked"
    )


def replace_layers(
    model: torch.nn.Module, stack: str, layers: Sequence[torch.nn.Module]
) -> torch.nn.ModuleList:
    """Put `layers` in the place of the model's, and return those that were there."""
    owner, attribute = list_of_layers(model, stack)
    found = getattr(owner, attribute)
    assert isinstance(found, torch.nn.ModuleList), "the list was found by its type"
    setattr(owner, attribute, torch.nn.ModuleList(layers))
    return found
