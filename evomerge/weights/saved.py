"""Loads a finished Hugging Face model or tokenizer from disk, as any user of it would."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.checkpoint import Checkpoint
from evomerge.weights.companion_files import write_tokenizer
from evomerge.weights.model_config import causal_problem
from evomerge.weights.pool import ParentPool
from evomerge.weights.quiet import quiet_loading


def load_saved(directory: Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in its stored dtype, in evaluation mode, and its tokenizer.

    Raises:
        InvalidInput: the directory holds no readable safetensors checkpoint.
        PreflightFailed: the model does not predict next tokens.
    """
    problem = causal_problem(directory.name, Checkpoint.open(directory).config)
    if problem is not None:
        raise PreflightFailed(problem)
    with quiet_loading():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    return model.to(torch.device(device)).eval(), _tokenizer(directory)


def tokenizer_of(recipe: Recipe, pool: ParentPool) -> PreTrainedTokenizerBase:
    """The tokenizer that `recipe` asks for, as its saved model would have it."""
    with TemporaryDirectory(prefix="evomerge-tokenizer-") as folder:
        write_tokenizer(recipe, pool, Path(folder))
        return _tokenizer(Path(folder))


def _tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False
    )
    return tokenizer


def best_device() -> str:
    """Where models live on this machine: the first GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
