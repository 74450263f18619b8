"""One driver per run directory: a file lock, and a lease for file systems without any.

The kernel frees the file lock when its owner dies. Between machines it may not exist, so the owner
also touches LOCK every few seconds, and looks before every write whether LOCK still names it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from evomerge.errors import Interrupted, RunLocked

LOCK = "LOCK"
BEAT = 15.0
"""Seconds between two signs of life."""
STALE = 120.0
"""Seconds without a sign of life after which an owner on another machine is taken for dead; longer
than a network file system keeps what it knows of a file."""
_TRIES = 5
_PAUSE = 1.0
"""Seconds between two tries to read LOCK."""
_NO_FILE_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_OWNER = re.compile(r"^pid (\d+) on (\S+)\n(\w+)\n$")


@dataclass(frozen=True)
class _Owner:
    pid: int
    host: str
    nonce: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


@final
class RunLock:
    """The held lock of a run directory (stateful), until `release` or the death of the process."""

    def __init__(self, file: IO[str], path: Path, owner: _Owner) -> None:
        self._file = file
        self._path = path
        self._owner = owner
        self._released = threading.Event()
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    @classmethod
    def acquire(cls, run_dir: Path) -> RunLock:
        """Take the lock without waiting.

        Raises:
            RunLocked: with the owner's process id and host, and how long it has been silent.
            OSError: LOCK cannot be written.
        """
        path = run_dir / LOCK
        file = path.open("a+", encoding="utf-8")
        try:
            _take(file, path)
            owner = _Owner(os.getpid(), socket.gethostname(), secrets.token_hex(8))
            file.truncate(0)
            file.write(f"{owner}\n{owner.nonce}\n")
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            raise
        return cls(file, path, owner)

    def confirm(self) -> None:
        """Raises RunLocked when another process has taken over, or somebody has removed LOCK.

        And Interrupted when LOCK cannot be read for a while.
        """
        found = _owner(self._path)
        if found is None or found.nonce != self._owner.nonce:
            taker = "is gone or empty" if found is None else f"now names {found}"
            raise RunLocked(
                f"{self._path}: {taker}: this process stops, so that a run has one driver; what it "
                "recorded is safe"
            )

    def release(self) -> None:
        """Free the lock; the file stays, because deleting it would let two owners in at once."""
        if self._released.is_set():
            return
        self._released.set()
        try:
            found = _owner(self._path)
            if found is not None and found.nonce == self._owner.nonce:
                self._file.truncate(0)  # the process id may belong to somebody else tomorrow
        except (Interrupted, OSError):
            pass  # a silent owner is taken for dead
        finally:
            self._file.close()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            try:
                os.utime(self._file.fileno())
            except (OSError, ValueError):  # no disk for a moment, or closed meanwhile
                continue


def is_locked(run_dir: Path) -> bool:
    """Whether a process drives the run, judged by what LOCK says.

    Nothing is locked to find out: a reader must not get in the way of a driver that starts.
    """
    path = run_dir / LOCK
    owner = _owner(path)
    if owner is None or abs(time.time() - path.stat().st_mtime) > STALE:
        return False
    return owner.host != socket.gethostname() or _alive(owner.pid)


def _take(file: IO[str], path: Path) -> None:
    """Lock the file; raises RunLocked when it has a living owner."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True  # on this machine
    except BlockingIOError as error:
        raise _refusal(path, f"{_owner(path) or 'an unknown process'} holds {path}") from error
    except OSError as error:
        if error.errno not in _NO_FILE_LOCKS:
            raise
        alone = False
    owner = _owner(path)
    if owner is None:
        return
    if owner.host == socket.gethostname():
        if not alone and owner.pid != os.getpid() and _alive(owner.pid):
            raise _refusal(path, f"{owner} holds {path}")
        return
    silent = _silence(path)
    if silent < STALE:
        raise _refusal(
            path,
            f"{owner} gave a sign of life {silent:.0f} s ago; after {STALE:.0f} s it is taken for "
            "dead",
        )


def _refusal(path: Path, why: str) -> RunLocked:
    return RunLocked(
        f"{path.parent}: another evomerge process drives this run ({why}); wait until it ends, "
        f"stop it, or choose another run directory (in a copy of a run: remove {LOCK})"
    )


def _silence(path: Path) -> float:
    """Seconds since the last sign of life, both times by the clock of the file system."""
    probe = path.with_name(f".{LOCK}.{secrets.token_hex(4)}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
    return max(0.0, now - path.stat().st_mtime)


def _owner(path: Path) -> _Owner | None:
    """Whom LOCK names; raises Interrupted when it cannot be read for a while."""
    for last in (*(False,) * (_TRIES - 1), True):
        try:
            found = _OWNER.match(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        except OSError as error:  # a network file system that has lost its server, or the file
            if last:
                raise Interrupted(
                    f"{path}: cannot be read ({error.strerror}), so nobody knows who drives the "
                    "run; check the file system and run the same command again"
                ) from error
            time.sleep(_PAUSE)
        else:
            return found and _Owner(int(found[1]), found[2], found[3])
    raise AssertionError("the last try returns or raises")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
