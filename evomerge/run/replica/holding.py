"""Who may write a replica: one driver at a time, and only one whose ledger goes on from it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, final

from evomerge.errors import InvalidInput, RunLocked, StorageTrouble
from evomerge.run.ledger import LEDGER, LedgerMismatch
from evomerge.run.ledger_count import COUNT
from evomerge.run.ledger_errors import explained
from evomerge.run.ledger_file import IDENTITY, LedgerFile
from evomerge.run.ledger_schema import FORMAT
from evomerge.run.replica.address import Address
from evomerge.run.replica.rows import (
    EVENTS,
    FILE_NAMES,
    FILES,
    META,
    Inventory,
    Key,
    Sealed,
    file_row,
    inventory,
    put,
)
from evomerge.run.replica.session import RunLine, Session

_RUN_FILE = "run.json"
_OURS: Final = {"LOCK", "logs", LEDGER, COUNT, f".{LEDGER}.tmp", f"{LEDGER}-wal", f"{LEDGER}-shm"}


@final
class Holding:
    """A run of a database, held by this process for as long as a session lasts (stateful)."""

    def __init__(self, address: Address, run_dir: Path) -> None:
        """Nothing is held before `take`."""
        self._address = address
        self._run_dir = run_dir
        self._token = secrets.token_hex(8)
        self._owner = f"pid {os.getpid()} on {socket.gethostname()}"
        self._session: Session | None = None

    @property
    def held(self) -> bool:
        """Whether there is a session; it may have broken since it was last used."""
        return self._session is not None

    def take(self) -> Inventory:
        """Connect, take the run and return what its replica has; again after a failure.

        Raises:
            StorageTrouble: the database cannot be reached, or not be written.
            RunLocked: another driver holds the run.
            LedgerMismatch: the replica is not a former state of the ledger here.
            InvalidInput: the replica has another format.
        """
        self.drop()
        session = Session.open(self._address)
        try:
            session.prepare()
            self._lock(session)
            remote = session.inventory(self._run)
            self._check_lineage(remote)
            session.claim(self._run, self._token, self._owner)
        except BaseException:
            session.close()
            raise
        self._session = session
        return remote

    def restore(self, remote: Inventory, space_file: Path) -> bool:
        """Fill an empty run directory with the replica; False when it is not empty.

        `space_file` is where the space file is on this machine.
        """
        if not remote or not _restorable(self._run_dir):
            return False
        for name in os.listdir(self._run_dir) if self._run_dir.exists() else ():
            if name.startswith((LEDGER, f".{LEDGER}", COUNT)):
                (self._run_dir / name).unlink()  # of a restoration that was cut off
        (self._run_dir / "logs").mkdir(parents=True, exist_ok=True)
        came = self._open().rows(self._run, remote)
        put(self._run_dir, (_moved(row, space_file) for row in came), ())
        return True

    def push(self, came: Iterable[Sealed], gone: Sequence[Key]) -> None:
        """Write and delete rows, all or none; raises like `take`."""
        if not self._open().push(self._run, self._token, came, gone):
            raise self._taken()

    def beat(self) -> None:
        """Say that the driver is alive; raises like `take`."""
        if not self._open().seen(self._run, self._token):
            raise self._taken()

    def release(self) -> None:
        """Let go of the run in a clean way, as far as the database can be reached."""
        if self._session is not None:
            with contextlib.suppress(StorageTrouble):  # the session's end frees it as well
                self._session.release(self._run, self._token)
            self.drop()

    def drop(self) -> None:
        """Close the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def _run(self) -> str:
        return self._address.run

    def _open(self) -> Session:
        assert self._session is not None, "take comes first"
        return self._session

    def _lock(self, session: Session) -> None:
        locked = session.lock(self._run)
        line = next(iter(session.lines(self._run)), None)
        if line is not None and line.format != FORMAT:
            raise wrong_format(self._address, line)
        if locked:
            return
        if line is not None and line.token == self._token:
            # The network cut off our last session, and the server has not noticed yet.
            session.end_holder(self._run)
            raise StorageTrouble(f"{self._address}: held by this driver's last session; ending it")
        raise self._locked(line)

    def _check_lineage(self, remote: Inventory) -> None:
        path = self._run_dir / LEDGER
        if not remote or _restorable(self._run_dir) or not path.exists():
            return
        file = LedgerFile.reading(path)
        try:
            rewinds, repairs = _events(file, "rewound"), _events(file, "repaired")
            problem = _contradiction(inventory(file), remote, rewinds, repairs)
        finally:
            file.connection.close()
        if problem:
            raise LedgerMismatch(
                f"{self._run_dir}: {problem} {self._address}; move this directory away and run the "
                "same command again to go on from the database, or choose another --out"
            )

    def _locked(self, line: RunLine | None) -> RunLocked:
        owner = "an unknown process" if line is None or not line.owner else line.owner
        heard = "" if line is None else f", heard of {line.idle:.0f} s ago"
        return RunLocked(
            f"{self._address}: another evomerge process drives this run ({owner}{heard}); wait "
            "until it ends, stop it, or choose another --out; the database lets go of a lost host "
            "within a minute"
        )

    def _taken(self) -> RunLocked:
        line = next(iter(self._open().lines(self._run)), None)
        owner = "another process" if line is None or not line.owner else line.owner
        return RunLocked(
            f"{self._address}: {owner} has taken over this run, so this driver stops; what it "
            f"recorded since is in {self._run_dir} only"
        )


