"""Evaluations: asks a pool for outcomes, records each before anybody sees it, never asks twice."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from evomerge.candidate import NO_ROOM, Assignment, Candidate, Failed, ItemSelection, Scored
from evomerge.errors import DiskFull, Interrupted, TooManyFailures
from evomerge.run.deadlines import Deadlines
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.ledger import Ledger, Rewound, Tally
from evomerge.run.progress import Evaluated
from evomerge.score import Objective, TaskOutcomes

_WINDOW = 20
_MOST = 15
"""Of them. With a fifth failing by chance, more than half of twenty do so once in a few nights."""
_OPENING = 5
_BEGIN_AGAIN = "begin again at"


class Evaluations:
    """The one way to an outcome (stateful: ledger, dispatcher and what has been spent)."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        objective: Objective,
        stop: threading.Event,
        *,
        deadlines: Deadlines | None = None,
        draining: Callable[[int], None] | None = None,
    ) -> None:
        """`stop` is set from outside to drain the pool and raise Interrupted.

        `draining` is told how many evaluations are waited for when that begins.
        `deadlines` are those of the dispatcher's pool, which learn from every outcome.
        """
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._objective = objective
        self._stop = stop
        self._draining = draining
        self._no_room: str | None = None
        self._deadlines = deadlines or Deadlines()
        self._waiting: dict[tuple[int, str], tuple[Candidate, ItemSelection]] = {}
        self._replayed: list[tuple[int, Tally]] = []
        self._broken: dict[str, Failed] = {}
        self._recent: deque[tuple[tuple[int, str], Failed | None]] = deque(maxlen=_WINDOW)
        self._first_failure: Failed | None = None
        self._spent_before = float(ledger.meta("seconds") or 0.0)
        self._began = time.monotonic()
        self._fresh = False
        self._any_scored = False
        self.items_spent = 0

    @property
    def seconds(self) -> float:
        """Wall time spent on this run, however often it was continued."""
        return self._spent_before + time.monotonic() - self._began

    @property
    def replaying(self) -> bool:
        """Whether outcomes on record have been asked for and are still to come."""
        return bool(self._replayed)

    def submit(self, candidate: Candidate, stage: str, items: ItemSelection) -> None:
        """Ask for one outcome; it comes out of `answers`, at once if it is on record.

        A recipe that failed by itself fails again, without a worker.
        """
        self._ledger.add_candidate(candidate)
        key = (candidate.id, stage)
        self._waiting[key] = (candidate, items)
        known = self._ledger.tally(key)
        if known is None and candidate.recipe.digest in self._broken:
            failed = self._broken[candidate.recipe.digest]
            self._ledger.record(key, failed, attempts=0, worker="")
            known = self._ledger.tally(key)
        if known is not None:
            heapq.heappush(self._replayed, (known.seq, known))
        else:
            self._dispatcher.submit(Assignment(candidate.id, stage, candidate.recipe, items))

    def answers(self) -> Iterator[Evaluated]:
        """The evaluations that are known now; waits up to a second for the first.

        What is on record comes in the order in which it was counted.

        Raises:
            Interrupted: `stop` was set; everything that was under way has been recorded.
            TooManyFailures: most of the last candidates failed.
        """
        if self._stop.is_set():
            self._drain()
        if self.replaying:
            yield self._answer(heapq.heappop(self._replayed)[1], replayed=True)
            return
        yield from self._poll(1.0)
        if self._no_room is not None:
            self._drain()

    def each(
        self, candidates: Sequence[Candidate], stage: str, items: ItemSelection
    ) -> Iterator[Evaluated]:
        """Evaluations of all `candidates` on the same items, in the order they arrive."""
        for candidate in candidates:
            self.submit(candidate, stage, items)
        while self._waiting:
            yield from self.answers()

    def results(self, candidate: int, stage: str) -> tuple[TaskOutcomes, ...]:
        """The per-item outcomes of a scored evaluation, read from the record."""
        known = self._ledger.counted((candidate, stage))
        assert known is not None, "it was answered"
        assert isinstance(known[1], Scored), "it was scored"
        return known[1].results

    def save_clock(self) -> None:
        """Note the time spent, for when the run is continued; replaying takes none."""
        if self._fresh:
            self._ledger.set_meta("seconds", self.seconds, lasting=True)
            self._fresh = False

    def begin_again_at(self, failures: Iterable[tuple[int, str]]) -> None:
        """Have the run, when it is continued, forget these and all evaluations after them.

        They are why it stops; whoever continues it has mended something meanwhile.
        """
        found = [known.seq for key in failures if (known := self._ledger.tally(key)) is not None]
        if found:
            self._ledger.set_meta(_BEGIN_AGAIN, min(found))

    def forget_failures(self) -> Rewound | None:
        """Go back to before the failures that stopped the run; None when none did."""
        seq = self._ledger.meta(_BEGIN_AGAIN)
        return None if seq is None else self._ledger.rewind(int(seq))

    def _poll(self, timeout: float) -> Iterator[Evaluated]:
        for answer in self._dispatcher.poll(timeout):
            key, outcome = answer.assignment.key, answer.outcome
            if isinstance(outcome, Failed) and outcome.kind == NO_ROOM:
                self._no_room = outcome.message  # says nothing about the candidate
                continue
            self._fresh = True
            self._ledger.record(key, outcome, attempts=answer.attempts, worker=answer.worker)
            counted = self._ledger.tally(key)
            assert counted is not None, "it was recorded above"
            yield self._answer(counted, replayed=False)

    def _drain(self) -> None:
        """Record what is under way, then stop; queued work that no worker took is dropped."""
        self._dispatcher.cancel_queued()
        under_way = self._dispatcher.pending()
        if under_way and self._draining is not None:
            self._draining(under_way)
        while self._dispatcher.pending():
            for _ in self._poll(1.0):
                pass
        self.save_clock()
        if self._no_room is not None:
            raise DiskFull(
                f"a worker's disk is full ({self._no_room}); finished work is saved: free some "
                "space and run the same command again"
            )
        raise Interrupted("interrupted; finished work is saved, the same command continues")

    def _answer(self, counted: Tally, *, replayed: bool) -> Evaluated:
        candidate, items = self._waiting.pop(counted.key)
        failed = counted.failure
        rejected = failed is not None and failed.rejected
        if failed is not None and not rejected:
            self._broken.setdefault(candidate.recipe.digest, failed)
        self._any_scored |= failed is None
        self._deadlines.observe(counted)
        self.items_spent += 0 if rejected else items.count
        if not replayed and not rejected:  # what stopped the run may have been mended since
            self._check_failures(counted.key, failed)
        sums = counted.totals
        return Evaluated(
            candidate,
            counted.stage,
            None if sums is None else self._objective.fitness_of(sums),
            sums,
            None if failed is None else f"{failed.kind}: {failed.message}",
            self.items_spent,
            replayed,
            rejected,
        )

    def _check_failures(self, key: tuple[int, str], failed: Failed | None) -> None:
        """The failure policy: 15 of the last 20, or the first 5 of a run all alike."""
        self._recent.append((key, failed))
        self._first_failure = self._first_failure or failed
        failures = {at: entry for at, entry in self._recent if entry is not None}
        opening = len(self._recent) == len(failures) == _OPENING and not self._any_scored
        alike = len({(entry.kind, entry.message) for entry in failures.values()}) == 1
        if (opening and alike) or len(failures) >= _MOST:
            first = self._first_failure
            assert first is not None
            self.begin_again_at(failures)
            self.save_clock()
            raise TooManyFailures(
                f"{len(failures)} of the last {len(self._recent)} candidates failed; the first: "
                f"{first.kind}: {first.message}; repair the cause (logs/ has the workers' last "
                "words) and run the same command again: it begins before these failures"
            )
