"""Comparisons: has reference models answer a generation's items; results wait until they did."""

from __future__ import annotations

import math
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
        self._pending: dict[int, list[int]] = {}
        self._held: list[Evaluated] = []

    def ask(self, generation: int, items: ItemSelection) -> None:
        """Have the references answer those of the generation's items that nobody asked for yet."""
        new = self._judge.claimed(items)
        if not new.tasks:
            return
        self._pending[generation] = list(dict.fromkeys(self._judge.references.values()))
        for number in self._pending[generation]:
            self._evaluations.submit(self._recall(number), f"{REFERENCE}{generation}", new)

    def ready(self, evaluated: Evaluated) -> Sequence[Evaluated]:
        """The results that can be judged now that this one is known, in the order they came.

        A generation waits for what was asked for it and for those before, which share its items.

        Raises:
            TooManyFailures: a reference could not be scored.
        """
        if evaluated.stage.startswith(REFERENCE):
            take_reference(evaluated, self._judge, self._evaluations)
            generation = int(evaluated.stage.removeprefix(REFERENCE))
            self._pending[generation].remove(evaluated.candidate.id)
            if not self._pending[generation]:
                del self._pending[generation]
        else:
            self._held.append(evaluated)
        first = min(self._pending, default=math.inf)
        ready = [one for one in self._held if one.candidate.generation < first]
        self._held = [one for one in self._held if one.candidate.generation >= first]
        return ready


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
