"""The life of workers in other processes: started, checked, fed, timed, replaced."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, final

from evomerge.candidate import OUT_OF_MEMORY, Assignment, Failed, Lost, Scored
from evomerge.errors import EvomergeError
from evomerge.run.pool import Answer, Deadline
from evomerge.run.pools.backoff import Backoff
from evomerge.run.pools.serving import Message, Started, StartFailure, one_line

START_DEADLINE = 900.0
_CHECK_DEADLINE = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gone:
    """The worker's process has ended, or cannot be reached any more."""

    reason: str


class Member(Protocol):
    """One worker as the driver sees it; it was asked to start when it was made."""

    @property
    def placed(self) -> bool:
        """Whether there is room for it, so that it is getting ready; no news later than `heard`."""
        ...

    def give(self, assignment: Assignment) -> bool:
        """Hand it an assignment; False when it is already gone."""
        ...

    def check(self) -> None:
        """Ask for a sign of life: a Started, or it is Gone."""
        ...

    def heard(self) -> Message | Gone | None:
        """The next thing it said; None when it said nothing; never waits."""
        ...

    def kill(self) -> None:
        """End its process at once, whatever it is doing; may be called again."""
        ...


M = TypeVar("M", bound=Member)


class Transport(Protocol[M]):
    """How members are made and listened to."""

    def launch(self, place: int) -> M:
        """Ask for a worker; does not wait until it is ready."""
        ...

    def wait(self, members: Sequence[M], timeout: float) -> Sequence[M]:
        """The members that may have something to say; waits up to `timeout` seconds for one."""
        ...

    def no_room(self, seconds: float) -> EvomergeError | None:
        """Asked when no member has had a place for `seconds`: what ends the run, None to wait."""
        ...

    def close(self) -> None:
        """Let go of whatever the members shared; they have been killed."""
        ...


@dataclass
class _Post(Generic[M]):
    """A filled place: its worker, and what it is expected to say until when.

    `expected` is "place", "start", "check", "answer" or nothing; `allowed` the seconds that it has
    for an answer.
    """

    member: M
    name: str
    expected: str | None
    until: float
    assignment: Assignment | None = None
    allowed: float = 0.0


