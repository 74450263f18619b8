from __future__ import annotations

import cma
import numpy as np
import pytest

from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.cma_es import CmaEs, default_population
from evomerge.seeding import generator


def test_population_follows_the_tutorial() -> None:
    assert [default_population(d) for d in (1, 6, 12, 40)] == [4, 9, 11, 15]


def test_same_trajectory_as_pycma_driven_by_hand() -> None:
    ours = CmaEs((0.3, 0.6, 0.5), axes=[CONTINUOUS] * 3, seed=7, population=8, sigma=0.2)
    rng = generator(7, "cma_es")
    options = {
        "bounds": [0.0, 1.0],
        "popsize": 8,
        "maxstd": 1 / 3,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,
        "verbose": -9,
        "tolfun": 0,
        "tolx": 0,
        "tolflatfitness": 10**9,
    }
    theirs = cma.CMAEvolutionStrategy([0.3, 0.6, 0.5], 0.2, options)
    for _ in range(10):
        mine = [ours.ask() for _ in range(8)]
        reference = theirs.ask()
        assert np.allclose(mine, reference, atol=1e-12)
        values = [float(np.sum((np.asarray(x) - 0.4) ** 2)) for x in mine]
        ours.tell(mine, [(-v,) for v in values])
        theirs.tell(reference, values)


def test_equal_fitness_for_ever_does_not_stop_it() -> None:
    strategy = CmaEs((0.5, 0.5), axes=[CONTINUOUS] * 2, seed=1, population=6, sigma=0.2)
    for _ in range(60):
        genotypes = [strategy.ask() for _ in range(6)]
        strategy.tell(genotypes, [(0.0,)] * 6)
    assert len({strategy.ask() for _ in range(6)}) == 6


@pytest.mark.parametrize("start", [(0.0, 1.0), (1.0,), (0.5,) * 60])
def test_borders_one_gene_and_many(start: tuple[float, ...]) -> None:
    strategy = CmaEs(start, axes=[CONTINUOUS] * len(start), seed=2, population=6, sigma=1 / 6)
    genotypes = [strategy.ask() for _ in range(6)]
    strategy.tell(genotypes, [(sum(g),) for g in genotypes])
    assert all(len(g) == len(start) for g in genotypes)
    assert all(0.0 <= u <= 1.0 for g in genotypes for u in g)
    assert [len(g) for g in strategy.estimates] == [len(start)]


def test_estimates_are_the_last_means_and_the_average_of_the_later_half() -> None:
    strategy = CmaEs((0.3, 0.6), axes=[CONTINUOUS] * 2, seed=4, population=6, sigma=0.2)
    assert strategy.estimates == ()
    means: list[tuple[float, ...]] = []
    for _ in range(7):
        genotypes = [strategy.ask() for _ in range(6)]
        strategy.tell(genotypes, [(-sum((u - 0.8) ** 2 for u in g),) for g in genotypes])
        means.append(strategy._genotype(strategy._es.result.xfavorite))
        assert means[-1] in strategy.estimates
    *late, average = strategy.estimates
    assert late == means[-3:]
    assert average == pytest.approx(np.mean(means[3:], axis=0))


def test_steps_and_choices_of_two_are_tried_to_the_end() -> None:
    """Numbers that the optimum does not need keep small steps from freezing the others."""
    axes = [CONTINUOUS] * 3 + [Axis(5), Axis(5), Axis(2, ordered=False)]
    strategy = CmaEs((0.5,) * 6, axes=axes, seed=3, population=10, sigma=1 / 6)
    seen: list[tuple[int, ...]] = []
    for _ in range(80):
        asked = [strategy.ask() for _ in range(10)]
        losses = [sum((u - 0.4) ** 2 for u in one[:3]) for one in asked]
        strategy.tell(asked, [(-loss,) for loss in losses])
        seen += [tuple(a.step(u) for a, u in zip(axes[3:], one[3:], strict=True)) for one in asked]
    assert max(losses) < 1e-6
    late = np.asarray(seen[-200:])
    assert all(len(set(column)) > 1 for column in late.T)


def test_it_finds_the_right_steps() -> None:
    axes = [CONTINUOUS] * 2 + [Axis(7), Axis(4), Axis(2, ordered=False), Axis(2, ordered=False)]
    target = (0.3, 0.6, 0.5 / 7, 0.875, 0.75, 0.25)
    strategy = CmaEs((0.5,) * 6, axes=axes, seed=1, population=10, sigma=1 / 6)
    for _ in range(60):
        asked = [strategy.ask() for _ in range(10)]
        steps = [[a.step(u) for a, u in zip(axes[2:], one[2:], strict=True)] for one in asked]
        wanted = [a.step(u) for a, u in zip(axes[2:], target[2:], strict=True)]
        strategy.tell(
            asked,
            [
                (
                    -sum((u - v) ** 2 for u, v in zip(one[:2], target, strict=False))
                    - 0.05 * float(np.abs(np.subtract(found, wanted)).sum()),
                )
                for one, found in zip(asked, steps, strict=True)
            ],
        )
    final = strategy.estimates[-1]
    assert [a.step(u) for a, u in zip(axes[2:], final[2:], strict=True)] == wanted
