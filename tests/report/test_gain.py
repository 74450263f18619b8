from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evomerge.report.gain import Gain, Level, gain
from evomerge.report.trials import Floats

Curve = Callable[[Floats, np.random.Generator], Floats]


def exponential(times: Floats, rng: np.random.Generator) -> Floats:
    return 0.3 + rng.uniform(0.05, 0.5) * (1.0 - np.exp(-times / rng.uniform(0.1, 1.0)))


def power(times: Floats, rng: np.random.Generator) -> Floats:
    rate, exponent = rng.uniform(0.1, 1.0), rng.uniform(0.3, 2.0)
    return 0.3 + rng.uniform(0.05, 0.5) * (1.0 - (1.0 + times / rate) ** -exponent)


def steady(times: Floats, rng: np.random.Generator) -> Floats:
    return 0.2 + rng.uniform(0.0, 0.25) * times


def late(times: Floats, rng: np.random.Generator) -> Floats:
    middle, width = rng.uniform(0.3, 1.0), rng.uniform(0.1, 0.3)
    return 0.3 + rng.uniform(0.1, 0.4) / (1.0 + np.exp((middle - times) / width))


def levels(curve: Floats, noise: float, rng: np.random.Generator) -> list[Level]:
    means = curve + rng.normal(0.0, noise, len(curve))
    return [Level(500.0 * (g + 1), float(mean), 500.0) for g, mean in enumerate(means)]


def held_out(curve: Curve, seed: int, generations: int) -> tuple[Gain, float]:
    """The gain from the first half of a curve with noise, and what the second half really adds."""
    rng = np.random.default_rng(seed)
    truth = curve(np.arange(1, 2 * generations + 1) / generations, rng)
    found = gain(levels(truth[:generations], 0.03, rng), 1.0)
    assert found is not None
    return found, float(truth[-1] - truth[generations - 1])


def test_the_interval_covers_the_second_half_of_synthetic_curves() -> None:
    covered = []
    for curve in (exponential, power, steady, late):
        for seed, generations in enumerate([7, 9, 12, 16, 25, 100]):
            found, truth = held_out(curve, seed, generations)
            covered.append(found.low <= truth <= found.high)
    assert len(covered) == 24
    assert np.mean(covered) >= 0.85


def test_more_generations_say_more() -> None:
    widths = []
    for generations in (8, 30, 240):
        found, _ = held_out(exponential, 5, generations)
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2]


def test_a_climb_that_is_over_has_nothing_to_gain() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(1, 101) / 100.0
    found = gain(levels(0.9 - 0.5 * np.exp(-times / 0.05), 0.01, rng), 1.0)
    assert found is not None
    assert found.told
    assert abs(found.expected) < 0.01
    assert found.low < 0.0 < found.high < 0.05


def test_a_search_that_goes_nowhere_cannot_tell() -> None:
    told = []
    for seed in range(8):
        found = gain(levels(np.full(20, 0.5), 0.03, np.random.default_rng(seed)), 1.0)
        assert found is not None
        assert found.low < 0.0 < found.high
        told.append(found.told)
    assert sum(told) <= 2


@pytest.mark.parametrize("ceiling", [0.8, None])
def test_nothing_is_promised_beyond_the_highest_score(ceiling: float | None) -> None:
    rng = np.random.default_rng(2)
    found = gain(levels(0.2 + 0.5 * np.arange(20) / 20.0, 0.01, rng), ceiling)
    assert found is not None
    assert (max(found.high_curve) <= 0.8) == (ceiling is not None)
    assert found.low <= found.expected <= found.high


def test_units_do_not_matter() -> None:
    plain = levels(0.3 + 0.3 * np.arange(12) / 12.0, 0.02, np.random.default_rng(3))
    other = [Level(3.0 * one.spent, 100.0 * one.mean - 7.0, one.weight / 2.0) for one in plain]
    ours, theirs = gain(plain, None), gain(other, None)
    assert ours is not None
    assert theirs is not None
    for name in ("expected", "low", "high"):
        assert getattr(theirs, name) == pytest.approx(100.0 * getattr(ours, name), rel=1e-3)
    assert theirs.spent[-1] == pytest.approx(3.0 * ours.spent[-1])
    assert ours == gain(plain, None)


def test_short_or_constant_searches_have_no_curve() -> None:
    rng = np.random.default_rng(4)
    assert gain(levels(np.linspace(0.1, 0.5, 5), 0.01, rng), 1.0) is None
    assert gain(levels(np.full(9, 0.5), 0.0, rng), 1.0) is None
