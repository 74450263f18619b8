from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evomerge.mergekit_reader import from_mapping
from evomerge.report.drawing import SERIES
from evomerge.report.importance import importance
from evomerge.report.trials import Floats, Trials
from evomerge.report.won_figure import won_plot
from evomerge.report.won_layers import (
    CLEAR,
    LEANING,
    OPEN,
    Contest,
    WonLayers,
    weight_table,
    won_layers,
)
from evomerge.space import SearchSpace
from evomerge.space_file import read_space

A, B = "models/a", "models/b"


def space(**changes: Any) -> SearchSpace:
    return read_space(
        {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": [{"model": A}, {"model": B}],
            "layer_groups": 3,
            "parameters": {"weight": {"float": [0.0, 1.0], "per": ["model", "layer_group"]}},
        }
        | changes,
        "space",
        6,
    )


def contest(
    where: SearchSpace, winner: dict[str, float], tried: Floats, *, late: int = 20
) -> Contest:
    """A search that tried `tried` where only a in the first group and b in the last matter."""
    genes = [gene.name for gene in where.genes]
    first, last = genes.index(f"weight[{A}, layers 0-1]"), genes.index(f"weight[{B}, layers 4-5]")
    fitness = 0.6 * tried[:, first] + 0.4 * tried[:, last]
    fitness = fitness + np.random.default_rng(0).normal(0.0, 0.05, len(tried))
    generations = np.arange(len(tried)) // 10
    learnt = importance(
        Trials(tuple(genes), where.axes, tried, fitness, generations, np.full(len(tried), 50.0))
    )
    genotype = tuple(winner.get(name, 0.5) for name in genes)
    recipes = tuple(where.decode(tuple(row)) for row in tried[-late:])
    return Contest(where, genotype, tried, recipes, learnt.surrogate)


WINNER = {
    f"weight[{A}, layers 0-1]": 0.9,
    f"weight[{B}, layers 0-1]": 0.2,
    f"weight[{A}, layers 2-3]": 0.6,
    f"weight[{B}, layers 2-3]": 0.4,
    f"weight[{A}, layers 4-5]": 0.1,
    f"weight[{B}, layers 4-5]": 0.8,
}


def won(where: SearchSpace, found: Contest) -> WonLayers:
    result = won_layers(where.decode(found.genotype), found)
    assert result is not None
    return result


def test_groups_go_to_the_larger_weight_and_say_how_sure_that_is() -> None:
    where = space()
    tried = np.random.default_rng(1).uniform(0.0, 1.0, (200, 6))
    result = won(where, contest(where, WINNER, tried))
    assert result.parents == (A, B)
    assert [group.label for group in result.groups] == ["0-1", "2-3", "4-5"]
    assert [group.winner for group in result.groups] == [0, 0, 1]
    assert [group.sure for group in result.groups] == [CLEAR, OPEN, CLEAR]
    first, middle, last = result.groups
    # equal weights: a falls from 0.9 to 0.55 in the first group, b from 0.8 to 0.45 in the last
    assert first.low < 0.6 * 0.35 < first.high
    assert last.low < 0.4 * 0.35 < last.high
    assert middle.low < 0.0 < middle.high


def test_late_candidates_that_agree_make_it_lean() -> None:
    where = space()
    tried = np.random.default_rng(2).uniform(0.0, 1.0, (200, 6))
    genes = [gene.name for gene in where.genes]
    tried[-20:, genes.index(f"weight[{A}, layers 2-3]")] = 0.95
    middle = won(where, contest(where, WINNER, tried)).groups[1]
    assert middle.sure == LEANING
    assert middle.agreeing >= 0.9


def test_what_was_not_tried_is_not_judged() -> None:
    where = space()
    tried = np.random.default_rng(3).uniform(0.7, 1.0, (200, 6))
    first = won(where, contest(where, WINNER, tried)).groups[0]
    assert math.isnan(first.cost)  # equal weights would be 0.55
    assert first.sure != CLEAR


def test_noise_makes_no_lead_clear() -> None:
    where = space()
    tried = np.random.default_rng(4).uniform(0.0, 1.0, (200, 6))
    blind = contest(where, WINNER, tried)
    result = won(where, Contest(where, blind.genotype, tried, blind.late, None))
    assert CLEAR not in [group.sure for group in result.groups]


