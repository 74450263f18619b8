"""The pool of one machine: spawned processes and their pipes, one per GPU or group of cores."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Mapping, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import final

from evomerge.candidate import Assignment
from evomerge.errors import EvomergeError
from evomerge.run.pool import Deadline, WorkerFactory, WorkerPool
from evomerge.run.pools.local_worker import serve
from evomerge.run.pools.serving import Message
from evomerge.run.pools.supervised import START_DEADLINE, Gone, SupervisedPool

_DYING_SECONDS = 10.0
_SPAWN = multiprocessing.get_context("spawn")  # forking would copy threads and CUDA state


def local_pool(
    factory: WorkerFactory,
    size: int,
    *,
    threads: int = 1,
    memory: int | None = None,
    deadline: Deadline,
    start_deadline: float = START_DEADLINE,
    logs: Path | None = None,
) -> SupervisedPool[LocalMember]:
    """Start `size` worker processes.

    They die with the thread that called this or that polled last, so both belong in the main
    thread; a script that starts one needs the usual `if __name__ == "__main__"` guard.

    Args:
        factory: makes a worker in its process.
        size: how many processes; with GPUs, process i sees GPU i modulo their number.
        threads: OMP_NUM_THREADS of each.
        memory: bytes of data that each may have; files that safetensors maps count as well.
        deadline: after which a process that has not answered is killed.
        start_deadline: seconds until a process must be ready.
        logs: folder for what workers print, one file per place; None prints it to stderr.
    """
    transport = LocalTransport(
        factory, threads=threads, memory=memory, gpus=visible_gpus(), logs=logs
    )
    return SupervisedPool(transport, size, deadline=deadline, start_deadline=start_deadline)


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Asks neither torch nor the driver library: both are slow, and one of them keeps GPU memory.
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    nodes = [node for node in devices.glob("nvidia*") if node.name[len("nvidia") :].isdigit()]
    return tuple(str(index) for index in range(len(nodes)))


@final
class LocalMember:
    """A worker process and the driver's end of its pipe."""

    def __init__(
        self,
        factory: bytes,
        environment: Mapping[str, str],
        memory: int | None,
        log: Path | None,
    ) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        target = None if log is None else str(log)
        self._process = _SPAWN.Process(
            target=serve, args=(theirs, os.getpid(), dict(environment), memory, target), daemon=True
        )
        # Ctrl-C reaches every process of the terminal, but workers have to finish what they do;
        # they inherit the mask, so they are safe from their first instruction on.
        resource_tracker.ensure_running()  # which would take the mask away when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the worker's death closes the pipe
        self._send(factory)

    @property
    def placed(self) -> bool:
        """Always: its process exists."""
        return True

    def give(self, assignment: Assignment) -> bool:
        """Send an assignment."""
        return self._send(pickle.dumps(assignment))

    def check(self) -> None:
        """Send the empty message, which asks for a sign of life."""
        self._send(b"")

    def heard(self) -> Message | Gone | None:
        """Read the next message."""
        try:
            if self.connection.poll():
                message: Message = self.connection.recv()
                return message
        except (EOFError, OSError):
            return Gone(self._epitaph())
        return None

    def kill(self) -> None:
        """Kill the process and wait for the kernel to be done with it, but not for ever."""
        if not self.connection.closed:
            self._process.kill()
            self._process.join(_DYING_SECONDS)
            if self._process.exitcode is not None:  # else the kernel is stuck in a call for it
                self._process.close()
            self.connection.close()

    def _send(self, message: bytes) -> bool:
        try:
            self.connection.send_bytes(message)
        except OSError:
            return False  # it is gone, and the closed pipe says so to `heard`
        return True

    def _epitaph(self) -> str:
        self._process.join(timeout=5.0)
        code = self._process.exitcode
        if code is None:
            return "it closed its pipe"
        if code >= 0:
            return f"it ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"it was killed by {name}{hint}"


@final
class LocalTransport:
    """Starts worker processes and waits on their pipes."""

    def __init__(
        self,
        factory: WorkerFactory,
        *,
        threads: int,
        memory: int | None,
        gpus: Sequence[str],
        logs: Path | None,
    ) -> None:
        self._factory = pickle.dumps(factory)
        self._threads = threads
        self._memory = memory
        self._gpus = gpus
        self._logs = logs
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)

    def launch(self, place: int) -> LocalMember:
        """Start a process."""
        environment = {"OMP_NUM_THREADS": str(self._threads)}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        log = None if self._logs is None else self._logs / f"worker-{place}.log"
        return LocalMember(self._factory, environment, self._memory, log)

    def wait(self, members: Sequence[LocalMember], timeout: float) -> Sequence[LocalMember]:
        """The members whose pipe has a message or was closed."""
        by_pipe = {member.connection: member for member in members}
        ready = connection.wait(list(by_pipe), timeout)
        return [member for pipe, member in by_pipe.items() if pipe in ready]

    def no_room(self, seconds: float) -> EvomergeError | None:  # noqa: ARG002 - cannot happen
        """There is always room."""
        return None

    def close(self) -> None:
        """Nothing is shared."""


_conforms: type[WorkerPool] = SupervisedPool[LocalMember]
