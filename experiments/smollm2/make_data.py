"""Which questions exist, who may train on them, and which are kept for judging.

Usage: python experiments/smollm2/make_data.py [--seed N] [--out FOLDER]

A question names an operator and three different numbers from 0 to 15. It has four forms: the
numbers stand there as digits or Spanish words, and so does the answer. Sets of three numbers are
dealt to the roles train, retention and target, so no order of a judged set was trained on.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

SEED = 20
WORDS = (
    *("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete"),
    *("ocho", "nueve", "diez", "once", "doce", "trece", "catorce", "quince"),
)
Triple = tuple[int, int, int]
OPERATORS: Mapping[str, Callable[[Triple], int]] = MappingProxyType(
    {
        "first": lambda triple: triple[0],
        "second": lambda triple: triple[1],
        "last": lambda triple: triple[2],
        "largest": max,
        "smallest": min,
    }
)
TARGET_SETS, RETENTION_SETS = 80, 24
"""Sets of three numbers kept out of training; each gives 6 orders x 5 operators = 30 questions."""
RETENTION_ITEMS = 300


@dataclass(frozen=True)
class Form:
    """How numbers are written in the question and in the answer."""

    name: str
    words_in: bool
    words_out: bool


READ = Form("read", words_in=True, words_out=False)
WRITE = Form("write", words_in=False, words_out=True)
TARGET = Form("target", words_in=True, words_out=True)
DIGITS = Form("digits", words_in=False, words_out=False)


@dataclass(frozen=True)
class Question:
    """An operator applied to three numbers in order."""

    operator: str
    triple: Triple

    def prompt(self, form: Form) -> str:
        """The text the model sees."""
        numbers = ", ".join(_written(number, words=form.words_in) for number in self.triple)
        return f"The {self.operator} of {numbers} is"

    def answer(self, form: Form) -> str:
        """The text the model should add after one space."""
        return _written(OPERATORS[self.operator](self.triple), words=form.words_out)


@dataclass(frozen=True)
class Roles:
    """All questions, each in exactly one role."""

    train: tuple[Question, ...]
    retention: tuple[Question, ...]
    target: tuple[Question, ...]


def _written(number: int, *, words: bool) -> str:
    return WORDS[number] if words else str(number)


def _questions(sets: Iterable[Triple]) -> tuple[Question, ...]:
    return tuple(
        Question(operator, order)
        for numbers in sets
        for order in itertools.permutations(numbers, 3)
        for operator in OPERATORS
    )


def deal(seed: int) -> Roles:
    """Deal the 560 sets of three different numbers to the roles; shuffled within each role."""
    rng = np.random.default_rng(seed)
    sets = list(itertools.combinations(range(len(WORDS)), 3))
    rng.shuffle(sets)
    sets = [(int(a), int(b), int(c)) for a, b, c in sets]
    border = TARGET_SETS + RETENTION_SETS
    target, retention, train = (
        list(_questions(part))
        for part in (sets[:TARGET_SETS], sets[TARGET_SETS:border], sets[border:])
    )
    for part in (target, retention, train):
        rng.shuffle(part)
    return Roles(tuple(train), tuple(retention), tuple(target))


def write_items(path: Path, questions: Iterable[Question], form: Form) -> int:
    """Write one JSON object per question with keys prompt and answer; return the bytes written."""
    rows = (
        json.dumps({"prompt": question.prompt(form), "answer": question.answer(form)})
        for question in questions
    )
    return path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Write the items of the three lm-eval tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tasks")
    arguments = parser.parse_args()
    roles = deal(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_items(arguments.out / "target.jsonl", roles.target, TARGET)
    for form in (READ, WRITE):
        kept = roles.retention[:RETENTION_ITEMS]
        write_items(arguments.out / f"{form.name}.jsonl", kept, form)


if __name__ == "__main__":
    main()
