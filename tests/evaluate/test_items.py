from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluate.items import content_part, digest, item_ids

docs = st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 2), max_size=2), max_size=12)


@given(docs)
def test_ids_are_unique_and_copies_are_numbered(documents: list[dict[str, int]]) -> None:
    ids = item_ids(documents)
    assert len(set(ids)) == len(documents)
    for item, document in zip(ids, documents, strict=True):
        assert re.fullmatch(r"[0-9a-f]{16}(-[2-9]|-1\d)?", item)
        assert content_part(item) == digest(document)


def test_the_id_is_a_promise() -> None:
    assert item_ids([{"b": 1, "a": "ü"}, {"a": "ü", "b": 1}]) == (
        "4e7ff4080b1a00ac",
        "4e7ff4080b1a00ac-2",
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.arange(3), np.arange(4)),
        (np.float32(0.5), np.float32(0.25)),
        (datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 1)),
        (b"a", b"b"),
    ],
)
def test_values_beyond_json_have_stable_digests(one: Any, other: Any) -> None:
    assert digest({"x": one}) == digest({"x": one}) != digest({"x": other})


def test_a_value_without_stable_text_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"an item holds a object, which has no stable text form"):
        digest({"x": object()})
