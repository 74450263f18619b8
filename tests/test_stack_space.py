from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evomerge.errors import InvalidInput
from evomerge.stack import Path, Segment, hops, normal, path_of
from evomerge.stack_space import Slots, StackSpace, paper_start
from evomerge.weights.recipe_rules import validate_recipe


def space(**changes: Any) -> StackSpace:
    settings: dict[str, Any] = {
        "slots": Slots((("b", 5), ("a", 6)), 3),
        "donor": "a",
        "fewest": 3,
        "most": 14,
    }
    return StackSpace(**(settings | changes))


@st.composite
def spaces(draw: st.DrawFn) -> StackSpace:
    layers = draw(st.lists(st.integers(2, 6), min_size=1, max_size=3))
    models = tuple((name, count) for name, count in zip("abc", layers, strict=False))
    slots = Slots(models, draw(st.integers(1, 4)))
    fewest = draw(st.integers(0, 8))
    settings = {
        "slots": slots,
        "donor": draw(st.sampled_from([name for name, _ in models])),
        "fewest": fewest,
        "most": draw(st.integers(max(fewest, 2), 16)),
        "gains": draw(st.sampled_from([(0.7, 1.5), (1.0, 1.0), (0.33333, 1.0), (1.0, 2.0)])),
        "fixed_ends": draw(st.booleans()),
    }
    try:
        return StackSpace(**settings)
    except InvalidInput:
        assume(False)
        raise


def genotypes(of: StackSpace) -> st.SearchStrategy[tuple[float, ...]]:
    # few values, so that there are ties
    position = st.sampled_from([0.0, 0.3, 0.5, 0.5000001, 0.8, 1.0]) | st.floats(0, 1)
    return st.lists(position, min_size=of.dimension, max_size=of.dimension).map(tuple)


@given(st.data())
def test_every_vector_is_a_stack_within_the_limits_and_comes_back(data: st.DataObject) -> None:
    one = data.draw(spaces())
    path = one.path(data.draw(genotypes(one)))
    along = hops(path)
    assert one.fewest <= len(along) <= one.most
    assert "a" not in one.parents or one.donor in {hop.model for hop in along}
    if one.fixed_ends:
        last = one.slots.depth(one.donor) - 1
        assert (along[0][:2], along[-1][:2]) == ((one.donor, 0), (one.donor, last))
    for before, hop in pairwise(along):
        assert one.gains[0] <= hop.gain <= one.gains[1]
        assert hop.gain == 1.0 or before[:2] != (hop.model, hop.layer - 1)
    encoded = one.encode(path)
    assert encoded is not None
    assert one.path(encoded) == path == normal(path)
    assert one.encode(one.path(encoded)) == encoded
    recipe = one.decode(encoded)
    assert path_of(recipe) == path
    assert validate_recipe(recipe) == []


@given(st.data())
def test_encoding_any_path_is_exact_or_refused(data: st.DataObject) -> None:
    one = data.draw(spaces())
    segments: list[Segment] = []
    for _ in range(data.draw(st.integers(1, 5))):
        model, depth = data.draw(st.sampled_from(one.slots.models))
        start = data.draw(st.integers(0, depth - 1))
        gain = data.draw(st.sampled_from([1.0, 1.0, 0.8, 1.23456]))
        segments.append(Segment(model, start, data.draw(st.integers(start, depth)), gain))
    path = tuple(segments)
    encoded = one.encode(path)
    assert encoded is None or one.path(encoded) == normal(path)


@given(st.data())
def test_the_path_needs_as_many_repeats_as_it_goes_back(data: st.DataObject) -> None:
    """Free ends and no limits: a path fits exactly when its descents are fewer than the repeats."""
    one = space(fixed_ends=False, fewest=0, most=99)
    order = {layer: index for index, layer in enumerate(one.slots.layers)}
    chosen = data.draw(st.lists(st.sampled_from(one.slots.layers), min_size=1, max_size=12))
    descents = sum(order[b] <= order[a] for a, b in pairwise(chosen))
    path = tuple(Segment(model, layer, layer + 1) for model, layer in chosen)
    fits = descents < one.slots.repeats and any(model == "a" for model, _ in chosen)
    assert (one.encode(path) is not None) == fits


def test_start_is_the_donor() -> None:
    assert space().path(space().start) == (Segment("a", 0, 6),)
    assert space().decode(space().start).donor == "a"
    assert len(space().start) == space().dimension == 66


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((8, 9), (Segment("a", 0, 4), Segment("a", 2, 6))),
        ((2, 3), (Segment("a", 0, 2), Segment("a", 5, 6))),
        ((12, 14), (Segment("a", 0, 6), Segment("a", 0, 6))),
    ],
)
def test_start_under_limits_is_the_donor_stretched_or_cut(
    limits: tuple[int, int], expected: Path
) -> None:
    one = space(fewest=limits[0], most=limits[1])
    assert one.path(one.start) == expected