@final
class SupervisedPool(Generic[M]):
    """A WorkerPool over any transport (stateful).

    A worker gets work only after it has said that it is there. One that dies, breaks or misses
    the deadline is killed and its place filled again after a pause; what it was doing is Lost.
    Since one loss may have taken others along (a node, an out-of-memory killer), the idle ones
    are asked for a sign of life before they get anything: no candidate is blamed for them.
    One that waits for a place, where places are limited, waits as long as any other has one.
    """

    def __init__(
        self,
        transport: Transport[M],
        size: int,
        *,
        deadline: Deadline,
        start_deadline: float = START_DEADLINE,
    ) -> None:
        """Start `size` workers, each of which has `start_deadline` seconds to get ready."""
        self._transport = transport
        self._size = size
        self._deadline = deadline
        self._start_deadline = start_deadline
        self._posts: dict[int, _Post[M]] = {}
        self._backoff = Backoff()
        self._queue: deque[Assignment] = deque()
        self._answers: list[Answer] = []
        self._hopeless: EvomergeError | None = None
        self._placeless_until = float("inf")
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many workers it tries to keep."""
        return self._size

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment."""
        self._queue.append(assignment)

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        """The answers that have arrived; waits up to `timeout` seconds for the first.

        Raises:
            EvomergeError: workers cannot be started; answers that arrived before come first.
        """
        end = time.monotonic() + timeout
        while True:
            self._fill()
            self._listen(0.0)
            self._expire()
            self._feed()
            if self._answers:
                answers, self._answers = tuple(self._answers), []
                return answers
            if self._hopeless is not None:
                raise self._hopeless
            now = time.monotonic()
            if now >= end or not self.pending():
                return ()
            self._listen(max(0.0, min(end, self._next_change()) - now))

    def pending(self) -> int:
        """How many assignments wait or are under way."""
        busy = sum(post.assignment is not None for post in self._posts.values())
        return len(self._queue) + busy + len(self._answers)

    def withdraw(self) -> tuple[Assignment, ...]:
        """Take back the assignments that no worker has begun."""
        taken = tuple(self._queue)
        self._queue.clear()
        return taken

    def close(self) -> None:
        """Kill all workers."""
        posts, self._posts = self._posts, {}
        self._queue.clear()
        self._answers.clear()
        for post in posts.values():
            post.member.kill()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fill(self) -> None:
        now = time.monotonic()
        for place in range(self._size):
            if place not in self._posts and self._backoff.due(place) <= now:
                try:
                    member = self._transport.launch(place)
                except OSError as error:  # no more processes, descriptors or memory for a while
                    self._not_started(place, StartFailure((one_line(error),)))
                    continue
                self._posts[place] = _Post(member, f"place {place}", "place", float("inf"))

    def _listen(self, timeout: float) -> None:
        places = {id(post.member): place for place, post in self._posts.items()}
        members = [post.member for post in self._posts.values()]
        for member in self._transport.wait(members, timeout):
            place = places[id(member)]
            while place in self._posts and (said := member.heard()) is not None:
                self._hear(place, said)
        self._seat()

    def _seat(self) -> None:
        """Start the clocks of members that have got a place, or that of having no such member."""
        now = time.monotonic()
        for post in self._posts.values():
            if post.expected == "place" and post.member.placed:
                post.expected, post.until = "start", now + self._start_deadline
        if any(post.expected != "place" for post in self._posts.values()) or not self._posts:
            self._placeless_until = float("inf")
        elif self._placeless_until == float("inf"):
            self._placeless_until = now + self._start_deadline

    def _hear(self, place: int, said: Message | Gone) -> None:
        post = self._posts[place]
        if isinstance(said, Started):
            self._backoff.started(place)
            post.name, post.expected, post.until = said.name, None, float("inf")
        elif isinstance(said, Scored | Failed):
            assert post.assignment is not None, "a worker speaks only when asked"
            self._backoff.answered(place)
            self._answers.append(Answer(post.assignment, said, post.name))
            post.assignment, post.expected, post.until = None, None, float("inf")
            if isinstance(said, Failed) and said.kind == OUT_OF_MEMORY:
                self._dismiss(place, "out of memory; a new worker takes its place")
        elif isinstance(said, StartFailure):
            self._dismiss_unready(place, said)
        elif post.expected in ("place", "start"):
            assert isinstance(said, Gone)
            self._dismiss_unready(place, StartFailure((said.reason,)))
        else:
            self._dismiss(place, said.message if isinstance(said, Lost) else said.reason)

    def _dismiss(self, place: int, reason: str) -> None:
        """Replace a worker that was ready once; doubt the idle ones."""
        post = self._posts.pop(place)
        post.member.kill()
        _log.warning("worker %s: %s", post.name, reason)
        self._backoff.lost(place, time.monotonic())
        if post.assignment is not None:
            self._answers.append(Answer(post.assignment, Lost(reason), post.name))
        for other in self._posts.values():
            if other.expected is None:
                other.expected, other.until = "check", time.monotonic() + _CHECK_DEADLINE
                other.member.check()

    def _dismiss_unready(self, place: int, failure: StartFailure) -> None:
        """Replace a worker that could not start, unless that is hopeless."""
        self._posts.pop(place).member.kill()
        self._not_started(place, failure)

    def _not_started(self, place: int, failure: StartFailure) -> None:
        _log.warning("worker at place %d did not start: %s", place, " ".join(failure.problems))
        others = {post.expected for post in self._posts.values()}
        ready, starting = bool(others - {"place", "start"}), "start" in others
        now = time.monotonic()
        error = self._backoff.not_started(place, failure, now, ready=ready, starting=starting)
        self._hopeless = self._hopeless or error

    def _expire(self) -> None:
        now = time.monotonic()
        if now >= self._placeless_until:
            self._placeless_until = now + self._start_deadline
            error = self._transport.no_room(self._start_deadline)
            self._hopeless = self._hopeless or error
        for place, post in list(self._posts.items()):
            if now < post.until:
                continue
            if post.expected == "start":
                late = f"not ready after {self._start_deadline:g} s"
                self._dismiss_unready(place, StartFailure((late,)))
            elif post.expected == "check":
                self._dismiss(place, f"no sign of life for {_CHECK_DEADLINE:g} s")
            else:
                self._dismiss(place, f"no answer within {post.allowed:.0f} s; it was stopped")

    def _feed(self) -> None:
        for place, post in list(self._posts.items()):
            if not self._queue:
                return
            if post.expected is not None:
                continue
            if post.member.give(self._queue[0]):
                post.assignment, post.expected = self._queue.popleft(), "answer"
                post.allowed = self._deadline(post.assignment)
                post.until = time.monotonic() + post.allowed
            else:
                self._dismiss(place, "gone while it was idle")

    def _next_change(self) -> float:
        """When the clock alone makes something happen."""
        missing = [self._backoff.due(p) for p in range(self._size) if p not in self._posts]
        clocks = (post.until for post in self._posts.values())
        return min([self._placeless_until, *missing, *clocks])
