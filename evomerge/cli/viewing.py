"""Where a run is looked at: its directory, or its copy in a database."""

# ruff: noqa: PLC0415 - psycopg is optional, and loaded for databases only

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from evomerge.run.lock import is_locked
from evomerge.run.replica.address import Address, is_address


class View(Protocol):
    """A run that may go on while it is looked at."""

    @property
    def name(self) -> str:
        """What the run is called: by default its directory and its run in a database."""
        ...

    @property
    def report(self) -> Path:
        """Where its report belongs."""
        ...

    @property
    def driven(self) -> bool:
        """Whether somebody drives it, as of the last look."""
        ...

    def look(self) -> Path:
        """A directory with the run's present state; never in the way of its driver."""
        ...


@final
@dataclass(frozen=True)
class LocalRun:
    """A run directory of this machine."""

    run_dir: Path

    @property
    def name(self) -> str:
        """That of the directory."""
        return self.run_dir.resolve().name

    @property
    def report(self) -> Path:
        """In the directory."""
        return self.run_dir / "report.html"

    @property
    def driven(self) -> bool:
        """Whether a process of this machine holds its lock."""
        return is_locked(self.run_dir)

    def look(self) -> Path:
        """The directory itself: readers of its ledger see one moment each."""
        return self.run_dir


@contextmanager
def viewed(run: str) -> Iterator[View]:
    """The run in a directory or at a URL.

    Raises:
        InvalidInput, StorageTrouble: no such run, or the database cannot be read.
    """
    if not is_address(run):
        yield LocalRun(Path(run))
        return
    from evomerge.run.replica.watching import SharedRun

    with SharedRun(Address.parse(run)) as shared:
        yield shared


def listed_runs(run: str) -> tuple[str, ...]:
    """One line per run when `run` is the URL of a database with several, else nothing."""
    if not is_address(run) or (address := Address.parse(run)).run:
        return ()
    from evomerge.run.replica.watching import shared_runs

    lines = shared_runs(address)
    if len(lines) < 2:
        return ()
    width = max(len(line.run) for line in lines)
    return tuple(
        f"{line.run:<{width}}  {line.evaluations:>6} evaluations, "
        + (f"driven by {line.owner}" if line.driven else "not driven")
        + f", heard of {_ago(line.idle)} ago"
        for line in lines
    )


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
