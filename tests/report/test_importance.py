from __future__ import annotations

import math

import numpy as np
import pytest

from evomerge.genes import CONTINUOUS, Axis
from evomerge.report.importance import GeneEffect, Importance, importance
from evomerge.report.trials import Floats, Trials, within

POPULATION = 10


def trials(
    values: Floats, truth: Floats, *, noise: float, seed: int, axes: tuple[Axis, ...] | None = None
) -> Trials:
    """Candidates in generations whose items differ much more than the candidates do."""
    rng = np.random.default_rng(seed)
    count, genes = values.shape
    generations = np.arange(count) // POPULATION
    ease = rng.normal(0.0, 3.0, generations[-1] + 1)[generations]
    return Trials(
        tuple(f"g{gene}" for gene in range(genes)),
        axes or (CONTINUOUS,) * genes,
        values,
        truth + ease + rng.normal(0.0, noise, count),
        generations,
        np.full(count, 50.0),
    )


def moving(count: int, genes: int, seed: int) -> Floats:
    """Genotypes of a search whose centre moves and whose step becomes smaller."""
    rng = np.random.default_rng(seed)
    progress = np.linspace(0.0, 1.0, count)[:, None]
    centre = 0.5 + progress * rng.uniform(-0.3, 0.3, genes)
    sample = centre + rng.normal(size=(count, genes)) * (0.17 - 0.1 * progress)
    return np.asarray(np.clip(sample, 0.0, 1.0), dtype=np.float64)


def order(found: Importance) -> list[int]:
    return [effect.gene for effect in found.effects]


def of(found: Importance, gene: int) -> GeneEffect:
    return next(effect for effect in found.effects if effect.gene == gene)


@pytest.mark.parametrize(("count", "genes"), [(60, 3), (200, 12), (1000, 40), (3000, 100)])
def test_known_importances_come_out_in_their_order(count: int, genes: int) -> None:
    values = moving(count, genes, seed=1)
    truth = 4.0 * values[:, 0] - 2.0 * values[:, 1] + 1.0 * values[:, 2]
    found = importance(trials(values, truth, noise=0.15, seed=2))
    assert order(found)[:3] == [0, 1, 2]
    assert [effect.clear for effect in found.effects[:2]] == [True, True]
    assert not any(effect.clear for effect in found.effects if effect.gene > 2)
    assert found.skill > 0.5 > found.luck
    assert found.surrogate is not None
    assert found.surrogate.basis.with_pairs is (genes <= 22)
    # variances of the parts: 16 to 4 to 1
    assert of(found, 0).low < 16.0 / 21.0 < of(found, 0).high


def test_noise_alone_cannot_be_told_from() -> None:
    told = 0
    for seed in range(30):
        values = moving(80, 8, seed)
        found = importance(trials(values, np.zeros(80), noise=1.0, seed=seed))
        told += bool(found.effects)
        assert found.effects or found.surrogate is None
    assert told <= 3  # one in fifty, by design


def test_a_gene_that_only_drifts_while_scores_rise_gets_no_credit() -> None:
    """Everything that moves in one direction goes with the rise of the search's scores."""
    rng = np.random.default_rng(3)
    count = 300
    values = rng.uniform(0.0, 1.0, (count, 2))
    progress = np.linspace(0.0, 1.0, count)
    values[:, 1] = np.clip(progress + rng.normal(0.0, 0.05, count), 0.0, 1.0)
    found = importance(
        trials(values, values[:, 0] + 5.0 * np.floor(progress * 30.0), noise=0.3, seed=4)
    )
    assert of(found, 0).clear
    assert not of(found, 1).clear


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 100.0), (-1e3, 1.0), (50.0, 0.01)])
def test_only_differences_within_a_generation_count(shift: float, factor: float) -> None:
    values = moving(60, 3, seed=5)
    plain = trials(values, 2.0 * values[:, 0], noise=0.2, seed=6)
    moved = Trials(
        plain.names, plain.axes, plain.values,
        factor * plain.fitness + shift * (plain.generations % 3), plain.generations, plain.items,
    )  # fmt: skip
    ours, theirs = importance(plain), importance(moved)
    assert order(ours) == order(theirs)
    np.testing.assert_allclose(ours.skill, theirs.skill, rtol=1e-3)
    np.testing.assert_allclose(
        [effect.share for effect in ours.effects], [effect.share for effect in theirs.effects],
        rtol=1e-2, atol=1e-3,
    )  # fmt: skip


def test_choices_have_no_order_and_steps_have_one() -> None:
    rng = np.random.default_rng(7)
    choice, step, idle = rng.integers(0, 3, (3, 200))
    values = (np.stack([choice, step, idle], axis=1) + 0.5) / 3.0
    truth = np.asarray([0.0, 1.0, 0.1])[choice] + 0.2 * step
    axes = (Axis(3, ordered=False), Axis(3), Axis(3, ordered=False))
    found = importance(trials(values, truth, noise=0.2, seed=8, axes=axes))
    assert order(found) == [0, 1, 2]
    assert [effect.clear for effect in found.effects] == [True, True, False]
    curve = of(found, 0).curve
    assert len(curve) == 3
    assert curve.index(max(curve)) == 1
    assert list(of(found, 1).curve) == sorted(of(found, 1).curve)


def test_two_genes_that_act_only_together_are_found() -> None:
    values = np.random.default_rng(9).uniform(0.0, 1.0, (400, 4))
    truth = np.sign((values[:, 1] - 0.5) * (values[:, 3] - 0.5))
    found = importance(trials(values, truth, noise=0.3, seed=10))
    assert set(order(found)[:2]) == {1, 3}
    assert [effect.clear for effect in found.effects] == [True, True, False, False]


def test_the_curve_shows_where_a_gene_is_best() -> None:
    values = np.random.default_rng(11).uniform(0.0, 1.0, (300, 2))
    found = importance(trials(values, -4.0 * (values[:, 0] - 0.7) ** 2, noise=0.1, seed=12))
    effect = of(found, 0)
    best = effect.grid[effect.curve.index(max(effect.curve))]
    assert abs(best - 0.7) < 0.05
    expected = -4.0 * (np.asarray(effect.grid) - 0.7) ** 2
    assert np.abs(np.asarray(effect.curve) - (expected - expected.mean())).max() < 0.1


@pytest.mark.parametrize("count", [0, 9, 20])
def test_too_little_to_compare_is_not_compared(count: int) -> None:
    values = moving(count, 2, seed=13) if count else np.zeros((0, 2))
    found = importance(
        Trials(("a", "b"), (CONTINUOUS,) * 2, values, values[:, 0], np.arange(count) // 10,
               np.full(count, 9.0))
    )  # fmt: skip
    assert (found.effects, found.surrogate) == ((), None)
    assert math.isnan(found.skill)


def test_genes_that_never_moved_are_not_compared() -> None:
    values = np.full((60, 2), 0.4)
    assert math.isnan(importance(trials(values, np.zeros(60), noise=1.0, seed=14)).skill)
    values[:, 1] = moving(60, 1, seed=15)[:, 0]
    found = importance(trials(values, 5.0 * values[:, 1], noise=0.1, seed=16))
    assert order(found)[0] == 1
    assert of(found, 0).share == 0.0
    assert not of(found, 0).clear


def test_within_takes_each_generation_by_itself() -> None:
    columns = np.asarray([[1.0], [5.0], [3.0], [9.0]])
    found = within(columns, np.asarray([7, 2, 7, 2]))
    np.testing.assert_allclose(found[:, 0], [-1.0, -2.0, 1.0, 2.0])
