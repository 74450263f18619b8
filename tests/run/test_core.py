from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Genotype, Scores
from evomerge.run.core import Core, Schedule, Told


class Counting:
    """A strategy whose proposals say how many generations it has been told."""

    def __init__(self, population: int) -> None:
        self.population = population
        self.told: list[tuple[tuple[Genotype, ...], tuple[Scores | None, ...]]] = []
        self.asked = 0

    def ask(self) -> Genotype:
        self.asked += 1
        return (float(self.asked), float(len(self.told)))

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        self.told.append((tuple(genotypes), tuple(scores)))

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        return ((float(len(self.told)), 0.0),)


def below(limit: int) -> Callable[[int], bool]:
    return lambda index: index < limit


@given(
    population=st.integers(1, 7),
    lookahead=st.integers(0, 12),
    limit=st.integers(0, 60),
    order=st.randoms(use_true_random=False),
)
def test_asks_and_tells_do_not_depend_on_the_order_of_results(
    population: int, lookahead: int, limit: int, order: object
) -> None:
    strategy = Counting(population)
    core = Core(strategy, Schedule(ordered=True, ahead=lookahead), below(limit))
    waiting = list(core.proposals())
    seen = list(waiting)
    told: list[Told] = []
    while waiting:
        proposal = waiting.pop(order.randrange(len(waiting)))  # type: ignore[attr-defined]
        told += core.result(proposal.index, (float(proposal.index),))
        fresh = list(core.proposals())
        waiting += fresh
        seen += fresh
    assert not core.unfinished
    assert [p.index for p in seen] == list(range(limit))
    for proposal in seen:
        assert proposal.genotype[1] == max(0, (proposal.index - lookahead) // population)
        assert proposal.generation == proposal.index // population
    assert [t.generation for t in told] == list(range(limit // population))
    assert [f for _, scores in strategy.told for f in scores] == [
        (float(index),) for index in range(limit // population * population)
    ]


@given(population=st.integers(2, 6), lookahead=st.integers(0, 8))
def test_a_candidate_is_sampled_after_exactly_the_stated_generations(
    population: int, lookahead: int
) -> None:
    core = Core(Counting(population), Schedule(ordered=True, ahead=lookahead), below(40))
    seen = list(core.proposals())
    for index in range(40):
        core.result(index, (0.0,))
        seen += core.proposals()
    assert [p.genotype[1] for p in seen] == [
        max(0, (index - lookahead) // population) for index in range(40)
    ]


def test_closing_ends_the_proposals() -> None:
    core = Core(Counting(4), Schedule(ordered=True, ahead=0), below(100))
    assert len(list(core.proposals())) == 4
    core.close(core.asked)
    for index in range(4):
        core.result(index, None)
    assert list(core.proposals()) == []
    assert not core.unfinished


@given(
    population=st.integers(1, 7),
    ahead=st.integers(1, 12),
    limit=st.integers(0, 60),
    order=st.randoms(use_true_random=False),
)
def test_by_arrival_nobody_waits_and_every_result_is_told_once(
    population: int, ahead: int, limit: int, order: object
) -> None:
    strategy = Counting(population)
    core = Core(strategy, Schedule(ordered=False, ahead=ahead), below(limit))
    waiting = list(core.proposals())
    seen = list(waiting)
    counted: list[int] = []
    while waiting:
        assert len(waiting) == min(ahead + 1, limit - len(counted))
        proposal = waiting.pop(order.randrange(len(waiting)))  # type: ignore[attr-defined]
        core.result(proposal.index, (1.0,))
        counted.append(proposal.index)
        fresh = list(core.proposals())
        waiting += fresh
        seen += fresh
    assert [p.index for p in seen] == list(range(limit))
    for proposal in seen:
        assert proposal.genotype[1] == max(0, (proposal.index - ahead) // population)
    asked = [proposal.genotype for proposal in seen]
    whole = limit // population * population
    told = [genotype for genotypes, _ in strategy.told for genotype in genotypes]
    assert told == [asked[index] for index in counted[:whole]]


@given(order=st.permutations(range(3, 12)))
def test_by_arrival_the_same_order_gives_the_same_trajectory(order: list[int]) -> None:
    def tells() -> list[object]:
        strategy = Counting(4)
        core = Core(strategy, Schedule(ordered=False, ahead=12), below(14))
        assert len(list(core.proposals())) == 13
        for index in (0, 1, 2, *order):
            core.result(index, (float(index),))
        return [*strategy.told, list(core.proposals())]

    assert tells() == tells()


def test_results_on_easier_items_gain_nothing_by_it() -> None:
    strategy = Counting(4)
    core = Core(strategy, Schedule(ordered=False, ahead=8), below(9))
    list(core.proposals())
    # candidates 4 to 7 have items on which everybody scores 0.3 more
    values = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.4, 5: 0.5, 6: 0.6, 7: 0.7}
    for index in (0, 1, 4, 5, 2, 6, 3, 7):
        core.result(index, (values[index],))
    told = dict(zip((2, 6, 3, 7), strategy.told[1][1], strict=True))
    for late, early in ((2, 6), (3, 7)):
        assert told[late] is not None
        assert told[early] is not None
        # a fifth is left: a generation's level is believed as much as four results are worth
        assert told[early][0] - told[late][0] == pytest.approx(0.3 / 5.0)
