"""Bounds on what a stranger's template or pattern may cost: processor time and memory."""

from __future__ import annotations

import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN = 0.1
"""Seconds until the next try, should somebody have swallowed the exception."""


class Exhausted(Exception):
    """It took more than it may; the message says of what."""


@contextmanager
def limited(seconds: float, mib: int | None = None) -> Iterator[None]:
    """Let the block use this much processor time and, on Linux, this much more memory.

    Python checks for signals in loops, in regular expressions and in products of long numbers, so
    none of these goes on. Processor time, not wall time: a busy machine changes no verdict. Only
    the main thread can be interrupted; in others there is no limit of time.

    Raises:
        Exhausted: the block used more.
    """
    timed = threading.current_thread() is threading.main_thread()
    before = resource.getrlimit(resource.RLIMIT_AS)
    if timed:
        handler = signal.signal(signal.SIGVTALRM, _stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _AGAIN)
    try:
        if mib is not None and sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (_at_most(mib, *before), before[1]))
        yield
    except MemoryError as error:
        raise Exhausted(f"more than {mib} MiB of memory") from error
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _stop(number: int, frame: object) -> None:
    del number, frame
    raise Exhausted("more processor time than it may")


def _at_most(mib: int, soft: int, hard: int) -> int:
    """Now and `mib` more, below the limits that there are anyway."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    return min([used + mib * 2**20, *given])
