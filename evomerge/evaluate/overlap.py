"""Finds texts that repeat passages of others where neither a template nor chance explains it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW = 13
"""Words; Brown et al. 2020 (arXiv:2005.14165), appendix C, looked for as many."""
_FAMILY = 8
"""A passage of more items than this belongs to a template, not to copies."""
_ODDS = math.log(20.0)
"""One false alarm in twenty clean data sets, were five words all there is to a template."""
_MOST_WORDS = 4_000_000
_FEWEST_WORDS = 64
_ORDERS = (1, 2, 4)
"""Words of context from which the next one is predicted."""
_SEEN, _CONTEXT = 0.25, 20.0
"""Smoothing: unseen words have some chance, and contexts of few texts tell little."""
# Chinese and Japanese write no spaces: their characters are words. Operators are words, too.
_CJK = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s.,;:!?\"'`\u2018-\u201d]")

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """How many held-back texts repeat others, and the positions of one such pair."""

    count: int
    held: int
    other: int


def overlap(held: Sequence[str], others: Sequence[str]) -> Overlap | None:
    """The texts of `held` that have the words of one of `others`, or a passage of 13 in common.

    A shared passage counts when at most eight texts have it and it is too unlikely: with the
    chance of each word after those before, as often as they occur in texts other than these two,
    no two texts should share it. Texts from one template differ in so little that chance explains
    what they share. Case and punctuation do not matter. Of very long texts the beginning is read.

    Returns:
        None when there is none.
    """
    limit = max(_FEWEST_WORDS, _MOST_WORDS // max(1, len(held) + len(others)))
    words = [_WORD.findall(text.lower())[:limit] for text in (*held, *others)]
    found = {**_passages(words, len(held)), **_same_words(words, len(held))}
    if not found:
        return None
    first = min(found)
    return Overlap(len(found), first, found[first] - len(held))


def _same_words(words: Sequence[Sequence[str]], held: int) -> dict[int, int]:
    """Held texts and others with exactly the same words, by position."""
    known = {tuple(text): place for place, text in reversed(list(enumerate(words))[held:])}
    pairs = ((place, known.get(tuple(text))) for place, text in enumerate(words[:held]) if text)
    return {place: other for place, other in pairs if other is not None}


def _passages(words: Sequence[Sequence[str]], held: int) -> dict[int, int]:
    """Held texts and others with an unlikely passage in common, by position."""
    numbers: dict[str, int] = {}
    tokens = np.fromiter(
        (numbers.setdefault(word, len(numbers)) for text in words for word in text), np.int64
    )
    docs = np.repeat(np.arange(len(words)), [len(text) for text in words])
    if tokens.size < _WINDOW:
        return {}
    whole = docs[: -_WINDOW + 1] == docs[_WINDOW - 1 :]
    starts = np.flatnonzero(whole)
    hashes = _hashes(tokens, len(numbers))[starts]
    owners = docs[starts]
    surprise = _surprise(tokens, docs)
    sums = np.concatenate([[0.0], np.cumsum(surprise)])
    # what comes before a passage does not belong to it; leaving its first word out is the safe side
    total = sums[starts + _WINDOW] - sums[starts + 1]
    pairs = float((owners < held).sum()) * float((owners >= held).sum())
    if not pairs:
        return {}
    unlikely = total >= math.log(pairs) + _ODDS
    return _shared(hashes[unlikely], owners[unlikely], held)


def _shared(hashes: Hashes, owners: Ints, held: int) -> dict[int, int]:
    """For each held owner one other that has a hash in common with it, families left out."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    hashes, owners = hashes[new], owners[new]
    _, begins, counts = np.unique(hashes, return_index=True, return_counts=True)
    shared = (counts > 1) & (counts <= _FAMILY)
    found: dict[int, int] = {}
    for begin, count in zip(begins[shared], counts[shared], strict=True):
        members = owners[begin : begin + count]
        if members[0] < held <= members[-1]:
            for member in members[members < held]:
                found.setdefault(int(member), int(members[-1]))
    return found


def _hashes(tokens: Ints, vocabulary: int) -> Hashes:
    """A hash of the passage that begins at each word."""
    values = np.random.default_rng(0).integers(0, 2**64, vocabulary, np.uint64)[tokens]
    count = len(tokens) - _WINDOW + 1
    found = np.zeros(count, np.uint64)
    for place in range(_WINDOW):
        found = found * np.uint64(0x9E3779B97F4A7C15) + values[place : place + count]
    return found


def _surprise(tokens: Ints, docs: Ints) -> NDArray[np.float64]:
    """Minus the log of each word's chance after the words before it, two texts not counted.

    Of the contexts, those are believed that predict best: the long ones know a template's family,
    the short ones what can stand in a slot.
    """
    chance = np.zeros(len(tokens))
    context = np.zeros_like(tokens)
    for distance in range(1, max(_ORDERS) + 1):
        context = _numbered(context, _before(tokens, docs, distance))
        if distance in _ORDERS:
            seen = _texts_with(_numbered(context, tokens), docs) - 2
            times = _texts_with(context, docs) - 2
            estimate = (np.maximum(seen, 0) + _SEEN) / (np.maximum(times, 0) + _CONTEXT)
            chance = np.maximum(chance, estimate)
    return -np.log(np.minimum(chance, 1.0))


def _before(tokens: Ints, docs: Ints, distance: int) -> Ints:
    """The word so far before each word, or -1 before the beginning of its text."""
    found = np.full_like(tokens, -1)
    found[distance:] = np.where(docs[distance:] == docs[:-distance], tokens[:-distance], -1)
    return found


def _numbered(first: Ints, second: Ints) -> Ints:
    """One number for each pair that occurs."""
    pairs = first * (int(second.max()) + 2) + second + 1
    found: Ints = np.unique(pairs, return_inverse=True)[1]
    return found


def _texts_with(numbers: Ints, docs: Ints) -> Ints:
    """For each position, how many texts have its number."""
    size = int(docs[-1]) + 1
    ordered = np.sort(numbers * size + docs)  # np.unique is ten times slower on so many
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    counts: Ints = np.bincount(ordered[first] // size)
    return counts[numbers]
