"""One session with PostgreSQL, and the tables that replicas live in; the only door to psycopg."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

from evomerge.errors import PreflightFailed, StorageTrouble
from evomerge.run.ledger_schema import FORMAT
from evomerge.run.replica.address import Address
from evomerge.run.replica.rows import Inventory, Key, Sealed

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as missing:
    raise PreflightFailed(
        "storage: a postgresql:// URL needs psycopg: pip install 'evomerge[postgres]'"
    ) from missing

_TABLES = (
    """CREATE TABLE IF NOT EXISTS evomerge_runs (
        run TEXT PRIMARY KEY, format INTEGER NOT NULL, version BIGINT NOT NULL,
        token TEXT NOT NULL, owner TEXT NOT NULL, seen TIMESTAMPTZ NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS evomerge_rows (
        run TEXT NOT NULL REFERENCES evomerge_runs ON DELETE CASCADE,
        part TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL,
        PRIMARY KEY (run, part, name))""",
)
_PUT = """INSERT INTO evomerge_rows (run, part, name, body, checksum) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (run, part, name) DO UPDATE
    SET body = excluded.body, checksum = excluded.checksum"""
_HOLDER = """FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((classid::bigint << 32) | objid::bigint) = %s"""
_RUN, _OWN = "run", "own"
"""Kinds of advisory locks: a run may be called like something of ours."""
_FETCHED = 100
# A host that vanished must not keep a run for the two hours that TCP takes by default.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "40000",
    "application_name": "evomerge",
}
_SERVER_PATIENCE = {
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "statement_timeout": "120s",
}


@dataclass(frozen=True)
class RunLine:
    """What the database says about one run without reading it.

    `format` is that of its ledger; `version` grows with every change; `token` tells one start of a
    driver from another; `owner` names it for people and is empty once it has ended; `idle` is the
    time since it was last heard of, in seconds; `driven` says whether a session holds the run now.
    """

    run: str
    format: int
    version: int
    token: str
    owner: str
    idle: float
    driven: bool
    evaluations: int


@final
class Session:
    """One connection (stateful); every method raises StorageTrouble when it cannot answer."""

    def __init__(self, connection: psycopg.Connection[Any], address: Address) -> None:
        self._connection = connection
        self._address = address

    @classmethod
    def open(cls, address: Address) -> Self:
        """Connect; raises StorageTrouble with the reason in one line."""
        logger = logging.getLogger("psycopg")
        if not logger.handlers:  # else what it ignores after a lost connection goes to stderr
            logger.addHandler(logging.NullHandler())
        with _explained(address):
            given = conninfo_to_dict(address.plain)
            missing = {k: v for k, v in _PATIENCE.items() if k not in given}
            info = make_conninfo(
                address.plain, user=address.user, password=address.password, **missing
            )
            connection = psycopg.connect(info, autocommit=True)
            for name, value in _SERVER_PATIENCE.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        return cls(connection, address)

    def prepare(self) -> None:
        """Make the tables where they do not exist."""
        if self._tables_exist():
            return
        with self._transaction():
            self._execute("SELECT pg_advisory_xact_lock(%s)", _number(_OWN, "tables"))
            for statement in _TABLES:
                self._execute(statement)

    def lines(self, run: str | None = None) -> tuple[RunLine, ...]:
        """All runs of the database by name, or the one called `run` if there is one."""
        if not self._tables_exist():
            return ()
        query = """SELECT r.run, r.format, r.version, r.token, r.owner,
            extract(epoch FROM now() - r.seen)::float8, count(e.name)
            FROM evomerge_runs r LEFT JOIN evomerge_rows e
            ON e.run = r.run AND e.part = 'evaluations'
            WHERE %s::text IS NULL OR r.run = %s GROUP BY r.run ORDER BY r.run"""
        return tuple(self._line(row) for row in self._execute(query, run, run).fetchall())

    def lock(self, run: str) -> bool:
        """Take the run for this session without waiting; whether it is ours now."""
        return self._locked(_number(_RUN, run))

    def lock_mirror(self) -> bool:
        """Take the right to write the database's mirror, in the same way."""
        return self._locked(_number(_OWN, "mirror"))

    def end_holder(self, run: str) -> None:
        """End the session that holds the run: one of our own that the network cut off."""
        self._execute(f"SELECT pg_terminate_backend(pid) {_HOLDER}", _number(_RUN, run))

    def claim(self, run: str, token: str, owner: str) -> None:
        """Say who drives the run from now on; the run must be locked by this session."""
        self._execute(
            """INSERT INTO evomerge_runs VALUES (%s, %s, 0, %s, %s, now()) ON CONFLICT (run)
            DO UPDATE SET token = excluded.token, owner = excluded.owner, seen = now()""",
            run,
            FORMAT,
            token,
            owner,
        )

    def seen(self, run: str, token: str) -> bool:
        """Note that the driver is alive; whether the run is still its."""
        query = "UPDATE evomerge_runs SET seen = now() WHERE run = %s AND token = %s"
        return bool(self._execute(query, run, token).rowcount == 1)

    def release(self, run: str, token: str) -> None:
        """Say that nobody drives the run any more."""
        query = "UPDATE evomerge_runs SET owner = '', seen = now() WHERE run = %s AND token = %s"
        self._execute(query, run, token)

    def inventory(self, run: str) -> Inventory:
        """The rows of a run; empty when there is no such run."""
        query = "SELECT part, name, checksum FROM evomerge_rows WHERE run = %s"
        return {(part, name): seal for part, name, seal in self._execute(query, run).fetchall()}

    def push(self, run: str, token: str, came: Iterable[Sealed], gone: Sequence[Key]) -> bool:
        """Write and delete rows in one transaction; False, without any effect, if not its owner."""
        with self._transaction():
            query = """UPDATE evomerge_runs SET version = version + 1, seen = now()
                WHERE run = %s AND token = %s"""
            if self._execute(query, run, token).rowcount != 1:
                return False
            with _explained(self._address), self._connection.cursor() as cursor:
                drop = "DELETE FROM evomerge_rows WHERE run = %s AND part = %s AND name = %s"
                cursor.executemany(drop, [(run, *key) for key in gone])
                cursor.executemany(_PUT, ((run, *row.key, row.body, row.checksum) for row in came))
        return True

    def rows(self, run: str, wanted: Inventory) -> Iterator[Sealed]:
        """The rows with these keys, part by part."""
        query = """SELECT part, name, body, checksum FROM evomerge_rows
            WHERE run = %s AND part = %s AND name = ANY(%s)"""
        for part in dict.fromkeys(part for part, _ in wanted):
            names = [name for other, name in wanted if other == part]
            for start in range(0, len(names), _FETCHED):
                some = names[start : start + _FETCHED]
                for found, name, body, seal in self._execute(query, run, part, some).fetchall():
                    yield Sealed((found, name), body, seal)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """One moment for all that is read inside; writes nothing and blocks nobody."""
        with self._transaction():
            self._execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield

    def close(self) -> None:
        """End the session; what it had locked becomes free."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tables_exist(self) -> bool:
        query = "SELECT to_regclass('evomerge_runs'), to_regclass('evomerge_rows')"
        return None not in self._execute(query).fetchone()

    def _locked(self, number: int) -> bool:
        return bool(self._execute("SELECT pg_try_advisory_lock(%s)", number).fetchone()[0])

    def _line(self, row: Sequence[Any]) -> RunLine:
        run, form, version, token, owner, idle, evaluations = row
        held = self._execute(f"SELECT count(*) {_HOLDER}", _number(_RUN, run)).fetchone()[0]
        return RunLine(run, form, version, token, owner, idle, held > 0, evaluations)

    def _execute(self, query: str, *values: object) -> Any:
        with _explained(self._address):
            return self._connection.execute(query, values or None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self._address), self._connection.transaction():
            yield


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Say in one line, without the password, what the database or the way to it complains about."""
    try:
        yield
    except psycopg.Error as error:
        text = "; ".join(str(error).strip().splitlines()[:1]) or type(error).__name__
        raise StorageTrouble(
            f"{address}: {address.hidden(text)}; check the URL, the server and your rights there"
        ) from None  # what the library says may quote the password


def _number(kind: str, name: str) -> int:
    """The advisory lock of a thing: 63 bits, so that its halves are what pg_locks shows."""
    text = f"evomerge {kind} {name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
