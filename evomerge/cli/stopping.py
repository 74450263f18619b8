"""What SIGINT and SIGTERM do to a search: the first one stops it in good order, the second at once.

Good order means: while evaluations are under way, nothing new begins and what is under way is
recorded; in every other phase the phase is abandoned. Both end in exit code 75.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

from evomerge.errors import Interrupted

_AT_ONCE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h\n"


class _Stop(KeyboardInterrupt):
    """Ends a phase that cannot be drained; no library swallows it."""


@final
class Stopping:
    """Whether somebody asked for the end (stateful: changed by signals)."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._drains = False
        self._signals = 0

    @contextmanager
    def draining(self) -> Iterator[threading.Event]:
        """Inside, the first signal only sets the event: whoever is inside stops by himself."""
        self._listen()  # a library may have put its own in place meanwhile
        self._drains = True
        try:
            yield self.requested
        finally:
            self._drains = False
        if self.requested.is_set():  # too late for what was inside
            raise _Stop

    def _listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signals += 1
        if self._signals > 1:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            os._exit(_AT_ONCE)
        self.requested.set()
        if not self._drains:
            raise _Stop


@contextmanager
def stopping_on_signals() -> Iterator[Stopping]:
    """Inside, signals stop what is going on as the module says.

    Raises:
        Interrupted: they did; the run can be continued.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    stopping = Stopping()
    stopping._listen()
    try:
        yield stopping
    except _Stop:
        raise Interrupted(
            "interrupted; finished work is saved, the same command continues"
        ) from None
    finally:
        for number, action in before.items():
            signal.signal(number, action)
