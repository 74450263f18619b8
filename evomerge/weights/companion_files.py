"""The files around the weights: tokenizer, chat template, generation settings; allowed code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.recipe import STACK, Recipe
from evomerge.weights.chat_template import TEMPLATE_FILE, chosen_template
from evomerge.weights.json_files import read_json
from evomerge.weights.pool import ParentPool
from evomerge.weights.vocabulary import OutputTokens
from evomerge.weights.vocabulary_file import SETTINGS_FILE, TOKENIZER_FILE, read_document
from evomerge.weights.vocabulary_ids import moved_ids
from evomerge.weights.vocabulary_union import union_document

_SETTINGS = (SETTINGS_FILE, "special_tokens_map.json")
# These hold the tokens, too: beside a tokenizer.json with others they would contradict it.
_VOCABULARIES = (
    TOKENIZER_FILE,
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_TEMPLATES = (TEMPLATE_FILE, "chat_template.json")
_TEMPLATE_FOLDER = "additional_chat_templates"
_GENERATION = "generation_config.json"
_PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


def copy_companions(recipe: Recipe, pool: ParentPool, out: Path) -> None:
    """Put tokenizer, chat templates, generation and processor settings into the directory `out`.

    Raises:
        InvalidInput, PreflightFailed: a tokenizer file is damaged, missing, or lacks tokens that
            the recipe names.
    """
    write_tokenizer(recipe, pool, out)
    _copy(pool.directory(recipe.donor), out, (_GENERATION, *_PROCESSORS))
    _copy_code(pool.directory(recipe.donor), pool, out)
    settings = generation_settings(recipe, pool)
    if settings is not None:
        _write_json(out / _GENERATION, settings)


def write_tokenizer(recipe: Recipe, pool: ParentPool, out: Path) -> Path:
    """Put the output's tokenizer and chat template into the directory `out`; returns whose it is.

    Where the recipe asks for nothing else they are unchanged copies; raises like `copy_companions`.
    """
    alignment = pool.alignment(recipe)
    owner = pool.directory(recipe.donor if alignment is None else alignment.tokens.model)
    _copy(owner, out, (*_SETTINGS, *_TEMPLATES))
    _copy_code(owner, pool, out)
    for source in _named_templates(owner):
        (out / _TEMPLATE_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(source, out / _TEMPLATE_FOLDER / source.name)
    if alignment is None or alignment.tokens.is_own:
        _copy(owner, out, _VOCABULARIES)
    else:
        _build_tokenizer(alignment.tokens, pool, out)
    models = recipe.referenced_models()
    template = chosen_template(recipe, (pool.directory(model) for model in models))
    if template is not None:
        _replace_template(template, out)
    return owner


def generation_settings(recipe: Recipe, pool: ParentPool) -> dict[str, Any] | None:
    """The donor's generation_config.json with moved token ids; None where nothing changes.

    A stack generates with a cache even if its donor, itself a stack of another make, could not.
    """
    path = pool.directory(recipe.donor) / _GENERATION
    if not path.exists():
        return None
    own = read_json(path)
    moved = with_moved_ids(own, recipe, pool)
    if recipe.merge_method == STACK and own.get("use_cache") is False:
        return {**(moved or own), "use_cache": True}
    return moved


def with_moved_ids(
    config: dict[str, Any], recipe: Recipe, pool: ParentPool
) -> dict[str, Any] | None:
    """A config of the donor with the output's token ids; None where every token keeps its id."""
    alignment = pool.alignment(recipe)
    if alignment is None or alignment.tokens.model == recipe.donor:
        return None
    tokens = alignment.tokens
    donor = pool.vocabulary(recipe.donor).ids
    return moved_ids(config, tokens, donor, pool.directory(tokens.model))


def _build_tokenizer(tokens: OutputTokens, pool: ParentPool, out: Path) -> None:
    models = dict.fromkeys((tokens.model, *tokens.ordinary.values()))
    documents = {model: read_document(model, pool.directory(model)) for model in models}
    _write_json(out / TOKENIZER_FILE, union_document(tokens, documents))
    settings = out / SETTINGS_FILE
    content = read_json(settings) if settings.exists() else {}
    if "added_tokens_decoder" in content:  # older files repeat the added tokens here
        content["added_tokens_decoder"] |= {
            str(tokens.ids[token]): dict(entry) | {"id": tokens.ids[token]}
            for token, entry in tokens.added.items()
        }
        _write_json(settings, content)


def _replace_template(template: str, out: Path) -> None:
    """One template in the one place where it belongs; alternatives to the old one go."""
    for name in _TEMPLATES:
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / _TEMPLATE_FOLDER, ignore_errors=True)
    (out / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    settings = out / SETTINGS_FILE
    content = read_json(settings) if settings.exists() else {}
    if content.pop("chat_template", None) is not None:
        _write_json(settings, content)


def _copy(source: Path, out: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            _check_link(source / name)
            shutil.copyfile(source / name, out / name)


def _copy_code(source: Path, pool: ParentPool, out: Path) -> None:
    """The Python files that a person has allowed, without which the output could not be loaded."""
    allowed = pool.consent.code_of(source)
    if allowed is not None:
        allowed.check()
        _copy(source, out, tuple(name for name, _ in allowed.files))


def _check_link(path: Path) -> None:
    """What is copied may be published: a link must not pass some other file off as a tokenizer.

    The hub's cache links to files named after their content.
    """
    target = path.resolve()
    if target.name != path.name and target.parent.name != "blobs":
        raise InvalidInput(
            f"{path}: a link to {target}, a file of another name: put the file itself there"
        )


def _named_templates(directory: Path) -> Iterator[Path]:
    yield from sorted((directory / _TEMPLATE_FOLDER).glob("*.jinja"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
