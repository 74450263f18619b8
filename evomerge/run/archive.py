"""Archive: what the current run knows about its candidates, in memory, rebuilt by replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import SEARCH, Candidate, Scores
from evomerge.front import front, spread
from evomerge.run.judging import Judged

TOP_BASELINES = 3
TOP_CANDIDATES = 2
TOP_TRADES = 4
"""The same where there are several objectives."""


class Archive:
    """Candidates with what they are worth by stage (stateful).

    A long search has many thousands of candidates, so only numbers are kept of those.
    """

    def __init__(self, recall: Callable[[int], Candidate]) -> None:
        """`recall` finds a candidate that was added."""
        self._recall = recall
        self._judged: dict[str, dict[int, Judged]] = {}
        self._generations: dict[int, int] = {}

    def add(self, candidate: Candidate, stage: str, judged: Judged | None) -> None:
        """Keep one result; failures (None) are known by their absence."""
        self._generations[candidate.id] = candidate.generation
        if judged is not None:
            self._judged.setdefault(stage, {})[candidate.id] = judged

    def fitness(self, stage: str, number: int) -> float | None:
        """The fitness of a candidate in a stage; None when it failed there, or never was."""
        judged = self._judged.get(stage, {}).get(number)
        return None if judged is None else judged.fitness

    def generation(self, number: int) -> int:
        """The generation of a candidate that was added."""
        return self._generations[number]

    def candidate(self, number: int) -> Candidate:
        """The candidate with this id."""
        return self._recall(number)

    def ranked(self, stage: str) -> list[Candidate]:
        """The candidates of a stage, best first; those of equal worth keep the order of ids."""
        judged = self._judged.get(stage, {})
        return [self._recall(c) for c in sorted(judged, key=lambda c: (-judged[c].worth, c))]

    def trades(self, stage: str) -> list[Candidate]:
        """The candidates of a stage that no other dominates; none with a single objective."""
        judged = {c: one for c, one in self._judged.get(stage, {}).items() if one.point}
        numbers = sorted(judged)
        places = front([judged[number].point for number in numbers])
        return [self._recall(numbers[place]) for place in places]

    def flat(self, stage: str) -> bool:
        """Whether two or more candidates of a stage all have the same fitness."""
        values = [judged.fitness for judged in self._judged.get(stage, {}).values()]
        return len(values) > 1 and max(values) - min(values) <= 1e-12

    def none_keeps_all(self, stage: str) -> bool:
        """Whether every candidate of a stage violates a constraint."""
        judged = self._judged.get(stage, {}).values()
        return bool(judged) and all(one.worth < one.fitness for one in judged)

    def finalists(self, baselines: frozenset[int]) -> list[Candidate]:
        """The best baselines, the best starting point, and the best candidates of the search.

        Generations are scored on different items, so a candidate is ranked by how far it lies
        above its generation's mean, plus a running average of those means over three generations.
        With several objectives that is done for each, and the best are a spread of the front.
        """
        early = self.ranked("baseline")
        fixed = [c for c in early if c.id in baselines][:TOP_BASELINES]
        starts = [c for c in early if c.id not in baselines][:1]
        judged = self._judged.get(SEARCH, {})
        several = any(one.point for one in judged.values())
        best = self._best_trades() if several else self._best()
        return [*fixed, *starts, *best]

    def _best(self) -> list[Candidate]:
        judged = self._judged.get(SEARCH, {})
        levels = self._levels({number: one.scores for number, one in judged.items()})

        def standing(number: int) -> float:
            found = levels.get(self._generations[number])
            return -np.inf if found is None else float(judged[number].scores[0] - found[0])

        best: dict[str, Candidate] = {}
        for number in sorted(judged, key=lambda c: (-standing(c), c)):
            if len(best) == TOP_CANDIDATES:
                break
            candidate = self._recall(number)
            best.setdefault(candidate.recipe.digest, candidate)  # it may be asked for again
        return list(best.values())

    def _best_trades(self) -> list[Candidate]:
        found = self._judged[SEARCH]
        points = {number: found[number].point for number in sorted(found)}
        levels = self._levels(points)
        known = [number for number in points if self._generations[number] in levels]
        standing = [
            tuple(np.asarray(points[number]) - levels[self._generations[number]])
            for number in known
        ]
        return [self._recall(known[place]) for place in spread(standing, TOP_TRADES)]

    def _levels(self, values: Mapping[int, Scores]) -> dict[int, NDArray[np.float64]]:
        """What to take off a generation's values: its mean, less that smoothed over neighbours.

        Without generations of less than half the usual size: the last one may have been cut off.
        """
        members: dict[int, list[Scores]] = {}
        for number, value in sorted(values.items()):
            members.setdefault(self._generations[number], []).append(value)
        usual = max((len(found) for found in members.values()), default=0)
        whole = [g for g in sorted(members) if 2 * len(members[g]) >= usual]
        means = [np.mean(members[g], axis=0) for g in whole]
        windows = [means[max(0, place - 1) : place + 2] for place in range(len(means))]
        smooth = [np.mean(window, axis=0) for window in windows]
        return {g: mean - level for g, mean, level in zip(whole, means, smooth, strict=True)}
