"""Archive: what the current run knows about its candidates, in memory, rebuilt by replay."""

from __future__ import annotations

from collections.abc import Callable

from evomerge.candidate import SEARCH, Candidate

TOP_BASELINES = 3
TOP_CANDIDATES = 2


class Archive:
    """Candidates with their fitness by stage (stateful).

    A long search has many thousands of candidates, so only numbers are kept of those.
    """

    def __init__(self, recall: Callable[[int], Candidate]) -> None:
        """`recall` finds a candidate that was added."""
        self._recall = recall
        self._fitness: dict[str, dict[int, float]] = {}
        self._generations: dict[int, int] = {}

    def add(self, candidate: Candidate, stage: str, fitness: float | None) -> None:
        """Keep one result; failures (None) are known by their absence."""
        self._generations[candidate.id] = candidate.generation
        if fitness is not None:
            self._fitness.setdefault(stage, {})[candidate.id] = fitness

    def fitness(self, stage: str, number: int) -> float | None:
        """The fitness of a candidate in a stage; None when it failed there, or never was."""
        return self._fitness.get(stage, {}).get(number)

    def generation(self, number: int) -> int:
        """The generation of a candidate that was added."""
        return self._generations[number]

    def candidate(self, number: int) -> Candidate:
        """The candidate with this id."""
        return self._recall(number)

    def ranked(self, stage: str) -> list[Candidate]:
        """The candidates of a stage, best first; equal fitness keeps the order of ids."""
        fitness = self._fitness.get(stage, {})
        return [self._recall(c) for c in sorted(fitness, key=lambda c: (-fitness[c], c))]

    def flat(self, stage: str) -> bool:
        """Whether two or more candidates of a stage all have the same fitness."""
        values = list(self._fitness.get(stage, {}).values())
        return len(values) > 1 and max(values) - min(values) <= 1e-12

    def finalists(self, baselines: frozenset[int]) -> list[Candidate]:
        """The best baselines, the best starting point, and the best candidates of the search.

        Generations are scored on different items, so a candidate is ranked by how far it lies
        above its generation's mean, plus a running average of those means over three generations.
        """
        early = self.ranked("baseline")
        fixed = [c for c in early if c.id in baselines][:TOP_BASELINES]
        starts = [c for c in early if c.id not in baselines][:1]
        levels = self._levels()
        fitness = self._fitness.get(SEARCH, {})

        def standing(number: int) -> float:
            mean, level = levels.get(self._generations[number], (0.0, -float("inf")))
            return fitness[number] - mean + level

        best: dict[str, Candidate] = {}
        for number in sorted(fitness, key=lambda c: (-standing(c), c)):
            if len(best) == TOP_CANDIDATES:
                break
            candidate = self._recall(number)
            best.setdefault(candidate.recipe.digest, candidate)  # it may be asked for again
        return [*fixed, *starts, *best.values()]

    def _levels(self) -> dict[int, tuple[float, float]]:
        """Mean fitness of each generation, and the same smoothed over its neighbours.

        Without generations of less than half the usual size: the last one may have been cut off.
        """
        members: dict[int, list[float]] = {}
        for number, value in sorted(self._fitness.get(SEARCH, {}).items()):
            members.setdefault(self._generations[number], []).append(value)
        usual = max((len(values) for values in members.values()), default=0)
        whole = [g for g in sorted(members) if 2 * len(members[g]) >= usual]
        means = [sum(members[g]) / len(members[g]) for g in whole]
        windows = [means[max(0, place - 1) : place + 2] for place in range(len(means))]
        smooth = [sum(window) / len(window) for window in windows]
        return dict(zip(whole, zip(means, smooth, strict=True), strict=True))
