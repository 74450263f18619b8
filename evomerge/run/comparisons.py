"""Comparisons: has reference models answer a generation's items; results wait until they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from evomerge.candidate import Candidate, ItemSelection
from evomerge.errors import TooManyFailures
from evomerge.run.evaluations import Evaluations
from evomerge.run.judging import Judge
from evomerge.run.progress import Evaluated

REFERENCE = "reference "
"""The stage in which they do; it goes on with the number of the generation."""


@final
class Comparisons:
    """Between the evaluations and the core of one search (stateful: what waits for what).

    Asked beside the generation and for no item twice: cheaper than to score references on all items
    beforehand, and than to score them on whole generations.
    """

    def __init__(
        self, judge: Judge, evaluations: Evaluations, recall: Callable[[int], Candidate]
    ) -> None:
        """`recall` finds a reference model's candidate."""
        self._judge = judge
        self._evaluations = evaluations
        self._recall = recall
        self._seen: set[int] = set()
        self._unknown: dict[int, list[int]] = {}
        self._held: dict[int, list[Evaluated]] = {}

    def ask(self, generation: int, items: ItemSelection) -> None:
        """Have the references answer those of the generation's items that nobody asked for yet."""
        if generation in self._seen or not self._judge.references:
            return
        self._seen.add(generation)
        missing = self._judge.missing(items)
        if not missing.tasks:
            return
        self._unknown[generation] = list(dict.fromkeys(self._judge.references.values()))
        for number in self._unknown[generation]:
            model = self._recall(number)
            self._evaluations.submit(model, f"{REFERENCE}{generation}", missing)

    def ready(self, evaluated: Evaluated) -> Sequence[Evaluated]:
        """The results that can be judged now that this one is known, in the order they came.

        Raises:
            TooManyFailures: a reference could not be scored.
        """
        if not evaluated.stage.startswith(REFERENCE):
            generation = evaluated.candidate.generation
            if generation not in self._unknown:
                return (evaluated,)
            self._held.setdefault(generation, []).append(evaluated)
            return ()
        take_reference(evaluated, self._judge, self._evaluations)
        generation = int(evaluated.stage.removeprefix(REFERENCE))
        self._unknown[generation].remove(evaluated.candidate.id)
        if self._unknown[generation]:
            return ()
        del self._unknown[generation]
        return self._held.pop(generation, ())


def take_reference(evaluated: Evaluated, judge: Judge, evaluations: Evaluations) -> None:
    """Have the judge learn what a reference model did.

    Raises:
        TooManyFailures: it failed, so nobody can be compared with it.
    """
    number, stage = evaluated.candidate.id, evaluated.stage
    if evaluated.totals is not None:
        judge.learn(number, evaluations.results(number, stage))
        return
    evaluations.begin_again_at([(number, stage)])
    evaluations.save_clock()
    raise TooManyFailures(
        f"'{evaluated.candidate.origin}', which a constraint compares with, could not be scored: "
        f"{evaluated.failure}; repair the cause and run the same command again"
    )