def wrong_format(address: Address, line: RunLine) -> InvalidInput:
    """The error about a replica that this version cannot read."""
    return InvalidInput(
        f"{address.named(line.run)}: expected ledger format {FORMAT}, got {line.format}: use the "
        "evomerge version that wrote it, or another run name"
    )


def _restorable(run_dir: Path) -> bool:
    """Whether there is nothing in the directory but what a restoration would replace."""
    if not run_dir.exists():
        return True
    names = set(os.listdir(run_dir))
    files = {*FILE_NAMES, *(f".{name}.tmp" for name in FILE_NAMES)}
    return FILE_NAMES[-1] not in names and names <= _OURS | files


def _contradiction(
    local: Inventory, remote: Inventory, rewinds: frozenset[int], repairs: frozenset[int]
) -> str:
    """Why `remote` cannot be a former state of `local`; empty when it can.

    Every start of a driver logs an event, and events stay for ever: a run that went on elsewhere
    has one that is unknown here. Evaluations may only be missing here if they were taken back, or
    lost to a repair that the replica does not know of; one may have lost events before it, too.
    """
    identity = (META, IDENTITY)
    if local[identity] != remote[identity]:
        return "belongs to another run than"
    news = {seq for seq in rewinds | repairs if (EVENTS, str(seq)) not in remote}
    repaired = max(news & repairs, default=0)
    for key, seal in remote.items():
        lost = key not in local and key[0] == EVENTS and int(key[1]) < repaired
        if key[0] == EVENTS and local.get(key) != seal and not lost:
            return "the run was continued elsewhere, see"
    unknown = any(local.get(key) != seal for key, seal in remote.items() if key[0] == "evaluations")
    if unknown and not news:
        return "lacks evaluations that are in"
    return ""


def _events(file: LedgerFile, kind: str) -> frozenset[int]:
    """The numbers of the events of this kind."""
    with explained(file.path):
        found = file.connection.execute("SELECT seq FROM events WHERE kind = ?", (kind,))
        return frozenset(int(seq) for (seq,) in found)


def _moved(row: Sealed, space_file: Path) -> Sealed:
    """The row, with the space file's place on this machine where it is named."""
    if row.key != (FILES, _RUN_FILE):
        return row
    run = json.loads(json.loads(row.body)) | {"space_file": str(space_file.resolve())}
    return file_row(_RUN_FILE, json.dumps(run, indent=2))
