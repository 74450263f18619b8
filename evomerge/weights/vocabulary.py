"""How the vocabularies of a recipe's models become one: token ids, and where every row comes from.

Tokens are the same when their texts are the same, added tokens included. The output keeps the ids
of one model's tokenizer; new tokens follow in a fixed order. numpy only: nothing is read but
tokenizer files and tensor shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PreflightFailed
from evomerge.tokenizer_policy import UNION, ModelRow, TokenizerPolicy, TokenRule
from evomerge.weights.vocabulary_file import Tokens, Vocabulary, added_token

if TYPE_CHECKING:
    from torch import Tensor

RowNumbers = NDArray[np.int64]
"""One row number of some model for every row of the output; -1 for none."""
NOWHERE = -1


class TensorCache(Protocol):
    """Tensors that depend on the parents alone and are computed once."""

    def tensors(
        self, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """What `compute` returned when `key` was first asked for: borrowed, to be read only."""
        ...


@dataclass(frozen=True, eq=False)
class Words:
    """The tokens of one model and the number of rows of its embedding."""

    vocabulary: Vocabulary
    rows: int

    def row(self, token: str) -> int:
        """The row of a token, NOWHERE if it has none."""
        number = self.vocabulary.ids.get(token, NOWHERE)
        return number if number < self.rows else NOWHERE


@dataclass(frozen=True, eq=False)
class OutputTokens:
    """The output's tokenizer: that of `model`, whose tokens keep their ids, and new tokens.

    Attributes:
        model: whose tokenizer it is.
        ids: all tokens.
        ordinary: new tokens and the models that they come from, in the order of their ids.
        added: the entries of new tokens that are found in text before the tokenizer's model.
    """

    model: str
    ids: Tokens
    ordinary: Mapping[str, str]
    added: Mapping[str, Mapping[str, Any]]

    @property
    def is_own(self) -> bool:
        """Whether the model's tokenizer serves as it is."""
        return not self.ordinary and not self.added


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where the rows of every model's aligned embedding (head, head bias) come from.

    A row is the model's own (`own`), else the mean of the rows that `fallback` names in one or
    several models, else zeros; rows that are `blank` are the mean of the model's other rows.

    Attributes:
        tokens: the output's tokenizer.
        rows: how many rows the output has.
        own: by model.
        fallback: by model; the same for all models that lack a row.
        blank: (rows,) truth values.
    """

    tokens: OutputTokens
    rows: int
    own: Mapping[str, RowNumbers]
    fallback: Mapping[str, RowNumbers]
    blank: NDArray[np.bool_]

    @cached_property
    def digest(self) -> str:
        """A hash of all rows' origins, whatever the models' names are; 32 hex digits."""
        digest = hashlib.sha256(self.blank.tobytes())
        for rows in (*self.own.values(), *self.fallback.values()):
            digest.update(rows.tobytes())
        return digest.hexdigest()[:32]

    def keeps(self, model: str, rows: int) -> bool:
        """Whether a matrix of `rows` rows of `model` serves as it is."""
        own = self.own[model]
        return self.rows == rows and bool((own == np.arange(rows)).all())


def align(policy: TokenizerPolicy, words: Mapping[str, Words], base: str | None) -> Alignment:
    """The output's tokens and the origin of every row, by mergekit's rules.

    Args:
        policy: of a valid recipe.
        words: the tokens of every model of the recipe, in order.
        base: the recipe's base_model.

    Raises:
        PreflightFailed: a rule takes a row that its model lacks; one line per rule.
    """
    model = policy.model or next(iter(words))
    tokens = _output_tokens(policy, words, model)
    rows = _row_count(policy, words, tokens)
    has = {name: _rows_of(entry, tokens, rows, words[model].rows) for name, entry in words.items()}
    own = {name: found.copy() for name, found in has.items()}
    nobody = np.all([found == NOWHERE for found in has.values()], axis=0)
    fallback = _general_fallback(has, base)
    problems: list[str] = []
    for rule in policy.tokens:
        row = tokens.ids[rule.token]
        for found in own.values() if rule.force else ():
            found[row] = NOWHERE
        nobody[row] = False
        if rule.source is not None:
            problems += _apply(rule, row, words, fallback)
    if problems:
        raise PreflightFailed(problems)
    return Alignment(tokens, rows, MappingProxyType(own), MappingProxyType(fallback), nobody)


def _output_tokens(policy: TokenizerPolicy, words: Mapping[str, Words], model: str) -> OutputTokens:
    """The tokens of `model`, then ordinary ones of others, then added ones, then those of rules."""
    ids = dict(words[model].vocabulary.ids)
    following = max(ids.values()) + 1
    ordinary: dict[str, str] = {}
    added: dict[str, Mapping[str, Any]] = {}
    if policy.source == UNION:
        for name, entry in words.items():
            # A token without a row has nothing to give: the model never learnt it.
            new = (t for t in entry.vocabulary.ordinary if t not in ids and entry.row(t) != NOWHERE)
            ordinary |= {token: name for token in new if token not in ordinary}
        for entry in words.values():
            entries = entry.vocabulary.added
            new = (t for t in entries if t not in ids and entry.row(t) != NOWHERE)
            added |= {token: entries[token] for token in new if token not in added}
    known = ids.keys() | ordinary.keys() | added.keys()
    named = (rule.token for rule in policy.tokens if rule.token not in known)
    added |= {token: added_token(token, special=False) for token in named}
    for number, token in enumerate(dict.fromkeys((*ordinary, *added)), start=following):
        ids[token] = number
    # What any model finds in text as a whole is found so in the output.
    ordinary = {token: name for token, name in ordinary.items() if token not in added}
    return OutputTokens(model, MappingProxyType(ids), ordinary, added)


def _row_count(policy: TokenizerPolicy, words: Mapping[str, Words], tokens: OutputTokens) -> int:
    """At least the rows of the tokenizer's model, whose padding stays, and one for every token.

    Except tokens that no model has a row for: they have none in the tokenizer's model either.
    """
    known = words[tokens.model].rows
    named = {rule.token for rule in policy.tokens}
    beyond = {token: number for token, number in tokens.ids.items() if number >= known}
    found = [
        number
        for token, number in beyond.items()
        if token in named or any(entry.row(token) != NOWHERE for entry in words.values())
    ]
    rows = max((known, *(number + 1 for number in found)))
    multiple = policy.pad_to_multiple_of or 1
    return -(-rows // multiple) * multiple


def _rows_of(entry: Words, tokens: OutputTokens, rows: int, padded: int) -> RowNumbers:
    """The model's row of every output row: of the same token or, between tokens, of padding.

    Padding below `padded`, the size of the tokenizer's model, is shared like a token.
    """
    ids = entry.vocabulary.ids
    found = np.full(rows, NOWHERE, dtype=np.int64)
    shared = min(padded, entry.rows)
    found[:shared] = np.arange(shared)
    mine = np.fromiter(ids.values(), np.int64, len(ids))
    found[mine[mine < shared]] = NOWHERE
    for token, row in tokens.ids.items():
        if row < rows:
            found[row] = entry.row(token)
    return found


def _general_fallback(has: Mapping[str, RowNumbers], base: str | None) -> dict[str, RowNumbers]:
    """The only model that has the row, else the base if it has it, else all that have it."""
    fallback = {name: found.copy() for name, found in has.items()}
    if base is not None:
        for name in has.keys() - {base}:
            fallback[name][has[base] != NOWHERE] = NOWHERE
    return fallback


def _apply(
    rule: TokenRule, row: int, words: Mapping[str, Words], fallback: Mapping[str, RowNumbers]
) -> list[str]:
    """Take the row's fallback from where the rule says; problems when there is no such row."""
    for found in fallback.values():
        found[row] = NOWHERE
    source = rule.source
    if not isinstance(source, ModelRow):
        return []
    entry, where = words[source.model], f"tokenizer.tokens.{rule.token}"
    number = source.token_id
    if number is None:
        token = source.token or rule.token
        number = entry.row(token)
        if number == NOWHERE:
            return [f"{where}: '{source.model}' has no row for '{token}': name another source"]
    if number >= entry.rows:
        return [
            f"{where}: token_id {number} of '{source.model}': expected at most {entry.rows - 1}, "
            "its last row: correct it"
        ]
    fallback[source.model][row] = number
    return []
