from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.genes import ChoiceGene, FloatGene, Gene, IntGene
from evomerge.recipe import Recipe, Slice, Source
from evomerge.report.formats import Scale
from evomerge.report.gain import Gain
from evomerge.report.gain_figure import gain_plot
from evomerge.report.gene_figure import genes_plot
from evomerge.report.importance import GeneEffect, Importance
from evomerge.report.insight import NOTHING, Insight, SearchInsight, advice, explain, highest
from evomerge.report.insight_sentences import gain_told, genes_told, insight_lines, won_told
from evomerge.report.recorded import read_run
from evomerge.report.searched import levels_of, positions, searches_of, trials_of
from evomerge.report.traits import traits_of
from evomerge.score import Objective, TaskGoal
from evomerge.space import Place, SearchSpace
from evomerge.stack import Hop, path_along, recipe_of
from tests.report.recorded_runs import searched
from tests.run.fakes import FakeWorkers

PERCENT = Scale(100.0, 1, "%", "points")


def space_of(*genes: Gene) -> SearchSpace:
    return SearchSpace(genes, tuple(Place("weight") for _ in genes), {"merge_method": "x"}, ())


def effect(grid: tuple[float, ...], curve: tuple[float, ...], error: float = 0.01) -> GeneEffect:
    return GeneEffect(0, 0.5, 0.3, 0.7, True, grid, curve, (error,) * len(curve))


def test_a_recorded_search_says_which_weights_it_depended_on(insight: Insight) -> None:
    (search,) = insight.searches
    assert search.importance.trials > 200
    assert search.importance.skill > search.importance.luck
    assert search.genes[0].effect.clear
    assert {line.name for line in search.genes} == {
        f"weight[{model}, layers {group}]" for model in "ab" for group in ("0-1", "2-3", "4-5")
    }
    assert search.gain is not None
    assert len(search.levels) >= 25


def test_that_products_were_too_many_is_said(insight: Insight) -> None:
    (search,) = insight.searches
    surrogate = search.importance.surrogate
    assert surrogate is not None
    assert "left out" not in genes_told(search).ground
    alone = replace(surrogate, basis=replace(surrogate.basis, with_pairs=False))
    many = replace(search, importance=replace(search.importance, surrogate=alone))
    assert "what two do only together was left out" in genes_told(many).ground


def test_the_winner_of_a_recorded_search_shares_the_depth(insight: Insight) -> None:
    assert insight.won is not None
    assert insight.won.parents == ("a", "b")
    # the fake workers want 0.9 of a and 0.2 of b in every group
    assert all(group.winner == 0 for group in insight.won.groups)
    assert any(group.sure != "cannot tell" for group in insight.won.groups)


