"""One line of what the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GB = 1e9


class Level(StrEnum):
    """How much a finding matters; a problem must be mended, a note is worth knowing."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: was looked at.
        found: what there is.
        fix: what to do; None where nothing needs to be done.
        level: how much it matters.
        stops: whether no search can run before it is mended.
    """

    what: str
    found: str
    fix: str | None = None
    level: Level = Level.OK
    stops: bool = False


def note(what: str, found: str, fix: str) -> Finding:
    """Something that works, but not as well as it could."""
    return Finding(what, found, fix, Level.NOTE)


def problem(what: str, found: str, fix: str, *, stops: bool = True) -> Finding:
    """Something that does not work."""
    return Finding(what, found, fix, Level.PROBLEM, stops)
