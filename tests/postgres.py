"""A private PostgreSQL server for tests and experiments, run by a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "p@ss #1%/" + "word"
_ENCODED = "p%40ss%20%231%25%2Fword"


def binaries() -> Path | None:
    """The folder with pg_ctl and initdb; None when there is no server, or nobody to run it."""
    if os.getuid() == 0 and not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        return None
    on_path = shutil.which("pg_ctl")
    if on_path:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


@dataclass(frozen=True)
class Server:
    """A server on a port of this machine, with one database `evomerge`."""

    bin: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://evo:{_ENCODED}@127.0.0.1:{self.port}/evomerge"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._pg_ctl("-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        self._pg_ctl("-m", mode, "stop")

    def create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD + "\n")
        _own(secret)
        self._call("initdb", "-U", "evo", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        self.start()
        import psycopg  # noqa: PLC0415 - only where there is a server

        address = f"postgresql://evo@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, password=PASSWORD, autocommit=True) as connection:
            connection.execute("CREATE DATABASE evomerge")

    def _pg_ctl(self, *arguments: str) -> None:
        self._call("pg_ctl", "-w", *arguments)

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), "-D", str(self.folder / "data"), *arguments]
        user = "postgres" if os.getuid() == 0 else None
        subprocess.run(
            command,
            check=True,
            cwd=self.folder,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def server(found: Path) -> Iterator[Server]:
    """A new server with nothing in it, stopped and removed at the end."""
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=fast, prefix="evomerge-pg-") as folder:
        _own(Path(folder))
        made = Server(found, Path(folder), _free_port())
        try:
            made.create()
            yield made
        finally:
            if (Path(folder) / "data" / "postmaster.pid").exists():
                made.stop()


def _free_port() -> int:
    """Below those that connections get, which come and go: nobody else takes it meanwhile."""
    start = 20_000 + os.getpid() % 5_000
    for port in range(start, start + 5_000):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def _own(path: Path) -> None:
    if os.getuid() == 0:
        shutil.chown(path, "postgres", "postgres")
