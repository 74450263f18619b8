"""When a candidate may be asked and when a generation is told: pure, independent of time.

Candidate k is sampled after exactly max(0, (k - lookahead) // population) generations were told.
Results wait in a reorder buffer and are told generation by generation, in the order asked. So the
trajectory depends on the set of results only, not on workers, arrival order or crashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evomerge.candidate import Genotype
from evomerge.search.strategy import Strategy


@dataclass(frozen=True)
class Proposal:
    """The k-th genotype of a search; its generation is k // population."""

    index: int
    generation: int
    genotype: Genotype


@dataclass(frozen=True)
class Told:
    """A generation that the strategy has learnt from."""

    generation: int
    fitness: tuple[float | None, ...]


class Core:
    """The asynchronous, deterministic loop around one strategy (stateful, no I/O)."""

    def __init__(self, strategy: Strategy, *, lookahead: int, limit: int) -> None:
        """Propose at most `limit` genotypes, each up to `lookahead` ahead of its generation."""
        self._strategy = strategy
        self._lookahead = lookahead
        self._limit = limit
        self._asked: list[Genotype] = []
        self._fitness: dict[int, float | None] = {}
        self._told = 0
        self._handed_out = 0

    @property
    def unfinished(self) -> bool:
        """Whether a proposal still lacks its result."""
        return len(self._fitness) < len(self._asked)

    @property
    def asked(self) -> int:
        """How many genotypes were sampled so far."""
        return len(self._asked)

    def close(self, limit: int) -> None:
        """Propose no more than `limit` genotypes in all, or than were already sampled."""
        self._limit = max(limit, len(self._asked))

    def proposals(self) -> Iterator[Proposal]:
        """The genotypes that may be evaluated now and were not handed out before."""
        self._sample()
        while self._handed_out < len(self._asked):
            index = self._handed_out
            self._handed_out += 1
            yield Proposal(index, index // self._strategy.population, self._asked[index])

    def result(self, index: int, fitness: float | None) -> tuple[Told, ...]:
        """Take one result (None: the candidate failed); returns the generations it completes."""
        assert index not in self._fitness, "a result arrived twice"
        self._sample()
        self._fitness[index] = fitness
        population = self._strategy.population
        told: list[Told] = []
        while True:
            members = range(self._told * population, (self._told + 1) * population)
            if not all(member in self._fitness for member in members):
                return tuple(told)
            values = tuple(self._fitness[member] for member in members)
            self._strategy.tell([self._asked[member] for member in members], values)
            told.append(Told(self._told, values))
            self._told += 1
            # now, not when somebody asks: one late result may complete several generations
            self._sample()

    def _sample(self) -> None:
        population = self._strategy.population
        while len(self._asked) < self._limit:
            if max(0, (len(self._asked) - self._lookahead) // population) > self._told:
                return
            self._asked.append(self._strategy.ask())
