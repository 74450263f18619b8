"""Tiny models whose vocabularies differ, and tokenizers of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

from tests import models

SPECIAL = models.SPECIAL
HIDDEN = models.HIDDEN
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def words(*numbers: int) -> tuple[str, ...]:
    """The special tokens and then words such as "w3"."""
    return (*SPECIAL, *(f"w{number}" for number in numbers))


def model(
    path: Path,
    tokenizer: Iterable[str] | Tokenizer,
    *,
    seed: int,
    added: tuple[str, ...] = (),
    rows: int | None = None,
    layers: int = 2,
    tied: bool = False,
    dtype: str = "float32",
) -> Path:
    """A Llama with this tokenizer, or one of whole words; `rows` of the embedding can be more."""
    models.llama(path, seed=seed, layers=layers, tied=tied, dtype=dtype)
    size = save_tokenizer(path, tokenizer, added)
    rows = rows or size
    generator = torch.Generator().manual_seed(seed)
    names = (EMBEDDING,) if tied else (EMBEDDING, HEAD)
    kind = getattr(torch, dtype)
    models.rewrite(
        path,
        {n: (torch.randn(rows, HIDDEN, generator=generator) / 4).to(kind) for n in names},
    )
    configure(path, vocab_size=rows, **special_ids(path))
    return path


def save_tokenizer(
    path: Path, tokenizer: Iterable[str] | Tokenizer, added: tuple[str, ...] = ()
) -> int:
    """Save a fast tokenizer with a chat template; returns the number of its tokens."""
    if not isinstance(tokenizer, Tokenizer):
        vocabulary = {word: index for index, word in enumerate(tokenizer)}
        tokenizer = Tokenizer(kinds.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{token.strip('<>')}_token": token for token in SPECIAL},
    )
    fast.add_tokens([AddedToken(t, special=t.startswith("<|"), normalized=False) for t in added])
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    fast.save_pretrained(path)
    return len(fast)


def special_ids(path: Path) -> dict[str, int]:
    """The entries of config.json for the special tokens."""
    ids = tokens(path)
    return {f"{role}_token_id": ids[f"<{role}>"] for role in ("pad", "bos", "eos")}


def tokens(path: Path) -> dict[str, int]:
    """All tokens of a saved tokenizer, read the plain way."""
    document = json.loads((path / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {token: index for index, (token, _) in enumerate(vocabulary)}
    return vocabulary | {entry["content"]: entry["id"] for entry in document["added_tokens"]}


def configure(path: Path, **changes: Any) -> None:
    """Change keys of config.json and, for token ids, of generation_config.json."""
    for name in ("config.json", "generation_config.json"):
        file = path / name
        content = json.loads(file.read_text())
        known = (
            changes if name == "config.json" else {k: changes[k] for k in changes if k in content}
        )
        file.write_text(json.dumps(content | known))


def byte_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE trained on `texts`."""
    tokenizer = Tokenizer(kinds.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def unigram(scores: dict[str, float]) -> Tokenizer:
    """A unigram tokenizer over characters and the given pieces."""
    vocabulary = [(token, 0.0) for token in SPECIAL] + list(scores.items())
    tokenizer = Tokenizer(kinds.Unigram(vocabulary, unk_id=SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def wordpiece(pieces: Iterable[str]) -> Tokenizer:
    """A WordPiece tokenizer over the given pieces."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *pieces))}
    tokenizer = Tokenizer(kinds.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
