"""Writes the JSONL files of the three tasks in this folder, the same bytes every time."""

from __future__ import annotations

import json
import random
from pathlib import Path

from read_write_language import DIGITS, WORDS, Question, every_question

FOLDER = Path(__file__).resolve().parent
SEED = 0
SAMPLE = 300  # the two tasks that only show what each parent can do need no more for +-5 points


def write_items(
    path: Path, questions: list[Question], asked: tuple[str, ...], answered: tuple[str, ...]
) -> None:
    """Writes one JSON object per line: the prompt and the symbol that must follow it."""
    rows = (
        {"question": question.asked_in(asked), "answer": question.answered_in(answered)}
        for question in questions
    )
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Writes all three files."""
    questions = list(every_question())
    # Shuffled, so that the first n items of the file (lm-eval's `limit`) are a fair sample.
    random.Random(SEED).shuffle(questions)
    write_items(FOLDER / "read_write.jsonl", questions, WORDS, WORDS)
    write_items(FOLDER / "read_digits.jsonl", questions[:SAMPLE], WORDS, DIGITS)
    write_items(FOLDER / "write_words.jsonl", questions[:SAMPLE], DIGITS, WORDS)


if __name__ == "__main__":
    main()