def test_equal_and_negative_weights_win_nothing() -> None:
    where = space(
        parameters={"weight": {"float": [-1.0, 1.0], "per": ["model", "layer_group"]}},
    )
    equal = {name: 0.75 for name in WINNER if "0-1" in name}
    negative = {name: 0.1 for name in WINNER if "2-3" in name}
    tried = np.random.default_rng(5).uniform(0.0, 1.0, (60, 6))
    found = won(where, contest(where, WINNER | equal | negative, tried))
    assert [group.winner for group in found.groups] == [None, None, 1]


def test_slerp_shares_a_group_between_its_two_models() -> None:
    where = space(
        merge_method="slerp",
        base_model=A,
        models=[{"model": A}, {"model": B}],
        parameters={"t": {"float": [0.0, 1.0], "per": "layer_group"}},
    )
    table = weight_table(where.decode((0.1, 0.5, 0.9)))
    assert table["0-1"] == pytest.approx({A: 0.9, B: 0.1})
    assert table["4-5"] == pytest.approx({A: 0.1, B: 0.9})
    tried = np.random.default_rng(6).uniform(0.0, 1.0, (200, 3))
    fitness = -tried[:, 0] + np.random.default_rng(7).normal(0.0, 0.05, 200)
    learnt = importance(
        Trials(("t",) * 3, where.axes, tried, fitness, np.arange(200) // 10, np.full(200, 9.0))
    )
    late = tuple(where.decode(tuple(row)) for row in tried[-20:])
    found = won(where, Contest(where, (0.1, 0.5, 0.9), tried, late, learnt.surrogate))
    assert [group.winner for group in found.groups] == [0, None, 1]
    assert [group.sure for group in found.groups] == [CLEAR, OPEN, OPEN]
    assert found.groups[0].cost == pytest.approx(0.4, abs=0.03)


def test_filters_and_gradients_are_columns_of_their_own() -> None:
    gene = {"float": [0.0, 1.0]}
    split = space(
        filters=["mlp"], parameters={"weight": gene | {"per": ["model", "layer_group", "filter"]}}
    )
    assert list(weight_table(split.decode(split.start)))[:2] == ["0-1 (mlp)", "2-3 (mlp)"]
    curved = read_space(
        {
            "merge_method": "linear",
            "models": [{"model": A}, {"model": B}],
            "parameters": {"weight": gene | {"gradient": 2, "per": "model"}},
        },
        "space",
        6,
    )
    tried = np.random.default_rng(8).uniform(0.0, 1.0, (40, 4))
    found = won(curved, Contest(curved, (0.9, 0.1, 0.2, 0.7), tried, (), None))
    assert [group.label for group in found.groups] == ["0 % deep", "100 % deep"]
    assert [group.winner for group in found.groups] == [0, 1]


def test_there_is_nothing_to_win_without_depth_or_rivals() -> None:
    tried = np.zeros((1, 2))
    whole = space(layer_groups=None, parameters={"weight": {"float": [0.0, 1.0], "per": "model"}})
    assert won_layers(whole.decode((0.2, 0.9)), Contest(whole, (0.2, 0.9), tried, (), None)) is None
    stack = from_mapping(
        {
            "merge_method": "stack",
            "base_model": A,
            "slices": [{"sources": [{"model": A, "layer_range": [0, 2]}]}],
        },
        "recipe",
    )
    assert won_layers(stack, Contest(whole, (0.2, 0.9), tried, (), None)) is None


def test_the_map_shows_weights_leads_and_doubts() -> None:
    where = space()
    tried = np.random.default_rng(1).uniform(0.0, 1.0, (200, 6))
    svg = won_plot(won(where, contest(where, WINNER, tried)))
    for text in ("0.90", "0.20", "0-1", "4-5", "how sure", ">a<", ">b<"):
        assert text in svg
    assert SERIES[0] in svg
    assert SERIES[1] in svg
    assert svg == won_plot(won(where, contest(where, WINNER, tried)))
    assert won_plot(None) == ""
