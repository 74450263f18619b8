from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.search import stack_edits
from evomerge.search.stack_edits import EDITS, LONGEST_BLOCK, Edit, aligned, crossover
from evomerge.stack import Path, Segment, hops, normal
from evomerge.stack_space import Slots, StackSpace

SPACE = StackSpace(Slots((("a", 12), ("b", 6)), 3), "a", 2, 30)
OWN: Path = (Segment("a", 0, 12),)


@st.composite
def paths(draw: st.DrawFn) -> Path:
    """Any path of the space, whole numbers of layers in few segments."""
    found = [Segment("a", 0, draw(st.integers(1, 12)))]
    for _ in range(draw(st.integers(0, 3))):
        model, depth = draw(st.sampled_from(SPACE.slots.models))
        start = draw(st.integers(0, depth - 1))
        gain = draw(st.sampled_from([1.0, 0.8, 1.2]))
        found.append(Segment(model, start, draw(st.integers(start + 1, depth)), gain))
    return stack_edits._settled(tuple(found))


rngs = st.integers(0, 2**32).map(np.random.default_rng)


def sound(path: Path) -> None:
    """Layers that exist, in normal form, gains in range and at seams only."""
    assert path == normal(path)
    assert all(0 <= hop.layer < SPACE.slots.depth(hop.model) for hop in hops(path))
    assert all(SPACE.gains[0] <= hop.gain <= SPACE.gains[1] for hop in hops(path))
    for before, hop in pairwise(hops(path)):
        assert hop.gain == 1.0 or before[:2] != (hop.model, hop.layer - 1)


@pytest.mark.parametrize("edit", [edit for edit, _ in EDITS])
@given(path=paths(), rng=rngs)
def test_edits_keep_paths_sound(edit: Edit, path: Path, rng: np.random.Generator) -> None:
    edited = edit(path, SPACE, rng)
    if edited is not None:
        sound(edited)


@given(path=paths(), other=paths(), rng=rngs)
def test_children_of_two_are_sound_and_of_their_parents(
    path: Path, other: Path, rng: np.random.Generator
) -> None:
    child = crossover(path, other, SPACE, rng)
    sound(child)
    theirs = {hop[:2] for hop in (*hops(path), *hops(other))}
    assert {hop[:2] for hop in hops(child)} <= theirs


@given(rng=rngs)
def test_a_whole_model_crossed_with_itself_is_itself(rng: np.random.Generator) -> None:
    assert crossover(OWN, OWN, SPACE, rng) == OWN


@given(rng=rngs)
def test_crossover_keeps_the_depth(rng: np.random.Generator) -> None:
    """Cuts of two whole models of 12 and 6 layers meet at most a layer of each apart."""
    child = crossover(OWN, (Segment("b", 0, 6),), SPACE, rng)
    assert len(child) <= 3
    for before, after in pairwise(child):
        end = before.end / SPACE.slots.depth(before.model)
        assert abs(after.start / SPACE.slots.depth(after.model) - end) <= 1 / 6 + 1e-9


@given(rng=rngs)
def test_a_block_of_the_middle_comes_twice(rng: np.random.Generator) -> None:
    first, second = stack_edits.repeat_block(OWN, SPACE, rng) or ()
    assert (first.start, second.end) == (0, 12)
    assert 3 <= second.start < first.end <= 9
    assert first.end - second.start <= LONGEST_BLOCK
    assert second.gain == 1.0


@given(rng=rngs)
def test_a_switch_keeps_depth_and_ends(rng: np.random.Generator) -> None:
    path = stack_edits.switch_source(OWN, SPACE, rng) or ()
    assert len(path) <= 3
    inner = [part for part in path if part.model == "b"]
    outer = 12 - sum(part.end - part.start for part in path if part.model == "a")
    for part in inner:
        assert abs((part.end - part.start) * 2 - outer) <= 2


def test_aligned_parts_meet() -> None:
    parts = [aligned("a", cut, cut + 3, "b", SPACE) for cut in range(0, 12, 3)]
    assert normal(tuple(parts)) == (Segment("b", 0, 6),)


@given(rng=rngs)
def test_one_layer_goes_or_comes_back(rng: np.random.Generator) -> None:
    path: Path = (Segment("a", 0, 5), Segment("a", 7, 12, 1.2))
    edited = stack_edits.drop_or_undo(path, SPACE, rng)
    assert edited is not None
    count = len(hops(edited))
    assert count in (9, 11)
    if count == 11:
        assert edited == (Segment("a", 0, 6), Segment("a", 7, 12, 1.2))


@given(rng=rngs)
def test_seams_move_by_one_or_two(rng: np.random.Generator) -> None:
    path: Path = (Segment("a", 0, 8), Segment("a", 4, 12, 1.1))
    first, second = stack_edits.shift_seam(path, SPACE, rng) or ()
    moved = (first.end - 8, second.start - 4)
    assert {abs(step) for step in moved} in ({0, 1}, {0, 2}, {1}, {2})
    assert second.gain == 1.1


@given(rng=rngs)
def test_only_a_gain_changes(rng: np.random.Generator) -> None:
    path: Path = (Segment("a", 0, 8), Segment("a", 4, 12, 1.49))
    first, second = stack_edits.jitter_gain(path, SPACE, rng) or ()
    assert (first, (second.start, second.end)) == (path[0], (4, 12))
    assert SPACE.encode((first, second)) is not None


def test_what_has_no_seam_has_none_to_change() -> None:
    rng = np.random.default_rng(0)
    assert stack_edits.shift_seam(OWN, SPACE, rng) is None
    assert stack_edits.jitter_gain(OWN, SPACE, rng) is None
    alone = StackSpace(Slots((("a", 12),), 2), "a", 2, 18)
    assert stack_edits.switch_source(OWN, alone, rng) is None


def test_the_shares_of_edits_leave_room_for_crossover() -> None:
    assert 1.0 - sum(weight for _, weight in EDITS) == pytest.approx(0.1)
