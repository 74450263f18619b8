"""Writes the JSONL files of the tasks in this folder: `python evals/example/make_items.py`."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SEED = 0
SHOTS = 20  # items that only serve as solved examples in prompts
EVALUATED = 80
NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kim", "Lea")
JOBS = ("baker", "doctor", "farmer", "nurse", "painter", "pilot", "sailor", "teacher")
TOWNS = ("Bern", "Cork", "Lima", "Oslo", "Riga", "Turin")


def stories(rng: random.Random) -> list[dict[str, str]]:
    """All stories of two people, in random order: what they do, and whom the question is about."""
    found = []
    for (one, two), job in itertools.product(itertools.permutations(NAMES, 2), JOBS):
        other = rng.choice([j for j in JOBS if j != job])
        people = [f"{one} is a {job} in {rng.choice(TOWNS)}.", f"{two} is a {other}."]
        rng.shuffle(people)
        found.append({"passage": " ".join(people), "name": one, "job": job})
    rng.shuffle(found)
    return found


def with_choices(story: Mapping[str, str], rng: random.Random) -> dict[str, object]:
    """The story with four jobs to choose from; `answer` is the place of the right one."""
    choices = [story["job"], *rng.sample([job for job in JOBS if job != story["job"]], 3)]
    rng.shuffle(choices)
    row = {"passage": story["passage"], "name": story["name"], "choices": choices}
    return {**row, "answer": choices.index(story["job"])}


def last_word(story: Mapping[str, str]) -> dict[str, str]:
    """The story with a sentence that lacks its last word."""
    context = f"{story['passage']} Every day {story['name']} works as a"
    return {"context": context, "last": story["job"]}


def write(name: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (FOLDER / name).write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Write all files; the same bytes every time. No story is in two tasks."""
    rng = random.Random(SEED)
    series = iter(stories(rng))
    for part, count in (("train", SHOTS), ("validation", EVALUATED)):
        taken = [list(itertools.islice(series, count)) for _ in range(3)]
        write(f"choice_{part}.jsonl", (with_choices(story, rng) for story in taken[0]))
        write(f"last_word_{part}.jsonl", map(last_word, taken[1]))
        write(f"extract_{part}.jsonl", taken[2])


if __name__ == "__main__":
    main()
