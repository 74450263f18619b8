from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Genotype
from evomerge.run.core import Core, Told


class Counting:
    """A strategy whose proposals say how many generations it has been told."""

    def __init__(self, population: int) -> None:
        self.population = population
        self.told: list[tuple[tuple[Genotype, ...], tuple[float | None, ...]]] = []
        self.asked = 0

    def ask(self) -> Genotype:
        self.asked += 1
        return (float(self.asked), float(len(self.told)))

    def tell(self, genotypes: Sequence[Genotype], fitness: Sequence[float | None]) -> None:
        self.told.append((tuple(genotypes), tuple(fitness)))

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        return ((float(len(self.told)), 0.0),)


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
    core = Core(strategy, lookahead=lookahead, limit=limit)
    waiting = list(core.proposals())
    seen = list(waiting)
    told: list[Told] = []
    while waiting:
        proposal = waiting.pop(order.randrange(len(waiting)))  # type: ignore[attr-defined]
        told += core.result(proposal.index, float(proposal.index))
        fresh = list(core.proposals())
        waiting += fresh
        seen += fresh
    assert not core.unfinished
    assert [p.index for p in seen] == list(range(limit))
    for proposal in seen:
        assert proposal.genotype[1] == max(0, (proposal.index - lookahead) // population)
        assert proposal.generation == proposal.index // population
    assert [t.generation for t in told] == list(range(limit // population))
    assert [f for _, fitness in strategy.told for f in fitness] == [
        float(index) for index in range(limit // population * population)
    ]


@given(population=st.integers(2, 6), lookahead=st.integers(0, 8))
def test_a_candidate_is_sampled_after_exactly_the_stated_generations(
    population: int, lookahead: int
) -> None:
    core = Core(Counting(population), lookahead=lookahead, limit=40)
    seen = list(core.proposals())
    for index in range(40):
        core.result(index, 0.0)
        seen += core.proposals()
    assert [p.genotype[1] for p in seen] == [
        max(0, (index - lookahead) // population) for index in range(40)
    ]


def test_closing_ends_the_proposals() -> None:
    core = Core(Counting(4), lookahead=0, limit=100)
    assert len(list(core.proposals())) == 4
    core.close(core.asked)
    for index in range(4):
        core.result(index, None)
    assert list(core.proposals()) == []
    assert not core.unfinished
