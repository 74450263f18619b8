"""Archive: what the current run knows about its candidates, in memory, rebuilt by replay."""

from __future__ import annotations

from evomerge.candidate import Candidate, Outcome, Scored
from evomerge.run.core import Told
from evomerge.score import TaskOutcomes

TOP_BASELINES = 3
TOP_CANDIDATES = 5


class Archive:
    """Candidates with their outcomes by stage, and the generations in order (stateful)."""

    def __init__(self) -> None:
        self._candidates: dict[int, Candidate] = {}
        self._fitness: dict[str, dict[int, float]] = {}
        self._results: dict[str, dict[int, tuple[TaskOutcomes, ...]]] = {}
        self._told: list[Told] = []

    def add(
        self, candidate: Candidate, stage: str, outcome: Outcome, fitness: float | None
    ) -> None:
        """Keep one outcome; failures are known by their absence."""
        self._candidates[candidate.id] = candidate
        if isinstance(outcome, Scored) and fitness is not None:
            self._fitness.setdefault(stage, {})[candidate.id] = fitness
            self._results.setdefault(stage, {})[candidate.id] = outcome.results

    def generation(self, told: Told) -> None:
        """Keep a finished generation."""
        self._told.append(told)

    @property
    def last_generation(self) -> int:
        """The generation that was told last; -1 when there is none."""
        return self._told[-1].generation if self._told else -1

    def candidate(self, number: int) -> Candidate:
        """The candidate with this id."""
        return self._candidates[number]

    def results(self, stage: str) -> dict[int, tuple[TaskOutcomes, ...]]:
        """Per-item outcomes of everything scored in a stage."""
        return self._results.get(stage, {})

    def ranked(self, stage: str) -> list[Candidate]:
        """The candidates of a stage, best first; equal fitness keeps the order of ids."""
        fitness = self._fitness.get(stage, {})
        return [self._candidates[c] for c in sorted(fitness, key=lambda c: (-fitness[c], c))]

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
        fitness = self._fitness.get("search", {})

        def standing(number: int) -> float:
            mean, level = levels.get(self._candidates[number].generation, (0.0, -float("inf")))
            return fitness[number] - mean + level

        # a strategy may ask for a recipe again
        best: dict[str, Candidate] = {}
        for number in sorted(fitness, key=lambda c: (-standing(c), c)):
            best.setdefault(self._candidates[number].recipe.digest, self._candidates[number])
        return [*fixed, *starts, *list(best.values())[:TOP_CANDIDATES]]

    def _levels(self) -> dict[int, tuple[float, float]]:
        """Mean fitness of each generation, and the same smoothed over its neighbours."""
        means = [
            sum(known) / len(known) if known else 0.0
            for known in ([v for v in told.fitness if v is not None] for told in self._told)
        ]
        smooth = [
            sum(means[max(0, i - 1) : i + 2]) / len(means[max(0, i - 1) : i + 2])
            for i in range(len(means))
        ]
        generations = [told.generation for told in self._told]
        return dict(zip(generations, zip(means, smooth, strict=True), strict=True))
