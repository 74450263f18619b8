"""Ray nodes on one machine, each a process tree of its own that can be killed like a machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_PATIENCE = 120.0
_QUICK_DETECTION = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class Nodes:
    """A head without CPUs, and nodes that come and go (stateful)."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        # Below /tmp: the paths of Ray's sockets may have 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="evm-", dir="/tmp"))
        self._environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        self._environment |= {**_QUICK_DETECTION, **(environment or {})}
        # A Ray that this process started before, on the loopback address, leaves this behind.
        self._environment.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self.address = f"127.0.0.1:{_free_port()}"
        port = self.address.partition(":")[2]
        try:
            self._start("head", "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=0")
        except BaseException:
            self.close()
            raise

    def add(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Have a node join; `arguments` are those of `ray start`, such as --num-cpus=1."""
        self._start(name, f"--address={self.address}", *arguments, environment=environment)

    def kill(self, name: str) -> None:
        """The machine is gone: SIGKILL to the node and everything that it started."""
        _kill_tree(self._started.pop(name))

    def processes(self, name: str) -> Sequence[psutil.Process]:
        """The processes of a node."""
        node = psutil.Process(self._started[name].pid)
        found: list[psutil.Process] = node.children(recursive=True)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes, the head last."""
        for process in reversed(self._started.values()):
            _kill_tree(process)
        self._started.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *arguments]
        if "--head" in arguments:
            command.append(f"--temp-dir={self._folder}")
        command += ["--object-store-memory=100000000", "--disable-usage-stats"]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
        self._started[name] = process
        # Two nodes that start at once under one address can take each other's sockets.
        _wait_until_running(process, self._folder / f"{name}.log")


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants, all at one moment: none may act on another's end."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        family = [process]
    for signal_number in (signal.SIGSTOP, signal.SIGKILL):
        for member in family:
            try:
                member.send_signal(signal_number)
            except psutil.NoSuchProcess:
                continue
    process.wait()


def _free_port() -> int:
    """Below the ports that Ray gives to workers; two processes do not begin with the same."""
    start = 6390 + os.getpid() % 1000
    for port in range(start, start + 500):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def _wait_until_running(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while "Ray runtime started" not in log.read_text(encoding="utf-8"):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"a Ray node did not start: {log.read_text(encoding='utf-8')}")
        time.sleep(0.1)
