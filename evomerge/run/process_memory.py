"""How much memory this process holds: now, and at most while something runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_EVERY = 0.02


@dataclass
class Held:
    """Bytes that a process holds of its own, and of files that it maps (stateful while watched).

    Workers of one machine share what they map: libraries and parents.
    """

    own: int
    mapped: int


def held(status: Path = _STATUS) -> Held:
    """What this process holds now; where the kernel does not tell files apart, all is its own."""
    if sys.platform != "linux":
        return Held(int(psutil.Process().memory_info().rss), 0)
    values = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
    own, mapped = (int(values[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))
    return Held(own, mapped)


@contextmanager
def watched() -> Iterator[Held]:
    """The most that this process holds while the block runs, seen fifty times a second."""
    most, ended = held(), threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY):
            _raise(most)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()
        _raise(most)


def _raise(most: Held) -> None:
    now = held()
    most.own, most.mapped = max(most.own, now.own), max(most.mapped, now.mapped)
