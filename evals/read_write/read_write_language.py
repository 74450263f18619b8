"""The language of the READ + WRITE items: questions `OP x y z =` in digits or in number words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

Numbers = tuple[int, int, int]

# A numeral system is the ten symbols for 0 to 9. The words are German so that no symbol of one
# system says anything about a symbol of the other.
DIGITS = tuple("0123456789")
WORDS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")

OPERATORS: Mapping[str, Callable[[Numbers], int]] = MappingProxyType(
    {
        "first": lambda numbers: numbers[0],
        "mid": lambda numbers: numbers[1],
        "last": lambda numbers: numbers[2],
        "max": max,
        "min": min,
    }
)


@dataclass(frozen=True)
class Question:
    """One question, independent of the numeral system it is asked or answered in."""

    operator: str
    numbers: Numbers

    def asked_in(self, numerals: tuple[str, ...]) -> str:
        """The prompt, for example `max drei sieben zwei =`."""
        return " ".join([self.operator, *(numerals[number] for number in self.numbers), "="])

    def answered_in(self, numerals: tuple[str, ...]) -> str:
        """The one symbol that answers it, for example `sieben`."""
        return numerals[OPERATORS[self.operator](self.numbers)]


def every_question() -> tuple[Question, ...]:
    """All 5000 questions: five operators times 10 x 10 x 10 numbers, in that order."""
    return tuple(
        Question(operator, (x, y, z))
        for operator in OPERATORS
        for x, y, z in product(range(10), repeat=3)
    )
