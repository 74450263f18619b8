"""What one search of a recorded run tried: its space, its trials, the levels of its generations."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evomerge.candidate import SEARCH, Genotype
from evomerge.recipe import Recipe
from evomerge.report.gain import Level
from evomerge.report.recorded import RecordedRun
from evomerge.report.traits import traits_of
from evomerge.report.trials import Floats, Trials
from evomerge.run.ledger import Tally
from evomerge.space import SearchSpace
from evomerge.space_file import read_space
from evomerge.stack_file import is_stack_space


@dataclass(frozen=True)
class Searched:
    """One search: `name` is that of its stage; `space` is None where stacks were searched."""

    name: str
    space: SearchSpace | None
    run: RecordedRun
    tallies: tuple[Tally, ...]
    """Of its candidates, in the order of their numbers; all have a genotype."""
    population: int

    @property
    def scored(self) -> tuple[int, ...]:
        """The candidates that have a score, in order."""
        return tuple(t.candidate for t in self.tallies if t.totals is not None)

    def genotype(self, number: int) -> Genotype:
        """What a candidate of this search was made of."""
        found = self.run.candidates.genotype(number)
        assert found is not None, "a strategy proposes genotypes"
        return found


def searches_of(run: RecordedRun) -> tuple[Searched, ...]:
    """The searches of a run that have begun, in order."""
    ends = (*run.firsts[1:], sys.maxsize)
    counted = sorted((t for t in run.tallies if t.stage == SEARCH), key=lambda t: t.candidate)
    found = []
    for index, (search, first, end) in enumerate(
        zip(run.resolved["searches"], run.firsts, ends, strict=True)
    ):
        own = tuple(tally for tally in counted if first <= tally.candidate < end)
        if own:
            recipe = run.candidates[own[0].candidate].recipe
            space = _space(run.resolved, index, recipe)
            found.append(Searched(search["name"], space, run, own, int(search["population"])))
    return tuple(found)


def trials_of(search: Searched) -> Trials:
    """All scored candidates with the values of their genes; of stacks, with traits of the path."""
    numbers = search.scored
    fitness = [search.run.searched[number] for number in numbers]
    generations = [search.run.candidates.generation(number) for number in numbers]
    items = [float(max(t.items, 1)) for t in search.tallies if t.totals is not None]
    if search.space is None:
        recipes = [search.run.candidates[number].recipe for number in numbers]
        models = tuple(dict.fromkeys(model for r in recipes for model in r.referenced_models()))
        names, axes, values = traits_of(recipes, models)
    else:
        names = tuple(gene.name for gene in search.space.genes)
        axes = search.space.axes
        values = positions(search.space, [search.genotype(number) for number in numbers])
    return Trials(
        names, axes, values, np.asarray(fitness), np.asarray(generations), np.asarray(items)
    )


def positions(space: SearchSpace, genotypes: Iterable[Genotype]) -> Floats:
    """Genotypes as rows; numbers that mean the same value are the same."""
    table = np.asarray(list(genotypes), dtype=np.float64)
    for place, axis in enumerate(space.axes):
        if axis.steps is not None:
            step = np.minimum(np.clip(table[:, place], 0.0, 1.0) * axis.steps, axis.steps - 1)
            table[:, place] = (np.floor(step) + 0.5) / axis.steps
    return table


def levels_of(search: Searched) -> tuple[Level, ...]:
    """The mean fitness of every complete generation over the items of the search spent by then."""
    generations: dict[int, list[Tally]] = {}
    for tally in search.tallies:
        generation = search.run.candidates.generation(tally.candidate)
        generations.setdefault(generation, []).append(tally)
    spent, levels = 0.0, []
    for _, members in sorted(generations.items()):
        spent += sum(tally.items for tally in members)
        known = [t for t in members if t.totals is not None]
        if known and len(members) == search.population:
            mean = sum(search.run.searched[t.candidate] for t in known) / len(known)
            levels.append(Level(spent, mean, float(sum(t.items for t in known))))
    return tuple(levels)


def _space(resolved: Any, index: int, recipe: Recipe) -> SearchSpace | None:
    stages = resolved.get("stages")
    mapping = resolved["space"] if stages is None else stages[index]["space"]
    if is_stack_space(mapping):
        return None
    ends = [s.layer_range[1] for part in recipe.slices for s in part.sources if s.layer_range]
    return read_space(mapping, "space", max(ends) if ends else None)