def test_least_certain_slots_go_and_most_certain_come() -> None:
    one = StackSpace(Slots((("a", 6),), 1), "a", 4, 5)
    gains = (0.5,) * 6
    assert one.path((0.0, 0.9, 0.6, 0.6, 0.7, 0.0, *gains)) == (
        Segment("a", 0, 3),
        Segment("a", 4, 6, one.gain(0.5)),
    )
    assert one.path((0.0, 0.1, 0.2, 0.2, 0.9, 0.0, *gains)) == (
        Segment("a", 0, 1),
        Segment("a", 2, 3, one.gain(0.5)),
        Segment("a", 4, 6, one.gain(0.5)),
    )


def test_gains_act_only_at_seams() -> None:
    one = space()
    slots = one.slots.count
    path = (Segment("a", 0, 4), Segment("a", 2, 6, 1.25))
    encoded = one.encode(path)
    assert encoded is not None
    changed = [place for place in range(slots, 2 * slots) if encoded[place] != one.start[place]]
    assert len(changed) == 1
    elsewhere = tuple(
        u if place in changed or place < slots else 0.99 for place, u in enumerate(encoded)
    )
    assert one.path(elsewhere) == path
    assert (one.gain(0.0), one.gain(1.0)) == (0.7, 1.5)


@pytest.mark.parametrize(
    "path",
    [
        (Segment("a", 0, 3), Segment("a", 3, 6, 1.2)),
        (Segment("a", 0, 4), Segment("a", 2, 6, 1.6)),
        (Segment("a", 0, 4), Segment("a", 2, 6, 1.23456)),
        (Segment("a", 0, 4), Segment("b", 2, 5)),
        (Segment("b", 0, 4), Segment("a", 2, 6)),
        (Segment("a", 0, 6), *(Segment("a", n, 6) for n in (4, 4, 4))),
        (Segment("a", 0, 1), Segment("a", 5, 6)),
        (Segment("a", 0, 6), Segment("a", 0, 6), Segment("a", 3, 6)),
        (Segment("a", 0, 7), Segment("a", 5, 6)),
        (Segment("c", 0, 3),),
    ],
)
def test_what_has_no_genotype(path: Path) -> None:
    assert space().encode(path) is None


def test_the_encoding_of_the_paper() -> None:
    one = space()
    start = paper_start(one, 0.1)
    slots = one.slots.count
    assert {u for u, on in zip(start, one.start, strict=True) if on == 1.0} == {0.7}
    assert set(start[:slots]) == {0.5, 0.7}
    assert start[slots:] == one.start[slots:]
    assert one.path(start) == one.path(one.start)
    assert max(paper_start(one, 1 / 3)) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": Slots((("a", 40), ("b", 40)), 52)}, "at most 4096, got 4160"),
        ({"slots": Slots((("a", 6),), 0)}, "repeats: expected 1 or more, got 0"),
        ({"slots": Slots((("a", 6), ("a", 6)), 1)}, "'a' occurs 2 times"),
        ({"slots": Slots((("a", 6), ("b", 0)), 1)}, "'b': expected at least one layer, got 0"),
        ({"slots": Slots((("a", 1), ("b", 5)), 2)}, "has one layer"),
        ({"donor": "math"}, "'math' gives embeddings"),
        ({"fewest": 9, "most": 8}, "no stack has 9 to 8 layers"),
        ({"fewest": 0, "most": 1}, "no stack has 0 to 1 layers"),
        ({"fewest": 29, "most": 40}, "no stack has 29 to 40 layers, as these slots allow 2 to 28"),
        ({"gains": (0.0, 1.5)}, r"got \[0, 1.5\]"),
        ({"gains": (1.1, 1.5)}, "a gain of 1 must be possible"),
    ],
)
def test_spaces_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        space(**changes)
    assert len(caught.value.problems) == 1


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput, match="gives embeddings") as caught:
        space(donor="x", gains=(2.0, 1.0), slots=Slots((("a", 3),), 5000))
    assert len(caught.value.problems) == 3


def test_a_large_space_decodes() -> None:
    one = StackSpace(Slots((("a", 64), ("b", 64)), 32), "a", 1, 4096)
    assert one.slots.count == 4096
    assert len(hops(one.path((0.9,) * one.dimension))) == 4096 - 64
