from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import InvalidInput
from evomerge.genes import ChoiceGene, FloatGene, Gene, IntGene
from evomerge.mergekit_yaml import to_mapping
from evomerge.space import Place
from evomerge.space_file import read_space

GENES: list[Gene] = [
    FloatGene("f", -0.3, 1.5),
    FloatGene("g", 0.01, 10.0, log=True),
    IntGene("i", -2, 7),
    ChoiceGene("c", ("a", "b", "c")),
]
positions = st.floats(0, 1)


@pytest.mark.parametrize("gene", GENES)
@given(one=positions, other=positions)
def test_decoding_is_monotone(gene: Gene, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert gene.decode(low) <= gene.decode(high)  # type: ignore[operator]


@pytest.mark.parametrize("gene", GENES)
@given(position=positions)
def test_encoding_inverts_decoding(gene: Gene, position: float) -> None:
    value = gene.decode(position)
    encoded = gene.encode(value)
    assert encoded is not None
    assert gene.decode(encoded) == (
        pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
    )


def test_bounds_are_reached_exactly() -> None:
    assert FloatGene("f", 0.1, 0.7).decode(1.0) == 0.7
    assert FloatGene("f", 0.1, 0.7, log=True).decode(0.0) == 0.1
    assert [IntGene("i", 0, 2).decode(u) for u in (0.0, 0.5, 1.0)] == [0, 1, 2]


def space(**changes: Any) -> dict[str, Any]:
    return {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"weight": {"float": [0, 1.5], "init": 0.5, "per": "model"}},
    } | changes


def test_one_gene_for_everything_or_one_per_model() -> None:
    shared = space(parameters={"weight": {"float": [0, 1]}})
    assert read_space(shared, "f", 4).dimension == 1
    assert [g.name for g in read_space(space(), "f", 4).genes] == ["weight[a]", "weight[b]"]


def test_layer_groups_become_slices_with_the_base_among_the_sources() -> None:
    gene = {"float": [0, 1], "per": ["model", "layer_group"]}
    groups = ["embeddings", [0, 2], [2, 4], "head"]
    found = read_space(space(parameters={"weight": gene}, layer_groups=groups), "f", 4)
    assert found.dimension == 8
    assert found.groups == ("embeddings", "layers 0-1", "layers 2-3", "head")
    recipe = found.decode(tuple(index / 8 for index in range(8)))
    ranges = [part.sources[0].layer_range for part in recipe.slices]
    assert ranges == [(0, 0), (0, 2), (2, 4), (4, 4)]
    assert [source.model for source in recipe.slices[1].sources] == ["a", "b", "base"]
    weights = [
        [to_mapping(recipe)["slices"][g]["sources"][m]["parameters"]["weight"] for m in (0, 1)]
        for g in range(4)
    ]
    assert weights == [[0.0, 0.5], [0.125, 0.625], [0.25, 0.75], [0.375, 0.875]]


def test_equal_groups_cover_all_layers() -> None:
    gene = {"float": [0, 1], "per": "layer_group"}
    found = read_space(space(parameters={"weight": gene}, layer_groups=3), "f", 32)
    ranges = [s.sources[0].layer_range for s in found.decode(found.start).slices]
    assert ranges == [(0, 11), (11, 21), (21, 32)]


def test_filters_make_clauses_with_a_rest() -> None:
    gene = {"float": [0, 1], "per": ["filter"]}
    found = read_space(space(parameters={"weight": gene}, filters=["mlp", "attn"]), "f", 4)
    weight = to_mapping(found.decode((0.1, 0.2, 0.3)))["parameters"]["weight"]
    assert weight == [
        {"filter": "mlp", "value": 0.1},
        {"filter": "attn", "value": 0.2},
        {"value": pytest.approx(0.3)},
    ]


def test_gradients_and_genes_inside_lists() -> None:
    gradient = space(parameters={"weight": {"float": [0, 1], "gradient": 3, "per": "model"}})
    assert read_space(gradient, "f", 4).dimension == 6
    inside = space(parameters={"weight": [0.0, {"float": [0, 1], "init": 0.25}]})
    found = read_space(inside, "f", 4)
    assert to_mapping(found.decode(found.start))["parameters"]["weight"] == [0.0, 0.25]


def test_own_parameters_win_over_shared_ones() -> None:
    models = [{"model": "a", "parameters": {"weight": 0.7}}, {"model": "b"}]
    found = read_space(space(models=models), "f", 4)
    assert [gene.name for gene in found.genes] == ["weight[b]"]
    assert to_mapping(found.decode(found.start))["models"][0]["parameters"] == {"weight": 0.7}


