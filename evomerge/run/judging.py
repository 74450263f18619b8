"""Judge: what a strategy learns of a candidate, and what rankings go by, under constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from evomerge.candidate import ItemSelection, Scores
from evomerge.constraints import Constraint, violation
from evomerge.score import ItemOutcome, Objective, TaskOutcomes, TaskTotals, totals

VIOLATION_WEIGHT = 5.0
"""Units of fitness that a unit of violation costs in search and ranking: more than it can gain."""

Sums = tuple[TaskTotals, ...]


@dataclass(frozen=True)
class Judged:
    """One candidate on some items.

    Attributes:
        fitness: the weighted mean, as people see it.
        worth: the fitness less what violated constraints cost; rankings go by it.
        scores: what a strategy learns, one number per objective, less the same.
        point: the metric of every objective, less the same; empty when there is one.
    """

    fitness: float
    worth: float
    scores: Scores
    point: Scores


@final
class Judge:
    """Compares candidates with the reference models on their own items (stateful: it learns those).

    The same items matter: on one minibatch every model may do five points better than on the next,
    which would swamp a limit of two.
    """

    def __init__(
        self,
        objective: Objective,
        constraints: Sequence[Constraint],
        references: Mapping[str, int],
    ) -> None:
        """`references` has the candidate that each model of a relative constraint is."""
        self._objective = objective
        self._constraints = tuple(constraints)
        self._tasks = tuple(dict.fromkeys(c.task for c in constraints if c.of is not None))
        self.references = {c.of: references[c.of] for c in constraints if c.of is not None}
        self._known: dict[str, dict[str, dict[str, ItemOutcome]]] = {
            model: {task: {} for task in self._tasks} for model in self.references
        }
        self._asked: dict[str, set[str]] = {task: set() for task in self._tasks}
        self._last: tuple[ItemSelection, Mapping[str, Sums]] | None = None

    def concerned(self, items: ItemSelection) -> ItemSelection:
        """Those of the items that reference models have to be scored on."""
        return ItemSelection(tuple((t, ids) for t, ids in items.tasks if t in self._tasks))

    def claimed(self, items: ItemSelection) -> ItemSelection:
        """Those of them that nobody has asked for yet, which then counts as done.

        What was asked for, not what is known: that must not depend on which results are there.
        """
        left = []
        for task, ids in self.concerned(items).tasks:
            new = tuple(item for item in ids if item not in self._asked[task])
            self._asked[task].update(new)
            left += [(task, new)] if new else []
        return ItemSelection(tuple(left))

    def learn(self, candidate: int, results: Sequence[TaskOutcomes]) -> None:
        """Take in what a reference model did."""
        for model, number in self.references.items():
            for result in results if number == candidate else ():
                if result.task in self._tasks:
                    found = {outcome.item: outcome for outcome in result.outcomes}
                    self._known[model][result.task].update(found)
                    self._asked[result.task].update(found)

    def judged(self, sums: Sums | None, items: ItemSelection) -> Judged | None:
        """The candidate with these totals on these items; None when it failed."""
        if sums is None:
            return None
        fitness, cost = self._objective.fitness_of(sums), self._cost(sums, items)
        scores, point = self._objective.aims(sums), self._objective.point(sums)
        return Judged(
            fitness,
            fitness - cost,
            tuple(score - cost for score in scores),
            tuple(score - cost for score in point),
        )

    def _cost(self, sums: Sums, items: ItemSelection) -> float:
        """What violated limits cost on these items, which the references must know."""
        if not self._constraints:
            return 0.0
        found = violation(self._objective, self._constraints, sums, self._references_on(items))
        return VIOLATION_WEIGHT * found

    def _references_on(self, items: ItemSelection) -> Mapping[str, Sums]:
        """The totals of the reference models; candidates of a generation ask for the same."""
        if self._last is None or self._last[0] is not items:
            found = {
                model: totals(
                    tuple(
                        TaskOutcomes(task, tuple(outcomes[task][item] for item in ids))
                        for task, ids in self.concerned(items).tasks
                    )
                )
                for model, outcomes in self._known.items()
            }
            self._last = (items, found)
        return self._last[1]
