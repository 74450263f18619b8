"""Finds JSON data nested so deeply that the parser of the datasets package would crash over it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

MAX_DEPTH = 1000
"""Arrow's parser calls itself for every level; some ten thousand end the process."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKET = re.compile(rb"[\[{]|[\]}]")


def too_deep(path: Path) -> bool:
    """Whether lists and objects in the file at `path` are nested more than `MAX_DEPTH` deep."""
    with path.open("rb") as file:
        return _too_deep(file)


def _too_deep(lines: Iterable[bytes]) -> bool:
    depth = 0
    for line in lines:
        plain = _STRING.sub(b"", line)  # a string of JSON does not go over several lines
        opened = plain.count(b"[") + plain.count(b"{")
        if depth + opened > MAX_DEPTH and depth + _deepest(plain) > MAX_DEPTH:
            return True
        depth = max(0, depth + opened - plain.count(b"]") - plain.count(b"}"))
    return False


def _deepest(plain: bytes) -> int:
    depth = deepest = 0
    for match in _BRACKET.finditer(plain):
        depth += 1 if match[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