def test_a_flat_objective_cannot_tell(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", candidates=160, workers=FakeWorkers(flat=True))
    found = explain(run)
    (search,) = found.searches
    assert search.genes == ()
    assert genes_told(search).finding.startswith("Cannot tell")
    assert genes_plot(search, 0) == ""


def test_insight_comes_at_any_moment_of_a_run(tmp_path: Path) -> None:
    assert explain(searched(tmp_path / "early", candidates=60, steps=3)) == NOTHING
    midway = explain(searched(tmp_path / "midway", candidates=120, steps=70))
    assert midway.won is None
    assert len(midway.searches) == 1


def test_a_search_for_several_objectives_has_no_single_curve(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", candidates=90, combine="pareto")
    insight = explain(run)
    (search,) = insight.searches
    assert search.gain is None
    assert insight_lines(insight, PERCENT) == (genes_told(search).finding,)
    assert "weighted mean of the objectives" in genes_told(search).ground


def test_failed_candidates_count_as_spent_but_are_not_compared(tmp_path: Path) -> None:
    workers = FakeWorkers(fail_every=5, fail_from=20)
    run = searched(tmp_path / "run", candidates=90, workers=workers)
    (search,) = searches_of(read_run(run, driven=False))
    failed = len(search.tallies) - len(search.scored)
    assert failed > 5
    assert len(trials_of(search)) == len(search.scored)
    assert len(levels_of(search)) == len(search.tallies) // 8


def test_the_same_record_gives_the_same_insight(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", candidates=70)
    ours, theirs = explain(run), explain(run)
    assert ours.won == theirs.won
    assert [search.genes for search in ours.searches] == [s.genes for s in theirs.searches]
    assert ours.searches[0].gain == theirs.searches[0].gain


def test_positions_that_mean_the_same_value_are_the_same() -> None:
    space = space_of(FloatGene("f", 0.0, 2.0), IntGene("i", 1, 4), ChoiceGene("c", ("x", "y")))
    table = positions(space, [(0.3, 0.3, 0.1), (0.31, 0.45, 0.4), (1.0, 1.0, 1.0)])
    assert table[0, 0] != table[1, 0]
    assert table[0, 1:].tolist() == table[1, 1:].tolist()
    assert [space.genes[1].decode(value) for value in table[:, 1]] == [2, 2, 4]
    assert [space.genes[2].decode(value) for value in table[:, 2]] == ["x", "x", "y"]


def test_advice_says_where_a_gene_is_best() -> None:
    space = space_of(FloatGene("f", 0.0, 2.0))
    grid = tuple(place / 10.0 for place in range(11))
    rising = tuple(grid)
    assert advice(effect(grid, rising), space) == "more is better"
    assert advice(effect(grid, rising[::-1]), space) == "less is better"
    hill = tuple(-((place - 0.4) ** 2) for place in grid)
    assert advice(effect(grid, hill), space) == "best near 0.8"
    slope = tuple(min(value, 1.5 - value) for value in grid)
    assert advice(effect(grid, slope, error=0.1), space) == "not too low"
    assert advice(effect(grid, slope[::-1], error=0.1), space) == "not too high"
    assert advice(effect(grid, rising, error=0.9), space) == ""
    assert advice(replace(effect(grid, rising), clear=False), space) == ""
    choice = space_of(ChoiceGene("c", ("ties", "linear")))
    assert advice(effect((0.25, 0.75), (-0.1, 0.1)), choice) == "best: linear"
    flag = space_of(ChoiceGene("c", (False, True)))
    assert advice(effect((0.25, 0.75), (-0.1, 0.1)), flag) == "best: true"


def test_the_highest_fitness_is_known_for_shares_only() -> None:
    accuracy, length = TaskGoal("a", "acc,none", weight=3.0), TaskGoal("b", "length,none")
    assert highest(Objective((accuracy,))) == 1.0
    assert highest(Objective((accuracy, length))) is None
    loss = TaskGoal("p", "word_perplexity,none", aggregation="perplexity", higher_is_better=False)
    assert highest(Objective((loss,))) is None
    down = TaskGoal("c", "acc,none", higher_is_better=False)
    assert highest(Objective((accuracy, down))) == pytest.approx(0.75)


def test_sentences_are_plain_and_complete(insight: Insight) -> None:
    (search,) = insight.searches
    told = genes_told(search)
    assert "clearly mattered: weight[" in told.finding
    assert "answered the same items" in told.ground
    gained = gain_told(search, PERCENT).finding
    assert gained.startswith(("Twice the items would be expected to add ", "Cannot tell what"))
    assert "points (95 %: " in gained
    assert insight_lines(insight, PERCENT) == (told.finding, gained)
    assert insight.won is not None
    assert won_told(insight.won, PERCENT).finding.startswith("Of 3 layer groups, ")
    assert insight_lines(NOTHING, PERCENT) == ()


def test_a_wide_interval_is_no_promise() -> None:
    curve = (0.5, 0.5)
    wide = Gain(0.01, -0.3, 0.4, False, (1.0, 2.0), curve, curve, curve)
    nothing = Importance(0, 0, math.nan, math.nan, (), None)
    search = SearchInsight("", False, False, nothing, (), ((1.0, 0.5),), wide)
    assert gain_told(search, PERCENT).finding == (
        "Cannot tell what twice the items would add: +1.0 points is in the middle of what is "
        "possible (95 %: -30.0 to +40.0), which is wider than what the search has gained so far."
    )
    assert genes_told(search).finding == "Cannot tell: there is too little to compare."
    short = replace(search, gain=None)
    assert "1 generation, too few" in gain_told(short, PERCENT).finding
    assert gain_plot(short, PERCENT) == ""


def test_traits_describe_a_path() -> None:
    def stack(*layers: Hop) -> Recipe:
        return recipe_of(path_along(layers), donor="a", scale_mode="stream", dtype=None)

    plain = stack(*(Hop("a", layer) for layer in range(4)))
    crossed = stack(Hop("a", 0), Hop("a", 1), Hop("b", 1, 1.5), Hop("a", 1), Hop("a", 2))
    names, axes, values = traits_of([plain, crossed], ("a", "b"))
    assert names == (
        "number of layers", "layers of a", "repeated layers", "seams", "scale at seams",
    )  # fmt: skip
    assert len(axes) == len(names)
    assert values[0].tolist() == [4.0, 4.0, 0.0, 0.0, 0.0]
    assert values[1].tolist() == pytest.approx([5.0, 4.0, 1.0, 2.0, math.log(1.5)])


def test_slices_say_how_deep_the_parents_are(tmp_path: Path) -> None:
    (search,) = searches_of(read_run(searched(tmp_path / "run", candidates=60), driven=False))
    assert search.space is not None
    assert search.space.groups == ("layers 0-1", "layers 2-3", "layers 4-5")
    recipe = search.run.candidates[search.scored[0]].recipe
    assert isinstance(recipe.slices[0], Slice)
    assert isinstance(recipe.slices[0].sources[0], Source)
