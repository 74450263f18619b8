"""Insight: what a run's recorded outcomes say beyond its result, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evomerge.recipe import Scalar
from evomerge.report.formats import short_names
from evomerge.report.gain import Gain, gain
from evomerge.report.importance import GeneEffect, Importance, importance
from evomerge.report.recorded import RecordedRun, read_run
from evomerge.report.searched import Searched, levels_of, positions, searches_of, trials_of
from evomerge.report.won_layers import Contest, WonLayers, won_layers
from evomerge.score import AGGREGATIONS, COST_TASK, Objective
from evomerge.space import SearchSpace

MOST_SHOWN = 12
"""Genes that a figure shows."""
_NAME = 26
_LATE = 0.25
"""Share of the candidates that show where a search has gone."""
_MOST_LATE = 60
_CLEARLY = 1.644854
"""Standard errors that one end of a curve must be above the other to say which is better."""


@dataclass(frozen=True)
class GeneLine:
    """One gene as a reader sees it: what it is called, what it did, where it is best.

    `advice` is empty where that cannot be said; `steps`: whether the gene has steps only; `range`
    are the ends of what it could be.
    """

    name: str
    effect: GeneEffect
    advice: str
    steps: bool
    range: tuple[float, float]


@dataclass(frozen=True)
class SearchInsight:
    """One search: `name` is that of its stage; `levels` are (items spent, mean) per generation.

    `genes` are the most important first; none when the trials cannot tell. `several`: whether it
    was for several objectives at once; then there is no curve, and the genes' score is the weighted
    mean.
    """

    name: str
    stacks: bool
    several: bool
    importance: Importance
    genes: tuple[GeneLine, ...]
    levels: tuple[tuple[float, float], ...]
    gain: Gain | None


@dataclass(frozen=True)
class Insight:
    """What the record of a run tells; `won` is None unless parents share the winner's depth."""

    searches: tuple[SearchInsight, ...]
    won: WonLayers | None


NOTHING = Insight((), None)


def explain(run_dir: Path) -> Insight:
    """The insight into the run in `run_dir`, at any moment of it; a second or two at most.

    Raises:
        InvalidInput: not a run directory, or damaged.
    """
    run = read_run(run_dir, driven=False)
    searches = searches_of(run)
    found = tuple(_searched(search, run.objective) for search in searches)
    won = _won(run, searches[-1], found[-1].importance) if searches else None
    return Insight(found, won)


def _searched(search: Searched, objective: Objective) -> SearchInsight:
    trials = trials_of(search)
    learnt = importance(trials)
    levels = levels_of(search)
    names = trials.names if search.space is None else gene_names(search.space)
    return SearchInsight(
        search.name,
        search.space is None,
        objective.pareto,
        learnt,
        tuple(
            GeneLine(
                names[effect.gene],
                effect,
                advice(effect, search.space),
                trials.axes[effect.gene].steps is not None,
                _range(effect, search.space),
            )
            for effect in learnt.effects
        ),
        tuple((level.spent, level.mean) for level in levels),
        None if objective.pareto else gain(levels, highest(objective)),
    )


def _range(effect: GeneEffect, space: SearchSpace | None) -> tuple[float, float]:
    """Positions go from 0 to 1; traits of stacks are shown as far as they were tried."""
    if space is not None or not effect.grid:
        return 0.0, 1.0
    return effect.grid[0], effect.grid[-1]


def gene_names(space: SearchSpace) -> tuple[str, ...]:
    """The names of the genes with models called by their last names."""
    models = [place.model for place in space.places if place.model is not None]
    short = short_names(models, _NAME)
    return tuple(
        gene.name if place.model is None else gene.name.replace(place.model, short[place.model], 1)
        for gene, place in zip(space.genes, space.places, strict=True)
    )


def advice(effect: GeneEffect, space: SearchSpace | None) -> str:
    """Where a gene is best, in few words; empty when its effect is not clear enough to say."""
    if not effect.clear or len(effect.grid) < 2:
        return ""
    curve, error = np.asarray(effect.curve), np.asarray(effect.error)
    best, worst = int(curve.argmax()), int(curve.argmin())
    # the two errors may be those of one comparison: they add up
    if curve[best] - curve[worst] < _CLEARLY * (error[best] + error[worst]):
        return ""
    place = effect.grid[best]
    value = _written(place if space is None else space.genes[effect.gene].decode(place))
    if space is not None and not space.axes[effect.gene].ordered:
        return f"best: {value}"
    margin = max(1, len(curve) // 8)
    if not margin <= best < len(curve) - margin:
        return "less is better" if best < margin else "more is better"
    low, high = (
        bool(curve[best] - curve[end] >= _CLEARLY * (error[best] + error[end])) for end in (0, -1)
    )
    if low and high:
        return f"best near {value}"
    return "not too low" if low else "not too high" if high else ""


def _written(value: Scalar) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value).lower()


def highest(objective: Objective) -> float | None:
    """The highest fitness there can be; None when a metric has no known bound."""
    ends = []
    for goal in objective.goals:
        # lm-eval's accuracies and matches are shares; other means have bounds of their own
        share = goal.aggregation == "mean" and goal.metric.startswith(("acc", "exact_match"))
        if goal.task == COST_TASK:
            ends.append(0.0)
        elif share and AGGREGATIONS[goal.aggregation].ratio_higher_is_better is None:
            ends.append(objective.share(goal.task) if goal.sign > 0 else 0.0)
        else:
            return None
    return sum(ends)


def _won(run: RecordedRun, search: Searched, learnt: Importance) -> WonLayers | None:
    """The layers of the last search's winner."""
    if search.space is None or run.decision is None or not run.finished:
        return None
    winner = int(run.decision["winner"])
    genotype = run.candidates.genotype(winner)
    if winner < run.first or genotype is None:
        return None
    numbers = search.scored
    late = numbers[-max(1, min(round(_LATE * len(numbers)), _MOST_LATE)) :]
    contest = Contest(
        search.space,
        genotype,
        positions(search.space, [search.genotype(number) for number in numbers]),
        tuple(run.candidates[number].recipe for number in late),
        learnt.surrogate,
    )
    return won_layers(run.candidates[winner].recipe, contest)
