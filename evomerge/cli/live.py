"""Shows a running search: a live table on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table

from evomerge.run.progress import (
    Evaluated,
    Finished,
    GenerationDone,
    PhaseStarted,
    Progress,
    Warned,
)


class View:
    """What has been seen of a search so far (stateful)."""

    def __init__(self, until: float | None) -> None:
        """`until`: seconds from the beginning after which the search proposes nothing more."""
        self._until = until
        self._began = time.monotonic()
        self._phase = "starting workers"
        self._planned = 0
        self._done = 0
        self._phase_began = self._began
        self._fresh = 0
        self._items = 0
        self._failures: list[str] = []
        self._rejected = 0
        self._bar: tuple[float, str] | None = None
        self._generation: GenerationDone | None = None
        self._best: tuple[float, int] | None = None

    def see(self, event: Progress) -> str | None:
        """Take one event in; returns the line to print when the output is piped."""
        if isinstance(event, PhaseStarted):
            self._phase, self._planned, self._done = event.phase, event.evaluations, 0
            self._phase_began, self._fresh = time.monotonic(), 0
            return f"{event.phase}: {event.evaluations} evaluations"
        if isinstance(event, Evaluated):
            return self._evaluated(event)
        if isinstance(event, GenerationDone):
            self._generation = event
            return (
                f"generation {event.generation}: best {event.best:.4f}, mean {event.mean:.4f}, "
                f"{event.items_spent:,} items, {self._rate()}, {self._left()}"
            )
        if isinstance(event, Warned):
            return f"warning: {event.text}"
        return f"winner: candidate {event.winner.id} ({event.winner.origin})"

    def _evaluated(self, event: Evaluated) -> str | None:
        self._done += 1
        self._fresh += not event.replayed
        self._items = event.items_spent
        name = f"{event.candidate.id} ({event.candidate.origin})"
        if event.fitness is None:
            if event.rejected:
                self._rejected += 1
                return None
            self._failures.append(f"candidate {name}: {event.failure}")
            return f"failed: {self._failures[-1]}"
        if event.stage == "search" and (self._best is None or event.fitness > self._best[0]):
            self._best = (event.fitness, event.candidate.id)
        if event.stage == "baseline" and (self._bar is None or event.fitness > self._bar[0]):
            self._bar = (event.fitness, event.candidate.origin)
        quiet = event.stage == "search" or "reference" in event.stage
        return None if quiet else f"{event.stage}: {name} {event.fitness:.4f}"

    def first_failure(self, event: Progress) -> bool:
        """Whether the event is the first failure: that one is shown in full, at once."""
        failed = isinstance(event, Evaluated) and event.failure is not None and not event.rejected
        return failed and len(self._failures) == 1

    def _rate(self) -> str:
        elapsed = max(time.monotonic() - self._phase_began, 1e-9)
        return f"{60 * self._fresh / elapsed:.0f} candidates/min"

    def _left(self) -> str:
        elapsed = time.monotonic() - self._phase_began
        if self._until is not None and self._phase.endswith("search"):
            left = self._until - (time.monotonic() - self._began)
            return f"{_clock(max(left, 0.0))} left"
        if not self._fresh or self._planned >= 10**8:
            return "time left unknown"
        return f"{_clock(elapsed / self._fresh * max(self._planned - self._done, 0))} left"

    def table(self) -> Table:
        """The state as a small table."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        planned = str(self._planned) if self._planned < 10**8 else "?"
        table.add_row("phase", f"{self._phase}, {self._done} of {planned} evaluations")
        if self._bar is not None:
            table.add_row("baseline", f"{self._bar[0]:.4f}  {self._bar[1]}")
        if self._generation is not None:
            done = self._generation
            table.add_row(f"gen {done.generation}", f"best {done.best:.4f}, mean {done.mean:.4f}")
        if self._best is not None:
            table.add_row(
                "best", f"{self._best[0]:.4f}  candidate {self._best[1]}, on its minibatch"
            )
        table.add_row("items", f"{self._items:,}, {self._rate()}, {self._left()} in this phase")
        if self._rejected:
            table.add_row("rejected", f"{self._rejected} broken stacks, not scored")
        if self._failures:
            table.add_row("failed", f"{len(self._failures)}, last {self._failures[-1]}")
        return table


def watch(progress: Iterator[Progress], until: float | None, console: Console) -> Finished:
    """Follow a search to its end, showing it on `console`."""
    view = View(until)
    if not console.is_terminal:
        return _print_lines(progress, view, console)
    # Standard output stays where the caller sent it.
    table = Live(view.table(), console=console, refresh_per_second=4, redirect_stdout=False)
    with table as live:
        for event in progress:
            line = view.see(event)
            if line and (isinstance(event, Warned) or view.first_failure(event)):
                live.console.print(line, markup=False, highlight=False, soft_wrap=True)
            live.update(view.table())
            if isinstance(event, Finished):
                return event
    raise AssertionError("a search ends with Finished")


def _print_lines(progress: Iterator[Progress], view: View, console: Console) -> Finished:
    for event in progress:
        line = view.see(event)
        if line is not None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if isinstance(event, Finished):
            return event
    raise AssertionError("a search ends with Finished")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
