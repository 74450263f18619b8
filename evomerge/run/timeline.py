"""When evaluations end, if free workers always take the next one: pure arithmetic on seconds."""

from __future__ import annotations

from bisect import insort
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
    by arrival, until k - ahead candidates are done.
    """
    free = [0.0] * workers
    ends: list[float] = []
    generation: list[float] = []
    newest = 0.0
    for k, seconds in enumerate(durations):
        known = max(0, k - schedule.ahead)
        if schedule.ordered:
            known //= population
        done = generation if schedule.ordered else ends
        asked = done[known - 1] if known else 0.0
        if until is not None and asked > until:
            return k, newest
        end = max(free[0], asked) + seconds
        heapreplace(free, end)
        newest = max(newest, end)
        insort(ends, end)
        if (k + 1) % population == 0:
            generation.append(newest)
    return len(durations), newest
