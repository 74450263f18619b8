from __future__ import annotations

from typing import Any

import pytest

from evomerge.run.baselines import baselines, short_name, starting_point
from evomerge.space import SearchSpace
from evomerge.space_file import read_space
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights.recipe_rules import validate_recipe

GENE = {"float": [-0.5, 2.0], "init": 0.6, "per": "model"}


def space(**changes: Any) -> SearchSpace:
    mapping = {
        "merge_method": "ties",
        "base_model": "org/base",
        "models": [{"model": "x/a"}, {"model": "x/b"}],
        "parameters": {"weight": GENE, "density": {"float": [0.1, 1.0], "per": "model"}},
        "dtype": "bfloat16",
    }
    return read_space(mapping | changes, "space", 4)


def test_all_the_fixed_recipes_come_first() -> None:
    found = baselines(space())
    assert [(b.kind, b.label) for b in found] == [
        ("base", "base"),
        ("parent", "a"),
        ("parent", "b"),
        ("baseline", "uniform soup"),
        ("baseline", "task arithmetic 0.3"),
        ("baseline", "task arithmetic 0.5"),
        ("baseline", "task arithmetic 1"),
        ("baseline", "TIES 0.5"),
        ("baseline", "DARE-TIES 0.5"),
        ("baseline", "slerp 0.5"),
    ]
    assert all(validate_recipe(b.recipe) == [] for b in found)
    assert {b.recipe.dtype for b in found} == {"bfloat16"}


def test_a_path_between_two_models_has_two_parents_and_no_base() -> None:
    changes = {
        "merge_method": "slerp",
        "base_model": "x/a",
        "models": [{"model": "x/b"}],
        "parameters": {"t": {"float": [0, 1]}},
    }
    found = baselines(space(**changes))
    assert [b.label for b in found] == ["a", "b", "uniform soup", "slerp 0.5"]


def test_with_aligned_vocabularies_every_model_takes_part() -> None:
    """The vocabulary follows from all models of a recipe: all must give the same tensors."""
    found = baselines(space(tokenizer_source="union"))
    assert "slerp 0.5" not in [b.label for b in found]
    for baseline in found:
        assert validate_recipe(baseline.recipe) == []
        assert baseline.recipe.referenced_models() == ("org/base", "x/a", "x/b")
        assert baseline.recipe.tokenizer == TokenizerPolicy("union")
    weights = [
        [dict(source.parameters)["weight"].clauses[0].value for source in b.recipe.models]
        for b in found[:4]
    ]
    assert weights == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]]


def test_without_a_base_there_are_no_task_vectors() -> None:
    found = baselines(space(merge_method="linear", base_model=None, parameters={"weight": GENE}))
    assert [b.label for b in found] == ["a", "b", "uniform soup", "slerp 0.5"]


def test_one_parent_has_no_soup_and_is_task_arithmetic_at_1() -> None:
    labels = [b.label for b in baselines(space(models=[{"model": "x/a"}]))]
    assert "uniform soup" not in labels
    assert "task arithmetic 1" not in labels


@pytest.mark.parametrize(
    ("label", "weights", "densities"),
    [
        ("TIES 0.5", (1.0, 1.0), (0.5, 0.5)),
        ("task arithmetic 0.3", (0.3, 0.3), (1.0, 1.0)),
        ("a", (1.0, 0.0), (1.0, 1.0)),
        ("base", (0.0, 0.0), (1.0, 1.0)),
    ],
)
def test_baselines_start_the_search_where_they_are(
    label: str, weights: tuple[float, float], densities: tuple[float, float]
) -> None:
    found = space()
    baseline = next(b for b in baselines(found) if b.label == label)
    values = found.values(starting_point(found, baseline))
    assert values == pytest.approx((*weights, *densities))


def test_a_lambda_gene_takes_the_scale() -> None:
    parameters = {"weight": GENE, "lambda": {"float": [0.1, 2.0]}}
    found = space(merge_method="task_arithmetic", parameters=parameters)
    baseline = next(b for b in baselines(found) if b.label == "task arithmetic 0.3")
    assert found.values(starting_point(found, baseline)) == pytest.approx((1.0, 1.0, 0.3))


def test_short_names_stay_distinct() -> None:
    models = ("p/one/model", "p/two/model", "q/base")
    assert [short_name(m, models) for m in models] == ["one/model", "two/model", "base"]
