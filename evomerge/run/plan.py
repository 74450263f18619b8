"""RunPlan: everything a run is a function of, resolved; built once, never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, Self

from evomerge.candidate import Genotype, ItemSelection
from evomerge.constraints import Constraint
from evomerge.recipe import Recipe
from evomerge.run.baselines import Baseline
from evomerge.run.core import Schedule
from evomerge.score import Objective
from evomerge.search.strategy import Strategy


@dataclass(frozen=True)
class Batches:
    """Which of the search items a generation is scored on.

    Attributes:
        items: of each task; None is all of them.
        fresh: others in each generation; else the same throughout.
    """

    items: int | None
    fresh: bool = True

    def per_task(self, search_items: ItemSelection) -> int:
        """Items of each task; a smaller one gives all it has."""
        most = max((len(ids) for _, ids in search_items.tasks), default=0)
        return most if self.items is None else min(self.items, most)


@dataclass(frozen=True)
class FinalPlan:
    """How the winner is chosen on the selection items.

    Attributes:
        share: of an item or time budget, at most.
        estimates: whether what the strategy holds for the optimum takes part.
    """

    share: float = 0.15
    estimates: bool = True


class Space(Protocol):
    """What a search needs to know of its space."""

    @property
    def start(self) -> Genotype:
        """Where the search begins without better knowledge."""
        ...

    def decode(self, genotype: Genotype) -> Recipe:
        """The recipe of a genotype; pure."""
        ...

    def given(self, results: Mapping[str, Recipe]) -> Self:
        """The space in which models named in `results` are the results of those recipes."""
        ...


@dataclass(frozen=True)
class Budget:
    """Limits of a run; None is unlimited. `seconds` is the wall time of baselines and search."""

    candidates: int | None
    items: int | None
    seconds: float | None

    def shared(self, shares: Sequence[float]) -> tuple[Allotment, ...]:
        """The budget divided among stages, whose shares need not sum to 1."""
        ends = [total / sum(shares) for total in accumulate(shares)]
        return tuple(
            Allotment(
                None if self.candidates is None else _part(self.candidates, begin, end),
                None if self.items is None else round(self.items * end),
                None if self.items is None else _part(self.items, begin, end),
                None if self.seconds is None else self.seconds * end,
                None if self.seconds is None else self.seconds * (end - begin),
            )
            for begin, end in zip([0.0, *ends], ends, strict=False)
        )


@dataclass(frozen=True)
class Allotment:
    """What one stage may spend; `until` counts from the beginning of the run."""

    candidates: int | None
    items_until: int | None
    items: int | None
    seconds_until: float | None
    seconds: float | None


def search_end(allotment: Allotment, final: FinalPlan | None) -> float | None:
    """Seconds from the beginning of the run after which a search proposes nothing more."""
    if allotment.seconds is None or allotment.seconds_until is None:
        return None
    return allotment.seconds_until - allotment.seconds * (0.0 if final is None else final.share)


def _part(total: int, begin: float, end: float) -> int:
    return round(total * end) - round(total * begin)


@dataclass(frozen=True)
class StagePlan:
    """One search: its space, what it is measured against, and how it proposes.

    Attributes:
        name: of the stage; empty in a run of one.
        space: what is searched.
        baselines: scored first, and the bar.
        algorithm: what candidates of the search are called.
        strategy: makes the strategy, given the genotype to start from and how many candidates to
            expect.
        starting_points: the genotypes nearest to baselines, best baseline first.
        population: candidates per generation.
        schedule: how far proposals may run ahead, and in which order results are told.
        batches: which items the candidates are scored on.
        final: how the winner is chosen; None takes the best score of the search at its word.
        share: of the budget, against the other stages.
    """

    name: str
    space: Space
    baselines: tuple[Baseline, ...]
    algorithm: str
    strategy: Callable[[Genotype, int], Strategy]
    starting_points: Callable[[Sequence[Baseline]], tuple[Genotype, ...]]
    population: int
    schedule: Schedule
    batches: Batches
    final: FinalPlan | None
    share: float

    def given(self, results: Mapping[str, Recipe]) -> StagePlan:
        """The plan in which models named in `results` are the results of those recipes."""
        baselines = tuple(
            replace(b, recipe=with_results(b.recipe, results)) for b in self.baselines
        )
        return replace(self, space=self.space.given(results), baselines=baselines)


def with_results(recipe: Recipe, results: Mapping[str, Recipe]) -> Recipe:
    """The recipe with those of the `results` that it names."""
    named = [name for name in recipe.referenced_models() if name in results]
    return replace(recipe, nested=tuple((name, results[name]) for name in sorted(named)))


@dataclass(frozen=True)
class RunPlan:
    """The inputs of a run."""

    objective: Objective
    constraints: tuple[Constraint, ...]
    search_items: ItemSelection
    selection_items: ItemSelection
    holdout_items: ItemSelection
    stages: tuple[StagePlan, ...]
    budget: Budget
    seed: int

    @property
    def allotments(self) -> tuple[Allotment, ...]:
        """What each stage may spend."""
        return self.budget.shared([stage.share for stage in self.stages])

    @property
    def searched_until(self) -> float | None:
        """Seconds from the beginning after which the last search proposes nothing more."""
        return search_end(self.allotments[-1], self.stages[-1].final)
