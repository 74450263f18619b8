"""The files around the weights: tokenizer, chat template, generation and processor settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.recipe import Recipe
from evomerge.signatures import did_you_mean
from evomerge.weights.compatibility import vocabulary_digest
from evomerge.weights.pool import ParentPool

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
)
_TEMPLATE_FOLDER = "additional_chat_templates"
_DONOR_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


def tokenizer_directory(recipe: Recipe, pool: ParentPool) -> Path:
    """The directory of the model whose tokenizer the merged model gets.

    Raises:
        InvalidInput: `tokenizer_source` names no model of the recipe.
        PreflightFailed: `tokenizer_source` asks for another vocabulary than the donor's.
    """
    source = recipe.tokenizer_source
    if source == "union":
        raise PreflightFailed(
            "tokenizer_source: the union of vocabularies is not supported yet: "
            "use 'base' or choose parents with one vocabulary"
        )
    donor = pool.directory(recipe.donor)
    if source is None or source == "base":
        return donor
    if source not in recipe.referenced_models():
        hint = did_you_mean(source, ("base", *recipe.referenced_models()))
        raise InvalidInput(f"tokenizer_source: '{source}' is no model of the recipe; {hint}")
    chosen = pool.directory(source)
    if vocabulary_digest(chosen) != vocabulary_digest(donor):
        raise PreflightFailed(
            f"tokenizer_source: '{source}' has other tokens than '{recipe.donor}', which is not "
            "supported yet: use 'base' or choose parents with one vocabulary"
        )
    return chosen


def copy_companions(recipe: Recipe, pool: ParentPool, out: Path) -> None:
    """Copy tokenizer, chat templates, generation and processor settings unchanged into `out`."""
    tokenizer, donor = tokenizer_directory(recipe, pool), pool.directory(recipe.donor)
    sources = [tokenizer / name for name in _TOKENIZER_FILES]
    sources += [donor / name for name in _DONOR_FILES]
    for source in sources:
        if source.is_file():
            shutil.copyfile(source, out / source.name)
    for source in _templates(tokenizer):
        (out / _TEMPLATE_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(source, out / _TEMPLATE_FOLDER / source.name)


def _templates(directory: Path) -> Iterator[Path]:
    yield from sorted((directory / _TEMPLATE_FOLDER).glob("*.jinja"))
