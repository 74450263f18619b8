from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from evomerge.genes import ChoiceGene, FloatGene, Gene, IntGene
from evomerge.run.config import StrategyConfig
from evomerge.search.claims import (
    CLAIMS,
    MOST_GENES_GP,
    strategy_problem,
    usual_notice,
    usual_strategy,
)
from evomerge.search.optuna_sampler import METHODS
from evomerge.space import Place, SearchSpace
from evomerge.stack_space import Slots, StackSpace

WEIGHT, COUNT = FloatGene("weight", 0.0, 1.5), IntGene("seed", 0, 9)
METHOD = ChoiceGene("merge_method", ("ties", "dare_ties", "della"))
FLAG = ChoiceGene("normalize", (False, True))
STACKS = StackSpace(Slots((("a", 40), ("b", 40)), 2), "a", 20, 60)


def space(*genes: Gene) -> SearchSpace:
    places = tuple(Place(gene.name) for gene in genes)
    return SearchSpace(genes, places, {"merge_method": "ties"}, ("a", "b"))


def test_the_names_are_those_of_a_space_file() -> None:
    literal, _ = get_args(StrategyConfig.model_fields["algorithm"].annotation)
    assert get_args(literal) == tuple(CLAIMS)
    assert set(METHODS) < set(CLAIMS)


@pytest.mark.parametrize("name", sorted(CLAIMS.keys() - {"stack_ga"}))
def test_numbers_steps_and_choices_of_two_are_for_all(name: str) -> None:
    assert strategy_problem(name, space(WEIGHT, COUNT, FLAG)) is None


def test_a_choice_of_three_is_not_for_cma_es() -> None:
    assert strategy_problem("cma_es", space(WEIGHT, METHOD)) == (
        "strategy.algorithm: cma_es cannot search merge_method (ties, dare_ties, della): more than "
        "2 values without order; use ga, tpe, gp, nsga2 or random"
    )
    for name in ("ga", "tpe", "gp", "nsga2", "random"):
        assert strategy_problem(name, space(WEIGHT, METHOD)) is None


def test_many_such_choices_are_counted() -> None:
    genes = [replace(METHOD, name=f"m{k}", choices=(1, 2, 3)) for k in range(5)]
    found = strategy_problem("cma_es", space(*genes))
    assert found is not None
    assert "m0 (1, 2, 3), m1 (1, 2, 3), m2 (1, 2, 3) and 2 more:" in found


def test_what_only_some_can_search() -> None:
    wide = space(*[WEIGHT] * (MOST_GENES_GP + 1))
    assert strategy_problem("gp", wide) == (
        "strategy.algorithm: gp searches 64 genes at most, got 65; "
        "use cma_es, ga, tpe, nsga2 or random"
    )
    assert strategy_problem("stack_ga", space(WEIGHT)) == (
        "strategy.algorithm: stack_ga searches stacks only; "
        "use cma_es, ga, tpe, gp, nsga2 or random"
    )
    assert strategy_problem("cma_es", STACKS) is strategy_problem("stack_ga", STACKS) is None


def test_what_is_taken_when_nothing_is_said() -> None:
    assert usual_strategy(STACKS) == "stack_ga"
    assert usual_strategy(space(WEIGHT, FLAG)) == "cma_es"
    assert usual_strategy(space(WEIGHT, METHOD)) == "ga"
    assert usual_notice(STACKS) is usual_notice(space(WEIGHT, FLAG)) is None
    assert usual_notice(space(WEIGHT, METHOD)) == (
        "searched by ga: merge_method (ties, dare_ties, della): more than two values without "
        "order, not for cma_es"
    )
