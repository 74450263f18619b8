"""The worker's end of every pool: what it runs, and what it says to the driver."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from dataclasses import dataclass

from evomerge.candidate import Assignment, Failed, Lost, Scored
from evomerge.errors import DISK_FULL, DiskFull, EvomergeError
from evomerge.offline import forget_tokens, go_offline
from evomerge.run.pool import EvaluatingWorker

_LONGEST_LINE = 500


@dataclass(frozen=True)
class Started:
    """The worker is ready, or still there after having been asked; `name` tells people where."""

    name: str


@dataclass(frozen=True)
class StartFailure:
    """Why a worker could not be made.

    Attributes:
        problems: one line each.
        error: the class of a user's error, else None.
        elsewhere: the reason is one node's, and there are others for the next worker.
    """

    problems: tuple[str, ...]
    error: type[EvomergeError] | None = None
    elsewhere: bool = False


Message = Started | StartFailure | Scored | Failed | Lost
"""What a worker may say. It speaks only when asked, and after StartFailure or Lost never again."""


def started() -> Started:
    """The sign of life of the worker in this process."""
    return Started(f"{socket.gethostname()}:{os.getpid()}")


def start(pickled_factory: bytes) -> EvaluatingWorker | StartFailure:
    """Make a worker from a pickled factory, which comes from our own driver and nobody else."""
    go_offline()  # a process of a cluster does not inherit the driver's environment
    forget_tokens()
    try:
        worker: EvaluatingWorker = pickle.loads(pickled_factory)()
    except Exception as error:  # whatever it is, the driver decides
        return start_failure(error)
    return worker


def start_failure(error: Exception) -> StartFailure:
    """The error as values that survive the way to the driver; a traceback goes to the log."""
    if isinstance(error, EvomergeError):
        return StartFailure(error.problems, type(error))
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return StartFailure(DiskFull.of(error).problems, DiskFull)
    traceback.print_exception(error, file=sys.stderr)
    return StartFailure((one_line(error),))


def answer(worker: EvaluatingWorker, assignment: Assignment) -> Scored | Failed | Lost:
    """The worker's outcome; Lost when it raised, after which the worker must not be used."""
    try:
        return worker.evaluate(assignment)
    except Exception as error:  # by contract: this worker is broken, the candidate is not
        traceback.print_exception(error, file=sys.stderr)
        return Lost(f"the worker broke: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """An exception as one line of bounded length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 3]}..."
