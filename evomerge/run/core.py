"""When a candidate may be asked and when a generation is told: pure, independent of time.

Two schedules. Ordered: candidate k is sampled after exactly max(0, (k - ahead) // population)
generations were told, and results wait in a reorder buffer, so the trajectory depends on the set of
results only, not on workers, arrival or crashes. By arrival: candidate k is sampled once k - ahead
results have been counted, and every `population` results, in the order counted, are told. Nobody
waits for the slowest; the trajectory depends on the recorded order as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from evomerge.candidate import Genotype, Scores
from evomerge.run.levels import Levels
from evomerge.search.strategy import Strategy

ORDERED = "ordered"
ARRIVAL = "arrival"


@dataclass(frozen=True)
class Schedule:
    """How proposals and results interleave.

    Attributes:
        ordered: whether results are told in the order asked, else in the order counted.
        ahead: how many candidates beyond those that the strategy has to know may be asked.
    """

    ordered: bool
    ahead: int

    @property
    def name(self) -> str:
        """What a space file calls it."""
        return ORDERED if self.ordered else ARRIVAL


@dataclass(frozen=True)
class Proposal:
    """The k-th genotype of a search; those of a generation, k // population, share their items."""

    index: int
    generation: int
    genotype: Genotype


@dataclass(frozen=True)
class Told:
    """What the strategy has learnt from in one step: the proposals with these indices."""

    generation: int
    members: tuple[int, ...]


class Core:
    """The asynchronous loop around one strategy (stateful, no I/O)."""

    def __init__(self, strategy: Strategy, schedule: Schedule, room: Callable[[int], bool]) -> None:
        """`room(k)` says, when the schedule allows it, whether the k-th may be proposed.

        It is asked in order, and again until it says yes.
        """
        self._strategy = strategy
        self._schedule = schedule
        self._room = room
        self._limit: int | None = None
        self._asked: list[Genotype] = []
        self._scores: dict[int, Scores | None] = {}
        self._arrived: list[int] = []
        self._levels = Levels(strategy.population)
        self._told = 0
        self._handed_out = 0

    @property
    def unfinished(self) -> bool:
        """Whether a proposal still lacks its result."""
        return len(self._scores) < len(self._asked)

    @property
    def asked(self) -> int:
        """How many genotypes were sampled so far."""
        return len(self._asked)

    def close(self, limit: int) -> None:
        """Propose no more than `limit` genotypes in all, or than were already sampled."""
        self._limit = limit

    def proposals(self) -> Iterator[Proposal]:
        """The genotypes that may be evaluated now and were not handed out before."""
        self._sample()
        while self._handed_out < len(self._asked):
            index = self._handed_out
            self._handed_out += 1
            yield Proposal(index, index // self._strategy.population, self._asked[index])

    def result(self, index: int, scores: Scores | None) -> tuple[Told, ...]:
        """Take one result (None: the candidate failed); returns what it let the strategy learn.

        By arrival, the order of these calls is part of the trajectory.
        """
        assert index not in self._scores, "a result arrived twice"
        self._sample()
        self._scores[index] = scores
        self._arrived.append(index)
        self._levels.add(index, scores)
        told: list[Told] = []
        while (members := self._complete()) is not None:
            values = self._levels.comparable(members)
            self._strategy.tell([self._asked[member] for member in members], values)
            for member in members:
                self._asked[member] = ()  # learnt: a long search has too many to keep
            told.append(Told(self._told, tuple(members)))
            self._told += 1
            # now, not when somebody asks: one late result may complete several generations
            self._sample()
        return tuple(told)

    def _complete(self) -> Sequence[int] | None:
        """Whose results are told next; None while some are missing."""
        begin, population = self._told * self._strategy.population, self._strategy.population
        if self._schedule.ordered:
            members: Sequence[int] = range(begin, begin + population)
            return members if all(member in self._scores for member in members) else None
        members = self._arrived[begin : begin + population]
        return members if len(members) == population else None

    def _sample(self) -> None:
        while self._next_may_be_asked() and self._room(len(self._asked)):
            self._asked.append(self._strategy.ask())

    def _next_may_be_asked(self) -> bool:
        """By either schedule candidate k sees max(0, k - ahead) // population steps of learning."""
        if self._limit is not None and len(self._asked) >= self._limit:
            return False
        beyond = len(self._asked) - self._schedule.ahead
        if self._schedule.ordered:
            return beyond < (self._told + 1) * self._strategy.population
        return beyond <= len(self._arrived)