def test_a_method_gene_drops_parameters_of_the_other_choices() -> None:
    parameters = {"weight": {"float": [0, 1]}, "density": {"float": [0.1, 1]}}
    method = {"choice": ["ties", "linear"]}
    found = read_space(space(merge_method=method, parameters=parameters), "f", 4)
    at = found.encode(lambda p: "linear" if p.parameter == "merge_method" else None)
    assert to_mapping(found.decode(at))["parameters"].keys() == {"weight"}


@given(st.lists(positions, min_size=2, max_size=2))
def test_encode_finds_the_values_of_a_genotype(genotype: list[float]) -> None:
    found = read_space(space(), "f", 4)
    values = dict(zip(found.places, found.values(tuple(genotype)), strict=True))
    assert found.encode(lambda place: values[place]) == pytest.approx(tuple(genotype))


def test_places_say_where_genes_act() -> None:
    assert read_space(space(), "f", 4).places == (Place("weight", "a"), Place("weight", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"weight": {"float": [1, 0]}}}, "low 1 must be < high 0"),
        ({"parameters": {"weight": {"float": [0, 1], "init": 2}}}, "init 2 must lie in"),
        ({"parameters": {"weight": {"float": [0, 1], "ini": 0}}}, "did you mean 'init'"),
        ({"parameters": {"weight": {"float": [0, 1], "int": [0, 1]}}}, "expected one kind"),
        ({"parameters": {"weight": {"float": [0, 1], "log": True}}}, "log: true needs low > 0"),
        ({"parameters": {"weight": {"int": [0.5, 2]}}}, "expected whole numbers"),
        ({"parameters": {"weight": {"choice": [1]}}}, "expected a list of two or more"),
        ({"parameters": {"density": {"float": [0, 1.5]}}}, r"number in \[0, 1\], got 1.5"),
        ({"parameters": {"weigth": 1}}, "ties has no parameter 'weigth'; did you mean 'weight'"),
        ({"parameters": {"t": 1}}, "ties has no parameter 't'"),
        ({"merge_method": "tie"}, "unknown method 'tie'; did you mean 'ties'"),
        ({"layer_groups": 9}, "expected 1 to 4"),
        ({"layer_groups": [[0, 2], [3, 4]]}, r"expected \[2, end\]"),
        ({"layer_groups": [[0, 2]]}, "expected groups up to layer 4"),
        ({"layer_group": 2}, "unknown key 'layer_group'; did you mean 'layer_groups'"),
        (
            {"parameters": {"weight": {"float": [0, 1], "per": "layer_group"}}},
            "needs 'layer_groups'",
        ),
        ({"parameters": {"weight": {"float": [0, 1], "per": "filter"}}}, "needs 'filters'"),
        ({"parameters": {"lambda": {"float": [0, 1], "per": "model"}}}, "one value for all models"),
        ({"models": [{"model": "a"}, {"model": "a"}]}, "listed twice"),
    ],
)
def test_bad_spaces_are_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_space(space(**change), "file", 4)


def test_blocks_are_parts_of_the_depth_of_each_model_and_parameter() -> None:
    weight = {"float": [0, 1], "per": ["model", "layer_group", "filter"]}
    space = read_space(
        {
            "merge_method": "ties",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "layer_groups": 8,
            "filters": ["mlp"],
            "parameters": {"weight": weight, "density": {"float": [0.1, 1], "per": "model"}},
        },
        "space",
        8,
    )
    blocks = space.blocks(4)
    members: dict[int, list[Place]] = {}
    for block, place in zip(blocks, space.places, strict=True):
        members.setdefault(block, []).append(place)
    weights = [places for places in members.values() if places[0].parameter == "weight"]
    assert len(weights) == 2 * 4
    assert all(len({(p.model, (p.group or 0) // 2) for p in places}) == 1 for places in weights)
    assert len(members) == 2 * 4 + 2
    assert sorted(set(blocks)) == list(range(len(members)))


def test_whole_numbers_and_choices_are_blocks_of_their_own() -> None:
    space = read_space(
        {
            "merge_method": "dare_ties",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "parameters": {
                "weight": {"float": [0, 1]},
                "density": 0.5,
                "seed": {"int": [0, 9]},
                "normalize": {"choice": [False, True]},
            },
        },
        "space",
        None,
    )
    assert len(set(space.blocks(1))) == space.dimension
