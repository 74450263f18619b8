"""When a worker's place is filled again after a death or a failed start, and when no more."""

from __future__ import annotations

from collections import Counter
from typing import final

from evomerge.errors import EvomergeError, Interrupted
from evomerge.run.pools.serving import StartFailure

MAX_STRIKES = 3
PATIENT_STRIKES = 40
"""Failed starts in a row once workers have been ready: about half an hour of waiting in between."""
_AFTER_LOSS = 0.25
_AFTER_FAILED_START = 1.0  # a killed process can hold its GPU memory for some seconds
_LONGEST = 60.0


@final
class Backoff:
    """Per place: misfortunes in a row and the earliest time of the next start (stateful)."""

    def __init__(self) -> None:
        self._losses: Counter[int] = Counter()
        self._strikes: Counter[int] = Counter()
        self._due: dict[int, float] = {}
        self._proven = False

    def due(self, place: int) -> float:
        """The clock's value from which the place may be filled."""
        return self._due.get(place, 0.0)

    def started(self, place: int) -> None:
        """A worker has become ready."""
        self._strikes[place] = 0
        self._proven = True

    def answered(self, place: int) -> None:
        """A worker has done something useful."""
        self._losses[place] = 0

    def lost(self, place: int, now: float) -> None:
        """A ready worker has gone."""
        self._losses[place] += 1
        self._wait(place, now, _AFTER_LOSS, self._losses[place])

    def not_started(
        self, place: int, failure: StartFailure, now: float, *, ready: bool, starting: bool
    ) -> EvomergeError | None:
        """A worker has not become ready; returns the error that ends the run, if it should end.

        Nothing ends it while other workers are `ready`: one machine may lack what others have.
        If none ever was, a user's error ends it as soon as no other worker is `starting`, or at its
        second time, because the next worker would say the same; anything else at the third time in
        a row. Later, whatever it is may pass (a file server restarts), so it takes half an hour.
        If the next one will be `elsewhere`, which a node causes a few times, this was no strike.
        """
        if failure.elsewhere:
            self._wait(place, now, _AFTER_FAILED_START, 1)
            return None
        self._strikes[place] += 1
        strikes = self._strikes[place]
        if not ready and not self._proven:
            if failure.error is not None and (strikes > 1 or not starting):
                return failure.error(failure.problems)
            if strikes >= MAX_STRIKES:
                return EvomergeError(_tried(strikes, failure))
        if not ready and strikes >= PATIENT_STRIKES:
            return Interrupted(f"{_tried(strikes, failure)}; the same command continues")
        self._wait(place, now, _AFTER_FAILED_START, strikes)
        return None

    def _wait(self, place: int, now: float, first: float, times: int) -> None:
        self._due[place] = now + min(_LONGEST, first * 2.0 ** min(times - 1, 10))


def _tried(strikes: int, failure: StartFailure) -> str:
    return (
        f"no worker could be started in {strikes} attempts, the last time because: "
        f"{' '.join(failure.problems)}"
    )
