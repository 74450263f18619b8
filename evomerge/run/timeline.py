"""When evaluations end, if free workers always take the next one: pure arithmetic on seconds."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

from evomerge.run.core import Schedule


def makespan(durations: Sequence[float], workers: int) -> float:
    """When the last is done, if a free worker always takes the next."""
    free = [0.0] * workers
    for seconds in durations:
        heapreplace(free, free[0] + seconds)
    return max(free)


def generations(
    durations: Sequence[float],
    workers: int,
    population: int,
    schedule: Schedule,
    until: float | None,
) -> tuple[int, float]:
    """How many candidates are asked for before `until`, and when the last of them is done.

    In order, candidate k waits until max(0, (k - ahead) // population) generations are complete;
    by arrival, for a worker only.
    """
    free = [0.0] * workers
    told: list[float] = []
    newest = 0.0
    for k, seconds in enumerate(durations):
        known = max(0, (k - schedule.ahead) // population) if schedule.ordered else 0
        asked = told[known - 1] if known else 0.0 if schedule.ordered else free[0]
        if until is not None and asked > until:
            return k, newest
        done = max(free[0], asked) + seconds
        heapreplace(free, done)
        newest = max(newest, done)
        if (k + 1) % population == 0:
            told.append(newest)
    return len(durations), newest
