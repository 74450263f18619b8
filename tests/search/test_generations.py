from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from evomerge.candidate import Genotype
from evomerge.search.generations import Generations, elites


def test_how_many_come_back() -> None:
    assert [elites(size) for size in (4, 7, 8, 16, 24, 64)] == [1, 1, 2, 2, 3, 8]


def test_first_then_children_then_the_best_known() -> None:
    generations = Generations([(0.1,), (0.2,), (0.1,), (0.3,)], 4)
    numbers = count(1)

    def child() -> Genotype:
        return (float(next(numbers)),)

    asked = [generations.ask(child) for _ in range(4)]
    assert asked == [(0.1,), (0.2,), (0.3,), (1.0,)]
    generations.tell(asked, ((0.1,), (0.7,), (0.9,), None))
    assert generations.parents == ((0.3,), (0.2,))
    assert [generations.ask(child) for _ in range(4)] == [(2.0,), (3.0,), (4.0,), (0.3,)]


def test_impossible_and_old_children_are_drawn_again() -> None:
    generations = Generations([(0.1,)], 4)
    draws: list[Genotype | None] = [(0.1,), None, (0.2,), (0.2,), (0.3,)]
    asked = [generations.ask(lambda: draws.pop(0)) for _ in range(3)]
    assert asked == [(0.1,), (0.2,), (0.3,)]


def test_when_there_are_no_new_children_the_known_come_in_turn() -> None:
    generations = Generations([(0.1,), (0.2,)], 4)
    assert [generations.ask(lambda: None) for _ in range(4)] == [(0.1,), (0.2,), (0.1,), (0.2,)]
    generations.tell([(0.1,), (0.2,)] * 2, [(0.0,), (1.0,)] * 2)
    assert [generations.ask(lambda: None) for _ in range(4)] == [(0.2,), (0.1,), (0.2,), (0.1,)]


def test_parents_are_what_it_began_with_until_something_is_known() -> None:
    first = [(0.1,), (0.2,)]
    generations = Generations(first, 8)
    assert generations.parents == tuple(first)
    generations.tell(first, [None, None])
    assert generations.parents == tuple(first)


def test_tournaments_prefer_the_better() -> None:
    generations = Generations([(0.1,), (0.2,)], 4)
    generations.tell([(0.1,), (0.2,)], [(0.0,), (1.0,)])
    rng = np.random.default_rng(0)
    wins = sum(generations.tournament(rng) == (0.2,) for _ in range(1000))
    assert wins == pytest.approx(750, abs=60)
