"""Workers that do without models; processes of the pools under test import this module."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from evomerge.candidate import OUT_OF_MEMORY, Assignment, Failed, ItemSelection, Scored
from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe, Source
from evomerge.score import ItemOutcome, TaskOutcomes


def assignment(candidate: int, behaviour: str = "score", *items: str) -> Assignment:
    """An assignment whose only task is what the fake worker shall do; items are its arguments."""
    recipe = Recipe("linear", models=(Source(f"model {candidate}"),))
    return Assignment(candidate, "search", recipe, ItemSelection(((behaviour, items or ("a",)),)))


def expected(given: Assignment) -> Scored:
    """The outcome that any fake worker gives."""
    ((task, items),) = given.items.tasks
    outcomes = tuple(ItemOutcome(item, _number(given.recipe.digest, item)) for item in items)
    return Scored((TaskOutcomes(task, outcomes),), build_seconds=0.25, score_seconds=0.5)


class FakeWorker:
    """Does what the name of the task says."""

    def evaluate(self, given: Assignment) -> Scored | Failed:
        ((behaviour, items),) = given.items.tasks
        action = behaviour.removesuffix(" once")
        if action != behaviour:
            marker = Path(items[0])
            if marker.exists():
                return expected(given)
            marker.touch()
        if action == "fail":
            return Failed("unusable merge", "merged tensor 'w' holds NaN")
        if action == "full":
            return Failed(OUT_OF_MEMORY, "no room")
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "break":
            raise RuntimeError("CUDA error: device-side assert triggered\nand more")
        if action == "hang":
            time.sleep(600)
        if action == "sleep":
            time.sleep(float(items[0]))
        if action == "print":
            print("printed by a worker", flush=True)
        if action == "allocate":
            try:
                bytearray(int(items[0]))
            except MemoryError:
                return Failed(OUT_OF_MEMORY, "no room")
        if action == "environment":
            Path(items[0]).write_text(repr([os.environ.get(name) for name in items[1:]]))
        return expected(given)


@dataclass(frozen=True)
class FakeFactory:
    """Makes fake workers, or fails in one of four ways; "only FILE" works once, then lacks it."""

    problem: str = ""

    def __call__(self) -> FakeWorker:
        if self.problem == "user error":
            raise PreflightFailed(["parent 'math' has 30 layers, expected 32", "and 1 more"])
        if self.problem == "other error":
            raise OSError("no space left in\nthe sky")
        if self.problem == "death":
            os._exit(7)
        if self.problem.startswith("only "):
            try:
                Path(self.problem.removeprefix("only ")).unlink()
            except FileNotFoundError as error:
                raise PreflightFailed("this machine has no parents") from error
        return FakeWorker()


def _number(digest: str, item: str) -> float:
    value = hashlib.sha256(f"{digest}/{item}".encode()).digest()
    return int.from_bytes(value[:7], "big") / 2**56
