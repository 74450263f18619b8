"""When rows are copied: by a thread beside the search, which never waits for the database."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, final

from evomerge.errors import EvomergeError, Interrupted, InvalidInput, RunLocked, StorageTrouble
from evomerge.plain_text import one_line
from evomerge.run.ledger import LEDGER, LedgerMismatch
from evomerge.run.ledger_file import LedgerFile
from evomerge.run.replica.address import Address
from evomerge.run.replica.holding import Holding
from evomerge.run.replica.rows import Inventory, Sealed, file_rows, inventory, rows

_EVERY = 1.0
_SHARE = 20.0
"""Looking at the ledger costs at most one part in this many of a core."""
_HEARTBEAT = 10.0
_LONGEST_PAUSE = 30.0
_FLUSH_SECONDS = 20.0


@final
class Copier:
    """Keeps the replica of a run directory up to date while it is open (stateful: a thread).

    What is copied at a time is one state of the ledger, in one transaction: the replica is always
    something that the ledger has been. Trouble with the database is said once, then tried again.
    """

    def __init__(self, address: Address, run_dir: Path, say: Callable[[str], None]) -> None:
        """`say` takes a line for people, from any thread."""
        self.address = address
        self._run_dir = run_dir
        self._say = say
        self._holding = Holding(address, run_dir)
        self._known: Inventory = {}
        self._trouble: str | None = None
        self._closing = threading.Event()
        self._stop: threading.Event | None = None
        self._lost: EvomergeError | None = None
        self._files: tuple[Sealed, ...] = ()
        self._stuck = False
        self._pause = _EVERY
        self._beat = 0.0

    def connect(self, space_file: Path) -> None:
        """Take the run; restore the run directory if it is empty and the replica is not.

        Raises:
            StorageTrouble: the database cannot be used, and there is no run here to continue.
            RunLocked, LedgerMismatch, InvalidInput: see `Holding.take`.
        """
        try:
            self._known = self._holding.take()
            if self._holding.restore(self._known, space_file):
                self._say(f"restored {self._run_dir} from {self.address}")
        except StorageTrouble as error:
            if not (self._run_dir / LEDGER).exists():
                raise
            self._said(error)

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """Copy while the ledger and the files of the run directory are there.

        At the end what is left is copied, for a bounded time; what could not be is said.
        """
        self._files = file_rows(self._run_dir)
        thread = threading.Thread(target=self._run, name="replica", daemon=True)
        self._stuck = True  # a signal may interrupt the join below
        thread.start()
        try:
            yield
        finally:
            self._closing.set()
            thread.join(_FLUSH_SECONDS + _EVERY)
            self._stuck = thread.is_alive()
            self._say_missing()

    def attach(self, stop: threading.Event) -> None:
        """Have `stop` set when another driver takes the run."""
        self._stop = stop
        if self._lost is not None:
            stop.set()

    @property
    def lost(self) -> EvomergeError | None:
        """Why this driver may not go on; None as long as it may."""
        return self._lost

    def close(self) -> None:
        """Let go of the run."""
        if not self._stuck:  # else the thread still waits for the network, and dies with us
            self._holding.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._closing.wait(self._step())
            deadline = time.monotonic() + _FLUSH_SECONDS
            self._step()
            while self._trouble is not None and time.monotonic() < deadline:
                time.sleep(_EVERY)
                self._step()
        except (RunLocked, LedgerMismatch) as error:
            self._lost = error
            self._say(f"stopping: {error}")
            if self._stop is not None:
                self._stop.set()
        except InvalidInput as error:
            self._say(f"storage: nothing is copied to {self.address} any more: {error}")
        except Exception as error:  # in a thread nobody would see it
            text = self.address.hidden(one_line(f"{type(error).__name__}: {error}"))
            self._say(f"storage: nothing is copied to {self.address} any more: {text}")

    def _step(self) -> float:
        """Copy what is new; returns the seconds to wait until the next time."""
        began, spent = time.monotonic(), time.thread_time()
        try:
            if not self._holding.held:
                self._known = self._holding.take()
            if self._copy():
                self._beat = began
            elif began - self._beat > _HEARTBEAT:
                self._holding.beat()
                self._beat = began
        except (StorageTrouble, Interrupted) as error:
            self._said(error)
            self._holding.drop()
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return self._pause
        if self._trouble is not None:
            self._trouble = None
            self._say(f"storage: {self.address} is back and has everything")
        self._pause = _EVERY
        return max(_EVERY, _SHARE * (time.thread_time() - spent))

    def _copy(self) -> bool:
        """Bring the replica to the ledger's present state; whether there was anything to do."""
        with self._reading() as file:
            local = self._local(file)
            changed = self._changed(local)
            gone = [key for key in self._known if key not in local]
            if not changed and not gone:
                return False
            texts = (row for row in self._files if row.key in changed)
            self._holding.push(itertools.chain(texts, rows(file, changed)), gone)
        self._known = local
        return True

    @contextlib.contextmanager
    def _reading(self) -> Iterator[LedgerFile]:
        file = LedgerFile.reading(self._run_dir / LEDGER)
        try:
            yield file
        finally:
            file.connection.close()

    def _local(self, file: LedgerFile) -> Inventory:
        return inventory(file) | {row.key: row.checksum for row in self._files}

    def _changed(self, local: Inventory) -> Inventory:
        return {key: seal for key, seal in local.items() if self._known.get(key) != seal}

    def _say_missing(self) -> None:
        missing = 0
        with contextlib.suppress(EvomergeError), self._reading() as file:
            missing = len(self._changed(self._local(file)))
        if missing and self._lost is None:
            self._say(
                f"storage: {missing} rows are not in {self.address} yet; the same command copies "
                "them once it can be reached"
            )

    def _said(self, error: EvomergeError) -> None:
        if self._trouble is None:
            self._say(f"storage: {error}; the search goes on, and rows are copied later")
        self._trouble = str(error)
