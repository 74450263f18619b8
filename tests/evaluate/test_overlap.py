"""Near copies are found in natural text, and templates raise no alarm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evomerge.evaluate.overlap import Overlap, overlap
from evomerge.seeding import generator

NAMES = ("Tom", "Ann", "Bob", "Eve", "Jim", "Kim", "Lea", "Max", "Ned", "Pam")
THINGS = ("apples", "pens", "books", "cards", "coins", "eggs", "figs", "hats", "jars", "keys")


def prose(rng: np.random.Generator, words: int = 40) -> str:
    """Words as rare and as frequent as in a text (Zipf)."""
    ranks = np.minimum(rng.zipf(1.3, words), 20_000)
    return " ".join(f"w{rank}" for rank in ranks)


def template(rng: np.random.Generator) -> str:
    name, other = NAMES[rng.integers(10)], NAMES[rng.integers(10)]
    return (
        f"{name} has {rng.integers(2, 100)} {THINGS[rng.integers(10)]} and gives "
        f"{rng.integers(2, 10)} of them to {other}. After that {NAMES[rng.integers(10)]} buys "
        f"{rng.integers(2, 100)} more in the shop. How many are there in the end? Answer with one "
        "number only, without any explanation."
    )


def short_template(rng: np.random.Generator) -> str:
    words = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "null"]
    return "max " + " ".join(words[i] for i in rng.integers(0, 10, 4)) + " ="


def story(rng: np.random.Generator) -> str:
    """One of fifty stories with other numbers in it: a family of templates."""
    words = prose(generator(int(rng.integers(50)), "story")).split()
    for place in (4, 15, 29, 37):
        words[place] = str(rng.integers(2, 300))
    return " ".join(words)


@pytest.mark.parametrize("make", [prose, template, short_template, story])
def test_independent_items_raise_no_alarm(make: Callable[[np.random.Generator], str]) -> None:
    rng = generator(3, make.__name__)
    texts = list(dict.fromkeys(make(rng) for _ in range(1500)))
    assert overlap(texts[:300], texts[300:]) is None


def one_word_changed(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    words[int(rng.integers(len(words)))] = "banana"
    return " ".join(words)


def half_of_it(text: str, rng: np.random.Generator) -> str:
    del rng
    return f"So we ask: {' '.join(text.split()[:20])}, and what now?"


def shouted(text: str, rng: np.random.Generator) -> str:
    del rng
    return text.upper().replace(" ", ", ") + "!"


@pytest.mark.parametrize("change", [one_word_changed, half_of_it, shouted])
@pytest.mark.parametrize("copies", [1, 2])
def test_near_copies_are_found(
    change: Callable[[str, np.random.Generator], str], copies: int
) -> None:
    rng = generator(5, change.__name__)
    texts = [prose(rng) for _ in range(1000)]
    near = [change(text, rng) for text in texts[:40] for _ in range(copies)]
    found = overlap([prose(rng) for _ in range(60)] + near, texts)
    assert found is not None
    assert 0.9 * len(near) <= found.count <= len(near)
    assert found.other == (found.held - 60) // copies


def test_short_items_count_when_all_their_words_agree() -> None:
    others = ["3 + 4 =", "What is the capital of Peru?", "富士山の高さは?"]
    assert overlap(["3 - 4 =", "What is the capital of Chad?", ""], [*others, ""]) is None
    assert overlap(["x", "what is the capital of peru"], others) == Overlap(1, 1, 1)
    assert overlap(["富士山の高さは"], others) == Overlap(1, 0, 2)


def test_a_text_without_spaces_has_words() -> None:
    rng = generator(1, "characters")
    texts = ["".join(chr(0x4E00 + c) for c in rng.integers(0, 3000, 60)) for _ in range(400)]
    copy = texts[7][:40] + "".join(reversed(texts[8]))
    assert overlap([copy], texts) == Overlap(1, 0, 7)
    assert overlap(texts[:100], texts[100:]) is None


@pytest.mark.parametrize(("held", "others"), [([], ["a b"]), (["a b"], []), ([], [])])
def test_nothing_to_compare(held: list[str], others: list[str]) -> None:
    assert overlap(held, others) is None
