"""Names items after their content, so that an id means the same item in every run and order."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

ID_LENGTH = 16
"""Hex digits of an id: 64 bits, so a clash among a million items has odds of 1 in 37 million."""


def item_ids(docs: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """One id per document, in the documents' order.

    An id is the start of the SHA-256 of the document as canonical JSON; the second copy of the
    same document gets "-2" appended, the third "-3".

    Raises:
        TypeError: a document holds a value that has no stable text form.
    """
    copies: Counter[str] = Counter()
    ids: list[str] = []
    for doc in docs:
        content = digest(doc)
        copies[content] += 1
        ids.append(content if copies[content] == 1 else f"{content}-{copies[content]}")
    return tuple(ids)


def content_part(item: str) -> str:
    """The part of an id that follows from the content; copies of one document share it."""
    return item.partition("-")[0]


def digest(value: Any) -> str:
    """The id of any JSON-like value, numpy arrays, dates, bytes and images included."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if hasattr(value, "tobytes") and hasattr(value, "mode"):  # an image of Pillow
        return {"image": [value.mode, *value.size, hashlib.sha256(value.tobytes()).hexdigest()]}
    raise TypeError(f"an item holds a {type(value).__name__}, which has no stable text form")
