from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evomerge.mergekit_reader import from_mapping
from evomerge.mergekit_yaml import to_mapping
from evomerge.recipe import Recipe, Source
from evomerge.stack import Hop, Path, Segment, hops, normal, path_along, path_of, recipe_of
from evomerge.weights.recipe_rules import validate_recipe

MODELS = ("a", "b", "c")


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    start = draw(st.integers(0, 12))
    gain = draw(st.just(1.0) | st.floats(0.1, 3.0))
    return Segment(draw(st.sampled_from(MODELS)), start, start + draw(st.integers(0, 4)), gain)


paths = st.lists(segments(), min_size=1, max_size=8).map(tuple).filter(normal)


def recipe(path: Path) -> Recipe:
    return recipe_of(path, donor=normal(path)[0].model, scale_mode="stream", dtype="bfloat16")


@given(paths)
def test_recipes_keep_paths(path: Path) -> None:
    assert path_of(recipe(path)) == normal(path)


@given(paths)
def test_recipes_of_paths_are_valid_and_survive_a_file(path: Path) -> None:
    written = recipe(path)
    assert validate_recipe(written) == []
    assert from_mapping(to_mapping(written), "test") == written


@given(paths)
def test_the_normal_form_has_the_same_hops_and_is_unique(path: Path) -> None:
    tidy = normal(path)
    assert normal(tidy) == tidy
    assert path_along(hops(path)) == tidy
    layers = [(s.model, n) for s in path for n in range(s.start, s.end)]
    assert [(hop.model, hop.layer) for hop in hops(path)] == layers
    cut = tuple(
        piece
        for s in tidy
        for piece in (
            Segment(s.model, s.start, s.start + 1, s.gain),
            Segment(s.model, s.start + 1, s.end),
        )
    )
    assert normal(cut) == tidy


def test_hops_by_example() -> None:
    path = (
        Segment("a", 0, 2, gain=1.4),
        Segment("a", 2, 3),
        Segment("b", 5, 5, gain=1.3),
        Segment("b", 1, 3, gain=0.8),
        Segment("b", 3, 4, gain=1.1),
    )
    assert hops(path) == (
        Hop("a", 0),
        Hop("a", 1),
        Hop("a", 2),
        Hop("b", 1, 0.8),
        Hop("b", 2),
        Hop("b", 3, 1.1),
    )
    assert normal(path)[0] == Segment("a", 0, 3)


def test_only_used_recipes_are_nested() -> None:
    one = Recipe("linear", models=(Source("x"), Source("y")))
    nested = (("b", one), ("a", one), ("z", one))
    written = recipe_of(
        (Segment("a", 0, 4), Segment("b", 2, 4)),
        donor="a",
        scale_mode="mlp_delta",
        dtype=None,
        nested=nested,
    )
    assert written.nested == (("a", one), ("b", one))
    assert written.stored_models() == ("x", "y")


def test_a_scale_at_the_slice_counts_as_well() -> None:
    mapping = {
        "merge_method": "stack",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, 3]}]},
            {"sources": [{"model": "a", "layer_range": [2, 4]}], "parameters": {"scale": 1.25}},
        ],
    }
    assert path_of(from_mapping(mapping, "test"))[1] == Segment("a", 2, 4, 1.25)
