"""What a result does not prove, in words that go with every file that is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evomerge.report.recorded import RecordedRun

UNVERIFIED = "UNVERIFIED"


def tuned_on_test(tasks: Iterable[str]) -> str:
    """The stamp of a run on test data."""
    return f"TUNED ON THE TEST SPLIT OF {', '.join(tasks)}"


def caveats(run: RecordedRun, number: int) -> tuple[str, ...]:
    """One line for each reason why a candidate's score in this run may be too high."""
    found: list[str] = []
    if number not in run.results("holdout"):
        found.append(f"{UNVERIFIED}: not scored on held-back items")
    if run.resolved["test_splits"]:
        found.append(tuned_on_test(run.resolved["test_splits"]))
    return tuple(found)


def with_caveats(text: str, lines: Sequence[str]) -> str:
    """A YAML text with these lines as comments at its top."""
    return "".join(f"# {line}\n" for line in lines) + text
