"""One driver per run directory: a file lock that the kernel frees when its owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO, final

from evomerge.errors import RunLocked

LOCK = "LOCK"


@final
class RunLock:
    """The held lock of a run directory; released by `release` or by the death of the process."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def acquire(cls, run_dir: Path) -> RunLock:
        """Take the lock without waiting; raises RunLocked with the owner's process id and host."""
        path = run_dir / LOCK
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "an unknown process"
            file.close()
            raise RunLocked(
                f"{run_dir}: another evomerge process drives this run ({owner} holds {path}); "
                "wait until it ends, stop it, or choose another run directory"
            ) from error
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        return cls(file)

    def release(self) -> None:
        """Free the lock; the file stays, because deleting it would let two owners in at once."""
        if not self._file.closed:
            self._file.truncate(0)  # the process id may belong to somebody else tomorrow
            self._file.close()


def is_locked(run_dir: Path) -> bool:
    """Whether a process of this machine drives the run, judged by the owner that LOCK names.

    Nothing is locked to find out: a reader must not get in the way of a driver that starts.
    """
    path = run_dir / LOCK
    try:
        words = path.read_text(encoding="utf-8").split()
        pid, host = int(words[1]), words[3]
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    return host == socket.gethostname()
