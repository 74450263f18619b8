from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evomerge.run.room import Room


@given(
    costs=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    candidates=st.none() | st.integers(0, 80),
    items=st.none() | st.floats(0.0, 300.0),
)
def test_neither_limit_is_passed_and_none_is_wasted(
    costs: list[int], candidates: int | None, items: float | None
) -> None:
    room = Room(candidates, items, lambda index: costs[index])
    taken = 0
    while taken < len(costs) and room.for_candidate(taken):
        taken += 1
    assert candidates is None or taken <= candidates
    assert items is None or sum(costs[:taken]) <= items
    if taken < len(costs):
        full = candidates is not None and taken == candidates
        assert full or (items is not None and sum(costs[: taken + 1]) > items)
        assert not room.for_candidate(taken)


def test_what_to_expect() -> None:
    assert Room(None, 100.0, lambda _: 30).expected == 3
    assert Room(2, 100.0, lambda _: 30).expected == 2
    assert Room(-5, None, lambda _: 30).expected == 0
    assert Room(None, -5.0, lambda _: 30).expected == 0
