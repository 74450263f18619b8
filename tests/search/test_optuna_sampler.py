from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from evomerge.candidate import Genotype
from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.evidence import Evidence
from evomerge.search.optuna_sampler import METHODS, OptunaSampler, _normal_scores


def loss(genotype: Genotype) -> float:
    return sum((u - 0.7) ** 2 for u in genotype)


def found(name: str, seed: int, generations: int) -> float:
    """The loss of the best estimate of a search on items that differ by generation."""
    rng = np.random.default_rng(seed)
    axes = [CONTINUOUS] * 4
    strategy = OptunaSampler(name, (0.2,) * 4, axes=axes, seed=seed, population=12)
    for _ in range(generations):
        asked = [strategy.ask() for _ in range(12)]
        ease = rng.normal(0.0, 0.3)
        strategy.tell(asked, [(ease - loss(one) + rng.normal(0.0, 0.03),) for one in asked])
    return loss(strategy.estimates[0])


def test_easy_items_are_not_skill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown the scores as they are, a sampler learns which generation had easy items."""
    ours = np.mean([found("tpe", seed, 6) for seed in range(3)])
    monkeypatch.setattr(Evidence, "_ease", lambda *_: 0.0)
    theirs = np.mean([found("tpe", seed, 6) for seed in range(3)])
    assert ours < min(theirs, loss((0.2,) * 4) / 4)


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_a_space_of_few_values_is_exhausted_and_asked_again(name: str) -> None:
    axes = [Axis(2, ordered=False), Axis(3)]
    strategy = OptunaSampler(name, (0.25, 0.5), axes=axes, seed=1, population=4)
    seen: set[Genotype] = set()
    for _ in range(6):
        asked = [strategy.ask() for _ in range(4)]
        strategy.tell(asked, [(sum(one),) for one in asked])
        seen |= set(asked)
    assert len(seen) == 6
    assert strategy.estimates[0] == pytest.approx((0.75, 5 / 6))


def test_what_a_sampler_is_shown_is_limited_to_the_best_and_the_latest() -> None:
    strategy = OptunaSampler("tpe", (0.2,), axes=[CONTINUOUS], seed=1, population=50)
    told: list[Genotype] = []
    for generation in range(13):
        asked = [
            strategy.ask() if generation == 0 else (k / 1e3 + generation / 13,) for k in range(50)
        ]
        strategy.tell(asked, [(-abs(one[0] - 0.1),) for one in asked])
        told += asked
    shown = [one for one, _ in strategy._shown()]
    assert METHODS["tpe"].shown // 2 < len(shown) <= METHODS["tpe"].shown
    assert set(told[-250:]) <= set(shown)
    assert strategy._generations.standing.ranked()[0] in shown
    assert shown == [one for one in dict.fromkeys(told) if one in set(shown)]


def test_normal_scores_keep_the_order_and_share_ties() -> None:
    scores = _normal_scores(np.asarray([0.3, -math.inf, 0.9, 0.3, -math.inf]))
    assert scores[0] == scores[3]
    assert scores[1] == scores[4]
    assert scores[1] < scores[0] < scores[2]
    assert np.isfinite(scores).all()
    assert _normal_scores(np.asarray([0.1, 0.2, 0.3])) == pytest.approx(
        [-0.967, 0.0, 0.967], abs=1e-3
    )


def test_optunas_logger_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    found("tpe", 1, 2)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capsys.readouterr() == ("", "")
