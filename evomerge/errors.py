"""The errors a caller may catch; each knows the exit code that the command line returns for it."""

from __future__ import annotations

import errno
from collections.abc import Sequence

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errno of an OSError that goes away when somebody makes room."""


class EvomergeError(Exception):
    """An error with a message meant for a person: no traceback is shown for it.

    Attributes:
        problems: one line per problem: what, where, expected, got, and the fix.
        exit_code: what the command line returns.
    """

    exit_code = 1

    def __init__(self, problems: str | Sequence[str]) -> None:
        """Keep every problem; a single string is one problem."""
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        assert self.problems, "an error needs at least one problem"
        super().__init__("\n".join(self.problems))


class InvalidInput(EvomergeError):
    """A file, value or command line that cannot be right on its own; exit code 2."""

    exit_code = 2


class PreflightFailed(EvomergeError):
    """Inputs that do not fit each other or this machine, found before heavy work; exit code 3."""

    exit_code = 3


class NothingBetter(EvomergeError):
    """The search ended without a recipe that beats the baselines; exit code 4, only on request."""

    exit_code = 4


class TooManyFailures(EvomergeError):
    """The failure policy stopped the run; exit code 5."""

    exit_code = 5


class RunLocked(EvomergeError):
    """Another live process drives this run directory; exit code 6."""

    exit_code = 6


class Interrupted(EvomergeError):
    """Stopped by the user; finished work is saved and the same command continues; exit code 75."""

    exit_code = 75


class DiskFull(Interrupted):
    """A disk has no room left; with room, the same command continues; exit code 75."""

    @classmethod
    def of(cls, error: OSError) -> DiskFull:
        """The error about a file that could not be written."""
        where = "the disk" if error.filename is None else str(error.filename)
        return cls(f"{where}: no space left; free some space and run the same command again")


class StorageTrouble(EvomergeError):
    """A database cannot be used now; trying again may help; exit code 3."""

    exit_code = 3


class BuildFailed(EvomergeError):
    """A merge that cannot be built or used: NaN in a merged tensor, a failed verification."""
