from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import InvalidInput
from evomerge.mergekit_reader import from_mapping
from evomerge.recipe import Recipe
from evomerge.stencil import Draw, Stencils

VALUES = (0.25, 0.5, True, 3, "ties", "linear", "float32", 2)
METHOD, DTYPE, END = Draw(4), Draw(6), Draw(7)

settings = st.recursive(
    st.sampled_from([Draw(0), Draw(1), Draw(3), 0.7, 1]),
    lambda inner: st.one_of(
        st.lists(st.sampled_from([Draw(0), Draw(1), 0.1]), min_size=1, max_size=3),
        st.lists(st.fixed_dictionaries({"filter": st.just("mlp"), "value": inner}), min_size=1),
    ),
    max_leaves=3,
)
parameters = st.dictionaries(st.sampled_from(["weight", "density", "lambda"]), settings)
entries = st.fixed_dictionaries(
    {"model": st.sampled_from("abc")}, optional={"parameters": st.none() | parameters}
)
slices = st.fixed_dictionaries(
    {
        "sources": st.lists(
            entries.map(lambda entry: entry | {"layer_range": [0, END]}), min_size=1, max_size=3
        )
    },
    optional={"parameters": parameters, "base_model": st.just("a")},
)
bodies = st.fixed_dictionaries({"models": st.lists(entries, min_size=1)}) | st.fixed_dictionaries(
    {"slices": st.lists(slices, min_size=1, max_size=3)}
)
templates = st.builds(
    lambda body, top: body | top,
    bodies,
    st.fixed_dictionaries(
        {"merge_method": st.sampled_from([METHOD, "ties"])},
        optional={"parameters": parameters, "dtype": st.just(DTYPE), "base_model": st.just("a")},
    ),
)


def written_out(template: Any, values: tuple[Any, ...]) -> Any:
    if isinstance(template, Draw):
        return values[template.gene]
    if isinstance(template, dict):
        return {key: written_out(entry, values) for key, entry in template.items()}
    if isinstance(template, list):
        return [written_out(entry, values) for entry in template]
    return template


def outcome(recipe: Any) -> Recipe | bool:
    """A recipe, or that there is none."""
    try:
        found: Recipe = recipe()
    except InvalidInput:
        return False
    return found


@given(templates, st.lists(st.permutations(range(len(VALUES))), min_size=1, max_size=4))
def test_a_stencil_reads_what_the_whole_recipe_would(
    template: dict[str, Any], orders: list[list[int]]
) -> None:
    """Whatever the genes say, sense or nonsense, and whatever the stencils have seen before."""
    stencils = Stencils(template)
    for order in ([*range(len(VALUES))], *orders):
        values = tuple(VALUES[place] for place in order)
        whole = outcome(lambda: from_mapping(written_out(template, values), "f"))  # noqa: B023
        assert outcome(lambda: stencils.filled(values)) == whole  # noqa: B023
        if isinstance(whole, Recipe):
            assert stencils.filled(values).digest == whole.digest


def test_true_and_one_are_different_shapes() -> None:
    stencils = Stencils({"merge_method": "linear", "models": [{"model": "a"}], "dtype": Draw(0)})
    for value in (1, True, 1.0):
        with pytest.raises(InvalidInput, match=f"search space: dtype: unknown dtype '{value}'"):
            stencils.filled((value,))


def test_more_shapes_than_are_kept() -> None:
    """Half of these are made again."""
    source = {"model": "a", "layer_range": [0, Draw(0)], "parameters": {"weight": Draw(1)}}
    stencils = Stencils({"merge_method": "linear", "slices": [{"sources": [source]}]})
    for end in (*range(100), *range(100)):
        (part,) = stencils.filled((end, end / 100)).slices
        assert part.sources[0].layer_range == (0, end)
        assert part.sources[0].parameters.settings[0][1].at("x", 0.0) == end / 100


def test_what_a_recipe_knows_of_itself_is_not_part_of_it() -> None:
    template = {"merge_method": "linear", "models": [{"model": "a"}]}
    asked, fresh = from_mapping(template, "f"), from_mapping(template, "f")
    assert len(asked.digest) == 16  # and remembered
    one, other = (Recipe("linear", asked.models, nested=(("x", r),)) for r in (asked, fresh))
    assert one.digest == other.digest
    assert one == other
