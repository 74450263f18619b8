"""The main function of a worker process of the local pool."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import pickle
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from evomerge.candidate import Lost
from evomerge.run.pools.serving import StartFailure, answer, start, started

_PR_SET_PDEATHSIG = 1


def serve(
    pipe: Connection,
    driver: int,
    environment: Mapping[str, str],
    memory: int | None,
    log: str | None,
) -> None:
    """Make a worker and answer assignments until the driver is gone.

    The driver sends pickled assignments, or an empty message that asks for a sign of life.
    """
    die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)  # before the factory's modules are imported: they read it then
    _redirect(log)
    if memory is not None:
        # A request beyond it fails in this process, where the candidate can be named; without it
        # the kernel kills some process of the machine.
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    # tqdm would make a lock that all processes share, and a killed process cannot give it back
    tqdm.set_lock(threading.RLock())
    code = 1
    try:
        code = _answer_all(pipe)
    except (EOFError, ConnectionError):
        code = 0  # the driver closed the pipe or died: not worth a traceback
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # nothing here needs cleaning up, and exit handlers of libraries can hang


def _answer_all(pipe: Connection) -> int:
    worker = start(pipe.recv_bytes())
    if isinstance(worker, StartFailure):
        pipe.send(worker)
        return 1
    pipe.send(started())
    while True:
        message = pipe.recv_bytes()
        if not message:
            pipe.send(started())
            continue
        outcome = answer(worker, pickle.loads(message))
        pipe.send(outcome)
        if isinstance(outcome, Lost):
            return 1


def die_with(driver: int) -> None:
    """Have the kernel kill this process when its parent dies, even from kill -9 and while busy.

    The parent is the process `driver`, or more exactly the thread of it that started this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:
        os._exit(0)  # it died before the line above


def _redirect(log: str | None) -> None:
    """Keep standard output clean: it belongs to the driver's results."""
    if log is not None:
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:  # a full disk
            file = os.open(os.devnull, os.O_WRONLY)
        os.dup2(file, 2)
        os.close(file)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = io.TextIOWrapper(
        _Forgiving(2, "wb", closefd=False), errors="backslashreplace", write_through=True
    )
    faulthandler.enable(file=2)


class _Forgiving(io.FileIO):
    """Loses what a full disk does not take: no candidate fails because of a log."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            super().write(data)
        return len(data)
