"""Shared runs as people look at them: copied into a temporary folder, brought up to date."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self, final

from evomerge.errors import InvalidInput, StorageTrouble
from evomerge.run.ledger_schema import FORMAT
from evomerge.run.replica.address import Address
from evomerge.run.replica.holding import wrong_format
from evomerge.run.replica.rows import Inventory, put
from evomerge.run.replica.session import RunLine, Session

_PATIENCE = 60.0
_PAUSE = 1.0


@final
class SharedRun:
    """A run in a database, read only (stateful): every look brings the copy up to date.

    Looks fetch what is new and take no locks that a driver or other readers could meet.
    """

    def __init__(self, address: Address) -> None:
        """Connect; `address.run` may be empty when the database holds only one run.

        Raises:
            StorageTrouble: the database cannot be read.
            InvalidInput: there is no such run, or several and none is named.
        """
        self._session = Session.open(address)
        self._folder = tempfile.TemporaryDirectory(prefix="evomerge-")
        self._known: Inventory = {}
        self._seen: RunLine | None = None
        self._address = address
        try:
            self._address = address.named(_chosen(address, self._session.lines()))
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """What the run is called in the database."""
        return self._address.run

    @property
    def report(self) -> Path:
        """In the current folder, called like the run."""
        return Path(f"{Path(self._address.run).name}.html")

    @property
    def driven(self) -> bool:
        """Whether a driver held the run at the last look."""
        return self._seen is not None and self._seen.driven

    def look(self) -> Path:
        """The run directory as the replica has it now, without models, reports and logs.

        Waits a minute for a database that went away since the last look.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._fetched()
            except StorageTrouble:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
                with contextlib.suppress(StorageTrouble):
                    self._session.close()
                    self._session = Session.open(self._address)

    def close(self) -> None:
        """End the session and remove the copy."""
        self._session.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fetched(self) -> Path:
        folder = Path(self._folder.name)
        with self._session.snapshot():
            line = next(iter(self._session.lines(self._address.run)), None)
            if line is None:
                raise InvalidInput(f"{self._address}: the run is gone from the database")
            if self._seen is None or line.version != self._seen.version:
                remote = self._session.inventory(self._address.run)
                wanted = {k: seal for k, seal in remote.items() if self._known.get(k) != seal}
                gone = [key for key in self._known if key not in remote]
                put(folder, self._session.rows(self._address.run, wanted), gone)
                self._known = remote
        self._seen = line
        return folder


def shared_runs(address: Address) -> tuple[RunLine, ...]:
    """What runs a database holds; raises StorageTrouble when it cannot be read."""
    with Session.open(address) as session:
        return session.lines()


def _chosen(address: Address, lines: tuple[RunLine, ...]) -> str:
    names = [line.run for line in lines]
    if not names:
        raise InvalidInput(f"{address}: no runs in this database; write one with --storage")
    if not address.run and len(names) > 1:
        raise InvalidInput(
            f"{address}: holds several runs ({', '.join(names)}); choose one: URL#NAME"
        )
    name = address.run or names[0]
    if name not in names:
        raise InvalidInput(f"{address}: no run '{name}' there; it has {', '.join(names)}")
    line = lines[names.index(name)]
    if line.format != FORMAT:
        raise wrong_format(address, line)
    return name
