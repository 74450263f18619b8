"""Optuna's samplers as strategies; a search's only door to optuna.

The samplers compare all trials, but each generation has items of its own. So they are shown what
the evidence says (`standing`), in a study that is made anew after every generation: estimates
change when the best are scored again. The study lives in memory and is nobody's record.

TPE: Watanabe 2023, arXiv:2304.11127, multivariate. GP: logEI, Ament et al. 2023, arXiv:2310.20708.
NSGA-II: Deb et al. 2002, IEEE Transactions on Evolutionary Computation 6(2).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge.candidate import Genotype, Scores
from evomerge.genes import Axis
from evomerge.search.generations import Generations
from evomerge.search.operators import ETA_CROSSOVER, ETA_MUTATION
from evomerge.search.variation import Variation
from evomerge.seeding import derive, generator


@dataclass(frozen=True)
class Method:
    """One of Optuna's samplers.

    Attributes:
        sampler: makes it from a seed and a population.
        shown: how many trials it sees at most; the time of a proposal grows with them.
    """

    sampler: Callable[[int, int], BaseSampler]
    shown: int


def _tpe(seed: int, _: int) -> BaseSampler:
    return TPESampler(n_startup_trials=1, multivariate=True, constant_liar=True, seed=seed)


def _gp(seed: int, _: int) -> BaseSampler:
    return GPSampler(n_startup_trials=1, deterministic_objective=False, seed=seed)


def _nsga2(seed: int, population: int) -> BaseSampler:
    return NSGAIISampler(
        population_size=population,
        crossover=SBXCrossover(eta=ETA_CROSSOVER),
        mutation=PolynomialMutation(eta=ETA_MUTATION),
        seed=seed,
    )


# the first generation lies around the start: none of them begins with random trials
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "tpe": Method(_tpe, 500),
        "gp": Method(_gp, 150),
        "nsga2": Method(_nsga2, 500),
    }
)


class OptunaSampler:
    """Search with one of Optuna's samplers, for one objective or several (stateful).

    The best are scored again at the end of every generation, as in a genetic search.
    """

    def __init__(
        self, name: str, start: Genotype, *, axes: Sequence[Axis], seed: int, population: int
    ) -> None:
        """Begin at `start`; `name` is one of `METHODS`."""
        self._name = name
        self._method = METHODS[name]
        self._axes = tuple(axes)
        self._seed = seed
        self._variation = Variation(axes, generator(seed, name, "first generation"))
        self._start = self._variation.settled(start)
        self._generations = Generations([self._start], population)
        self._names = [f"gene {place}" for place in range(len(self._axes))]
        self._distributions = dict(zip(self._names, map(_distribution, axes), strict=True))
        self._told: dict[Genotype, bool] = {}  # in the order of coming; whether it never failed
        self._waiting: list[Genotype] = []
        self._steps = 0
        self._study: optuna.Study | None = None

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._generations.population

    def ask(self) -> Genotype:
        """The start, then what is near, from the second generation on what the sampler says."""
        drawn: list[Genotype] = []

        def child() -> Genotype:
            # another draw of the sampler would cost as much again and might be the same
            drawn.append(self._variation.mutated(drawn[-1]) if drawn else self._sample())
            return drawn[-1]

        asked = self._generations.ask(child)
        if asked not in self._told and asked not in self._waiting:
            self._waiting.append(asked)
            if self._study is not None:
                self._study.add_trial(self._trial(asked, None))
        return asked

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Learn from one generation."""
        self._generations.tell(genotypes, scores)
        for one, score in zip(genotypes, scores, strict=True):
            self._told[one] = self._told.get(one, True) and score is not None
        self._waiting = [one for one in self._waiting if one not in self._told]
        self._steps += 1
        self._study = None

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The best that were scored again and again."""
        return self._generations.estimates

    def _sample(self) -> Genotype:
        """What the sampler proposes; near the start until there is something to learn from."""
        if not self._generations.standing.ranked():
            return self._variation.near(self._start)
        with _quiet():
            if self._study is None:
                self._study = self._known()
            trial = self._study.ask(self._distributions)
            found = self._genotype(trial.params)
            # what becomes of it is not known yet: it joins those that wait, if it is the one
            self._study.tell(trial, state=TrialState.FAIL)
        return found

    def _known(self) -> optuna.Study:
        """A study of what was told, with the estimates of today, and of what is waited for."""
        seed = derive(self._seed, self._name, self._steps) % 2**32
        sampler = self._method.sampler(seed, self.population)
        trials = self._shown()
        objectives = len(trials[0][1])
        study = optuna.create_study(directions=["maximize"] * objectives, sampler=sampler)
        if isinstance(sampler, BaseGASampler):
            _one_generation(study, sampler, [(self._trial(one, None), s) for one, s in trials])
        else:
            study.add_trials([self._trial(one, scores) for one, scores in trials])
        study.add_trials([self._trial(one, None) for one in self._waiting])
        return study

    def _shown(self) -> list[tuple[Genotype, Scores]]:
        """What the sampler may learn from, in the order of coming, as normal scores."""
        standing, half = self._generations.standing, self._method.shown // 2
        best, latest = standing.ranked()[:half], list(self._told)[-half:]
        chosen = {*best, *latest}
        shown = [one for one in self._told if one in chosen]
        known = {one: standing.scores(one) for one in shown if self._told[one]}
        lowest = (-math.inf,) * len(next(iter(known.values())))
        values = np.asarray([known.get(one, lowest) for one in shown])
        scores = np.column_stack([_normal_scores(column) for column in values.T])
        return [(one, tuple(map(float, row))) for one, row in zip(shown, scores, strict=True)]

    def _trial(self, one: Genotype, scores: Scores | None) -> FrozenTrial:
        """A trial that is running, or complete with `scores`."""
        pairs = zip(self._axes, one, strict=True)
        values = [u if axis.steps is None else axis.step(u) for axis, u in pairs]
        return create_trial(
            state=TrialState.RUNNING if scores is None else TrialState.COMPLETE,
            values=scores,
            params=dict(zip(self._names, values, strict=True)),
            distributions=self._distributions,
        )

    def _genotype(self, params: Mapping[str, Any]) -> Genotype:
        values = [params[name] for name in self._names]
        pairs = zip(self._axes, values, strict=True)
        return tuple(float(v) if axis.steps is None else axis.middle(v) for axis, v in pairs)


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.steps is None:
        return FloatDistribution(0.0, 1.0)
    if axis.ordered:
        return IntDistribution(0, axis.steps - 1)
    return CategoricalDistribution(range(axis.steps))


def _normal_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What standard normal numbers of the same ranks would be; equal values share one.

    So a Gaussian process sees no outliers, and a failure is the lowest rank without a made-up value
    (Salinas et al. 2020, arXiv:1909.13595).
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts / 2.0
    scores = [NormalDist().inv_cdf(float(rank) / len(values)) for rank in ranks]
    return np.asarray(scores)[place]


def _one_generation(
    study: optuna.Study, sampler: BaseGASampler, trials: Sequence[tuple[FrozenTrial, Scores]]
) -> None:
    """All of them as the first generation, out of which the parents of the second are chosen."""
    study.add_trials([trial for trial, _ in trials])
    for trial in study.get_trials(deepcopy=False):
        sampler.get_trial_generation(study, trial)
    for number, (_, scores) in enumerate(trials):
        study.tell(number, list(scores))


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what is experimental and logs every study; its logger stays as it was."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
