from __future__ import annotations

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from evomerge.errors import InvalidInput
from evomerge.search.first_paths import first_paths
from evomerge.stack import Segment, normal
from evomerge.stack_space import Slots, StackSpace


def space(**changes: Any) -> StackSpace:
    settings: dict[str, Any] = {
        "slots": Slots((("a", 80), ("b", 80)), 2),
        "donor": "a",
        "fewest": 40,
        "most": 120,
    }
    return StackSpace(**(settings | changes))


def test_known_stacks() -> None:
    found = first_paths(space())
    assert found[0] == (Segment("a", 0, 80),)
    assert found[1] == (Segment("a", 0, 1), Segment("b", 1, 79), Segment("a", 79, 80))
    assert (Segment("a", 0, 60), Segment("a", 20, 80)) in found  # SOLAR
    assert (Segment("a", 0, 43), Segment("a", 36, 80)) in found  # 7 layers from 0.45 of the depth
    assert (Segment("a", 0, 40), Segment("b", 20, 60), Segment("a", 40, 80)) in found


def test_goliath_needs_more_repeats_and_layers() -> None:
    blocks = tuple(Segment("ab"[n % 2], 8 * n, 8 * n + 16) for n in range(9))
    assert blocks not in first_paths(space())
    roomy = space(slots=Slots((("a", 80), ("b", 80)), 5), most=160)
    assert blocks in first_paths(roomy)


def test_parents_of_other_depth_are_aligned() -> None:
    found = first_paths(space(slots=Slots((("a", 80), ("b", 40)), 2)))
    assert (Segment("a", 0, 1), Segment("b", 0, 40), Segment("a", 79, 80)) in found
    assert (Segment("a", 0, 27), Segment("b", 14, 26), Segment("a", 53, 80)) in found


def test_under_limits_only_what_keeps_them() -> None:
    assert first_paths(space(most=80)) == (
        (Segment("a", 0, 80),),
        (Segment("a", 0, 1), Segment("b", 1, 79), Segment("a", 79, 80)),
        (Segment("a", 0, 27), Segment("b", 27, 53), Segment("a", 53, 80)),
    )


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 8),
    st.integers(2, 16),
    st.booleans(),
)
def test_every_space_has_a_first_path(
    layers: list[int], repeats: int, fewest: int, most: int, fixed: bool
) -> None:
    slots = Slots(tuple(zip("abc", layers, strict=False)), repeats)
    try:
        one = StackSpace(slots, "a", fewest, most, fixed_ends=fixed)
    except InvalidInput:
        assume(False)
        raise
    found = first_paths(one)
    assert found
    assert len(set(found)) == len(found)
    for path in found:
        encoded = one.encode(path)
        assert encoded is not None
        assert one.path(encoded) == path == normal(path)
