"""The output's tokenizer.json: one model's tokenizer with tokens of others built into it.

How an ordinary token of another tokenizer is found in text:

- BPE in BPE: by the merges of its own tokenizer that end in new tokens and, where the output splits
  its text into other pieces, by one that joins two pieces. They come after all merges of the
  output's model, so its tokens are formed first: a text changes only where two neighbours of its
  tokens together spell a new token.
- Unigram in Unigram: with its own score, no lower than the lowest there.
- WordPiece and WordLevel: by its text.
- Between different kinds, and BPE tokens whose parts are missing: as an added token, found wherever
  its text stands.

A text that contains the text of no new token is encoded as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

from evomerge.weights.vocabulary import OutputTokens
from evomerge.weights.vocabulary_file import added_token

Document = dict[str, Any]
"""A parsed tokenizer.json."""
Pair = tuple[str, str]
_PAIR = 2


def union_document(tokens: OutputTokens, documents: Mapping[str, Document]) -> Document:
    """The tokenizer.json with all of `tokens`; every id is explicit.

    Args:
        tokens: of the output.
        documents: by model, of the tokenizer's own and of all that new ordinary tokens come from.
    """
    document: Document = json.loads(json.dumps(documents[tokens.model]))
    model = document["model"]
    foreign = dict(tokens.added)
    by_model: dict[str, list[str]] = {}
    for token, name in tokens.ordinary.items():
        by_model.setdefault(name, []).append(token)
    for name, new in by_model.items():
        lost = new if _kind(documents[name]["model"]) != _kind(model) else ()
        if not lost and _kind(model)[0] == "BPE":
            lost = _add_merges(model, documents[name]["model"], new, tokens)
        foreign |= {token: added_token(token, special=False) for token in lost}
    _set_vocabulary(model, tokens, {n: documents[n]["model"] for n in by_model})
    document["added_tokens"] = _added_entries(document, foreign, tokens)
    if _kind(model)[0] == "BPE":
        model["merges"] += [list(pair) for pair in _joins(document, tokens, foreign)]
    return document


def _kind(model: Mapping[str, Any]) -> tuple[str, ...]:
    """What must agree for two tokenizers' ordinary tokens to mean the same."""
    marks = ("continuing_subword_prefix", "end_of_word_suffix")
    return (_type(model), *(model.get(mark) or "" for mark in marks))


def _type(model: Mapping[str, Any]) -> str:
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    plain = "BPE" if "merges" in model else "WordLevel"  # old files leave the type out
    return str(model.get("type", plain))


def _pairs(model: Mapping[str, Any]) -> list[Pair]:
    """The merges; older files write a pair as one text."""
    merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()]
    return [(merge[0], merge[1]) for merge in merges if len(merge) == _PAIR]


def _joined(pair: Pair, model: Mapping[str, Any]) -> str:
    return pair[0] + pair[1].removeprefix(model.get("continuing_subword_prefix") or "")


def _add_merges(
    model: Document, other: Mapping[str, Any], new: Iterable[str], tokens: OutputTokens
) -> list[str]:
    """Append the merges of `other` that end in `new` tokens; returns those that lost them all."""
    pairs = dict.fromkeys(_pairs(model))
    wanted = set(new)
    own = [pair for pair in _pairs(other) if _joined(pair, other) in wanted]
    usable = [pair for pair in own if pair[0] in tokens.ids and pair[1] in tokens.ids]
    model["merges"] = [list(pair) for pair in pairs | dict.fromkeys(usable)]
    reached = {_joined(pair, other) for pair in usable}
    # Without any merge of its own a token is one character, or was never found in text either.
    return [t for t in dict.fromkeys(_joined(pair, other) for pair in own) if t not in reached]


def _set_vocabulary(
    model: Document, tokens: OutputTokens, others: Mapping[str, Mapping[str, Any]]
) -> None:
    """All tokens, added ones too: on loading, those outside would be numbered anew."""
    if _type(model) != "Unigram":
        model["vocab"] = dict(sorted(tokens.ids.items(), key=lambda pair: pair[1]))
        return
    scores = dict(model["vocab"])
    low = min(scores.values(), default=0.0)
    for name, other in others.items():
        if _type(other) == "Unigram":
            theirs = dict(other["vocab"])
            new = (token for token, origin in tokens.ordinary.items() if origin == name)
            scores |= {token: max(theirs[token], low) for token in new}
    known = len(model["vocab"])
    more = sorted((n, token) for token, n in tokens.ids.items() if n >= known)
    model["vocab"] += [[token, scores.get(token, low)] for _, token in more]


def _added_entries(
    document: Document, foreign: Mapping[str, Mapping[str, Any]], tokens: OutputTokens
) -> list[Document]:
    entries = [dict(entry) for entry in document["added_tokens"]]
    known = {entry["content"] for entry in entries}
    entries += [dict(entry) for token, entry in foreign.items() if token not in known]
    numbered = [entry | {"id": tokens.ids[entry["content"]]} for entry in entries]
    return sorted(numbered, key=lambda entry: int(entry["id"]))


def _joins(document: Document, tokens: OutputTokens, foreign: Iterable[str]) -> list[Pair]:
    """A merge for every ordinary token that the output splits in two; none forms another token."""
    split = Tokenizer.from_str(json.dumps(document)).model
    skipped = set(foreign)
    found: dict[Pair, None] = {}
    for token in tokens.ordinary:
        pieces = [] if token in skipped else [piece.value for piece in split.tokenize(token)]
        if len(pieces) != _PAIR:
            continue
        pair: Pair = (pieces[0], pieces[1])
        if _joined(pair, document["model"]) == token:
            found[pair] = None
    return list(found)
