"""What a model's tokenizer.json says: its tokens, their ids, and how they are found in text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.weights.json_files import read_json

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
_MAX_MIB = 256
_SLOW_FILES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_NAMED_TOKENS = tuple(
    f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
_NAMED_LISTS = ("additional_special_tokens", "extra_special_tokens")
# What an added token is when a file names nothing but its text.
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}

Tokens = Mapping[str, int]
"""Token ids by the token's text in the vocabulary."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """All tokens of one tokenizer.

    Attributes:
        ids: the id of every token, ordinary or added.
        added: the entries of `added_tokens` by token: those that are found in text before the
            tokenizer's model sees it. An added token need not be special.
    """

    ids: Tokens
    added: Mapping[str, Mapping[str, Any]]

    @property
    def ordinary(self) -> Iterator[str]:
        """The tokens that are not added, in the order of their ids."""
        in_order = sorted(self.ids, key=self.ids.__getitem__)
        return (token for token in in_order if token not in self.added)


def read_vocabulary(model: str, directory: Path) -> Vocabulary:
    """The tokens of the tokenizer in `directory`; `model` names it in messages.

    Ids are those that transformers gives: what tokenizer_config.json names and tokenizer.json lacks
    follows after the last token.

    Raises:
        PreflightFailed: there is no tokenizer.json.
        InvalidInput: a file is damaged.
    """
    document = read_document(model, directory)
    tokens = tokens_of(document["model"])
    if not tokens:
        raise InvalidInput(
            f"{directory / TOKENIZER_FILE}: expected a model with a vocabulary, got none: "
            "save the tokenizer again"
        )
    known = {entry["content"]: entry for entry in document["added_tokens"]}
    for entry in _configured(directory):
        known.setdefault(entry["content"], entry)
    return Vocabulary(MappingProxyType(_numbered(tokens, known)), MappingProxyType(known))


def read_document(model: str, directory: Path) -> dict[str, Any]:
    """The parsed tokenizer.json with a list of added tokens; raises like `read_vocabulary`."""
    path = directory / TOKENIZER_FILE
    if path.exists():
        document = read_json(path, max_mib=_MAX_MIB)
        entries = document.get("added_tokens") or []
        if isinstance(document.get("model"), dict) and isinstance(entries, list):
            document["added_tokens"] = [entry for entry in entries if _is_entry(entry)]
            return document
        raise InvalidInput(f"{path}: expected a 'model' in it, got none: save the tokenizer again")
    slow = next((name for name in _SLOW_FILES if (directory / name).exists()), None)
    has = f"only {slow}, which needs code to read" if slow else "no tokenizer"
    fix = "save it as fast tokenizer (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
    raise PreflightFailed(
        f"model '{model}': expected a {TOKENIZER_FILE} to compare vocabularies, got {has}: "
        f"{fix if slow else 'copy the files of its tokenizer'}, or remove the recipe's tokenizer"
    )


def tokens_of(model: Mapping[str, Any]) -> Tokens | None:
    """The ordinary tokens of the `model` part of a tokenizer.json; None when it has none."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):  # unigram: [token, score] at the position of its id
        return {str(entry[0]): index for index, entry in enumerate(vocabulary) if entry}
    sound = isinstance(vocabulary, dict) and all(type(n) is int for n in vocabulary.values())
    return vocabulary if sound else None


def _numbered(tokens: Tokens, added: Iterable[str]) -> dict[str, int]:
    """Ids of all tokens, as the tokenizers library counts on loading, whatever the file claims."""
    ids, last = dict(tokens), -1
    for token in added:
        if token not in ids:
            ids[token] = max(len(tokens), last + 1)
        last = max(last, ids[token])
    return ids


def _configured(directory: Path) -> list[dict[str, Any]]:
    """The added tokens that tokenizer_config.json names, in the order in which they get ids."""
    path = directory / SETTINGS_FILE
    settings = read_json(path) if path.exists() else {}
    decoder = settings.get("added_tokens_decoder")
    numbered = decoder if isinstance(decoder, dict) else {}
    named = [numbered[key] for key in sorted(numbered, key=lambda key: (len(key), key))]
    named += [settings.get(key) for key in _NAMED_TOKENS]
    for key in _NAMED_LISTS:
        value = settings.get(key)
        named += list(value.values()) if isinstance(value, dict) else value or []
    return [entry for entry in map(_entry, named) if entry is not None]


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str)


def _entry(value: Any) -> dict[str, Any] | None:
    """One added token from its text or its settings."""
    if isinstance(value, str):
        return added_token(value, special=True)
    if _is_entry(value):
        flags = {key: bool(value.get(key, False)) for key in (*_PLAIN, "special")}
        return {"content": value["content"], **flags}
    return None


def added_token(text: str, *, special: bool) -> dict[str, Any]:
    """An entry of `added_tokens` that is matched exactly as `text`; the id comes later."""
    return {"content": text, **_PLAIN, "special": special}
