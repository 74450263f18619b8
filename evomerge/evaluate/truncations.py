"""Which generated answers were cut off: pairs what HFLM generates with what it was asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, final


@final
class Truncations:
    """Stands in for lm-eval's cache, which learns of every answer with its request (stateful).

    HFLM generates in batches of its own making and order, and shows each answer to the cache right
    after its batch, in the order of the batch's rows.
    """

    def __init__(self) -> None:
        self._rows: deque[bool] = deque()
        self._requests: set[str] = set()

    def clear(self) -> None:
        """Forget everything; also what a call that was broken off has left."""
        self._rows.clear()
        self._requests.clear()

    def generated(self, rows: Iterable[bool]) -> None:
        """Take whether each row of a batch was cut off."""
        self._rows.extend(rows)

    def has(self, request: tuple[Any, ...]) -> bool:
        """Whether an answer to this request was cut off."""
        return _key(request) in self._requests

    def add_partial(self, attr: str, req: tuple[Any, ...], res: Any) -> None:
        """Called by lm-eval with every answer."""
        del res
        if attr == "generate_until" and self._rows.popleft():
            self._requests.add(_key(req))


def _key(request: tuple[Any, ...]) -> str:
    return json.dumps(request, sort_keys=True, default=repr)
