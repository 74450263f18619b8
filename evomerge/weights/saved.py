"""Loads a finished Hugging Face model or tokenizer from disk, as any user of it would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evomerge.consent import NOTHING, Consent
from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.checkpoint import Checkpoint
from evomerge.weights.companion_files import write_tokenizer
from evomerge.weights.foreign import read_by_transformers
from evomerge.weights.model_config import causal_problem
from evomerge.weights.pool import ParentPool
from evomerge.weights.quiet import quiet_loading
from evomerge.weights.remote_code import code_problem

REPAIR = "download or save it again, or update transformers"


def load_saved(
    directory: Path, device: str, consent: Consent = NOTHING
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in its stored dtype, in evaluation mode, and its tokenizer.

    Raises:
        InvalidInput: the directory holds no readable safetensors checkpoint.
        PreflightFailed: the model does not predict next tokens, transformers cannot read it, or
            it needs code that `consent` does not allow.
    """
    config = Checkpoint.open(directory).config
    problem = causal_problem(directory.name, config)
    if problem is not None:
        raise PreflightFailed(problem)
    trusted = trusts(directory, config, consent)
    with quiet_loading(), read_by_transformers(f"{directory}", REPAIR):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trusted,
        )
    return model.to(torch.device(device)).eval(), _tokenizer(directory, directory, trusted)


def check_loadable(recipe: Recipe, pool: ParentPool) -> None:
    """Load tokenizer and config of the recipe's model, and build it without memory for weights.

    Cheap, and comes before all that is not.

    Raises:
        PreflightFailed: transformers cannot do it, or it needs code that is not allowed.
    """
    directory = pool.directory(recipe.donor)
    config = config_of(directory, pool.config(recipe.donor), pool.consent)
    trusted = pool.consent.trusts(directory)
    reading = read_by_transformers(f"{directory / 'config.json'}", REPAIR)
    with quiet_loading(), torch.random.fork_rng(devices=[]), torch.device("meta"), reading:
        AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    tokenizer_of(recipe, pool)


def config_of(directory: Path, config: Mapping[str, Any], consent: Consent) -> PreTrainedConfig:
    """The config of a model as transformers sees it; raises like `check_loadable`."""
    trusted = trusts(directory, config, consent)
    with quiet_loading(), read_by_transformers(f"{directory / 'config.json'}", REPAIR):
        found: PreTrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trusted
        )
    return found


def trusts(directory: Path, config: Mapping[str, Any], consent: Consent) -> bool:
    """Whether a model's own code may run.

    Raises:
        PreflightFailed: it may not and is needed, or is not what was allowed.
    """
    trusted = consent.trusts(directory)
    problem = None if trusted else code_problem(directory, config, CONFIG_MAPPING)
    if problem is not None:
        raise PreflightFailed(problem)
    return trusted


def tokenizer_of(recipe: Recipe, pool: ParentPool) -> PreTrainedTokenizerBase:
    """The tokenizer that `recipe` asks for, as its saved model would have it."""
    with TemporaryDirectory(prefix="evomerge-tokenizer-") as folder:
        owner = write_tokenizer(recipe, pool, Path(folder))
        return _tokenizer(Path(folder), owner, pool.consent.trusts(owner))


def _tokenizer(directory: Path, owner: Path, trusted: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in `directory`; messages name its `owner`, whose files it has."""
    with quiet_loading(), read_by_transformers(f"{owner}: the tokenizer in it", REPAIR):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trusted
        )
    return tokenizer


def best_device() -> str:
    """Where models live on this machine: the first GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
