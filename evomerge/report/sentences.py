"""The plain sentences about a run that the terminal, the report and the model card share."""

from __future__ import annotations

import math

from evomerge.constraints import Kept
from evomerge.report.claims import UNVERIFIED, tuned_on_test
from evomerge.report.evidence import (
    Standing,
    best_baseline,
    is_winner,
    results,
    smallest_visible_lead,
    standing,
)
from evomerge.report.formats import (
    Scale,
    count,
    duration,
    items_of,
    p_clause,
    truncated_share,
)
from evomerge.report.summary import Comparison, ModelRow, RunSummary, Spending
from evomerge.statistics import SMALL_HOLDOUT

STAMPS = {
    Standing.RUNNING: "search in progress",
    Standing.INTERRUPTED: "interrupted",
    Standing.BETTER: "better than every baseline",
    Standing.NOT_BETTER: "no better than the baselines",
    Standing.WORSE: "worse than the best baseline",
    Standing.UNDECIDED: "cannot tell",
    Standing.UNVERIFIED: "unverified",
    Standing.ALONE: "alone keeps the constraints",
    Standing.BROKEN: "violates a constraint",
}
_HEADLINES = {
    Standing.RUNNING: "The search is still running: there is no verdict yet.",
    Standing.INTERRUPTED: "The run was interrupted: the same command continues it.",
    Standing.BETTER: "The evolved merge beats every model and fixed recipe it was compared with.",
    Standing.NOT_BETTER: "Nothing beat the baselines: the best of them is handed over instead.",
    Standing.WORSE: "On the held-back items the merge does worse than the best baseline.",
    Standing.UNDECIDED: "The held-back items cannot tell whether the merge beats the baselines.",
    Standing.ALONE: "No baseline keeps every constraint on the held-back items; the merge does.",
    Standing.BROKEN: "The model handed over violates a constraint.",
    Standing.UNVERIFIED: "Nobody has checked this result: no items were held back for that.",
}
_MANY_FAILURES = 0.1
MUCH_TRUNCATED = 0.02
"""Share of cut answers from which on a score depends on the limit of their length."""


def stamps(summary: RunSummary) -> tuple[str, ...]:
    """What must stand on everything that shows this run's result, in capitals."""
    found: list[str] = []
    if standing(summary) is Standing.UNVERIFIED:
        found.append(UNVERIFIED)
    if summary.test_splits:
        found.append(tuned_on_test(summary.test_splits))
    return tuple(found)


def headline(summary: RunSummary) -> str:
    """The outcome in one sentence that needs no knowledge of the run."""
    situation = standing(summary)
    if situation is Standing.BETTER and not all(row.eligible for row in summary.holdout):
        return "The evolved merge beats every model and fixed recipe that keeps the constraints."
    return _HEADLINES[situation]


def score_sentence(summary: RunSummary, scale: Scale) -> str:
    """The winner's score and where it comes from; empty while there is no winner."""
    if summary.winner is None:
        return ""
    found = results(summary)
    row = next((row for row in found.rows if is_winner(summary, row)), summary.winner)
    words = f"{row.label} scores {scale.quantity(row.fitness)}"
    interval = scale.interval(row.low, row.high)
    if interval:
        words += f", 95 % interval {interval},"
    return f"{words} on {count(items_of(row), f'{found.split} item')}."


def lead_sentence(summary: RunSummary, scale: Scale) -> str:
    """The winner's lead over the bar it had to clear; empty when there is no such comparison."""
    rival = best_baseline(results(summary).rows)
    if rival is None or rival.comparison is None:
        return ""
    versus = rival.comparison
    words = f"Against the best baseline, {rival.label} at {scale.quantity(rival.fitness)}, "
    words += f"the lead is {scale.lead(versus.difference)}"
    details = [f"95 % interval {interval}" for interval in [_interval(scale, versus)] if interval]
    if math.isfinite(versus.p_value):
        details.append(p_clause(versus.p_value))
    return f"{words} ({', '.join(details)})." if details else f"{words}."


def evidence_sentences(summary: RunSummary, scale: Scale) -> tuple[str, ...]:
    """The result's score and its lead over the bar; empty until the run has finished."""
    if standing(summary) in {Standing.RUNNING, Standing.INTERRUPTED}:
        return ()
    said = (score_sentence(summary, scale), lead_sentence(summary, scale))
    return tuple(sentence for sentence in said if sentence)


def power_sentence(summary: RunSummary, scale: Scale) -> str:
    """How small a true lead the holdout could still have shown; empty when unknown."""
    found = results(summary)
    comparison = _tightest_test(summary, found.rows)
    visible = None if comparison is None else smallest_visible_lead(comparison)
    if not summary.holdout or visible is None:
        return ""
    amount = scale.lead(visible).removeprefix("+")
    return (
        f"With {count(found.items, 'holdout item')} a true lead of less than about {amount} "
        "would often go unnoticed (80 % power)."
    )


def truncation_sentence(summary: RunSummary) -> str:
    """How many answers of the winner and the others were cut off; empty when none was."""
    found = results(summary)
    shares = {row.label: truncated_share(row) for row in found.rows}
    ours = next((row.label for row in found.rows if is_winner(summary, row)), None)
    if not any(shares.values()):
        return ""
    others = {label: share for label, share in shares.items() if label != ours}
    most = max(others, key=lambda label: others[label], default=None)
    parts = [] if ours is None else [f"{_percent(shares[ours])} of the answers of {ours}"]
    if most is not None:
        words = "at most " if len(others) > 1 else ""
        parts.append(f"{words}{_percent(others[most])} of those of the others ({most})")
    return f"Cut off by max_gen_toks on {found.split} items: {', '.join(parts)}."


def cautions(summary: RunSummary, scale: Scale) -> tuple[str, ...]:
    """Everything a reader must know before believing the result; the run's warnings included."""
    notes = [*_leak_cautions(summary), *_holdout_cautions(summary, scale)]
    notes += [*_constraint_cautions(summary), *_truncation_cautions(summary), *summary.warnings]
    spent = summary.spending
    if spent.failed > _MANY_FAILURES * max(spent.candidates, 1):
        notes.append(
            f"{spent.failed:,} of {count(spent.candidates, 'candidate')} failed: the space may "
            "reach recipes that cannot be built or scored."
        )
    return tuple(dict.fromkeys(notes))


def failures(spent: Spending) -> str:
    """How many candidates failed, as a clause."""
    failed = f"{spent.failed:,} failed" if spent.failed else "none failed"
    return f"{failed}, {spent.rejected:,} rejected unscored" if spent.rejected else failed


def time_sentence(spent: Spending) -> str:
    """Where the workers' time went; empty before anything was measured."""
    total = spent.build_seconds + spent.score_seconds
    if not math.isfinite(total) or total <= 0.0:
        return ""
    build = round(100.0 * spent.build_seconds / total)
    return f"{duration(total)}: {build} % building merges, {100 - build} % scoring"


def _leak_cautions(summary: RunSummary) -> list[str]:
    notes = []
    if summary.test_splits:
        tasks = ", ".join(summary.test_splits)
        notes.append(
            f"The recipe was tuned on items of the test split of {tasks}: compare it with no "
            "published score on that test, and report none."
        )
    if summary.near_duplicates:
        held = dict(summary.split_sizes).get("holdout", 0)
        notes.append(
            f"{summary.near_duplicates:,} of {count(held, 'holdout item')} nearly repeat items "
            "that the recipe was tuned on: scores on them may be too high."
        )
    return notes


def _holdout_cautions(summary: RunSummary, scale: Scale) -> list[str]:
    situation = standing(summary)
    if situation is Standing.UNVERIFIED:
        return [
            "There is no holdout: every number here comes from items that the search or the "
            "selection used, so it is probably too high. Hold items back and run again."
        ]
    if not summary.holdout and dict(summary.split_sizes).get("holdout", 0) == 0:
        return ["No items are held back: this run will end unverified."]
    items = results(summary).items
    small = bool(summary.holdout) and items < SMALL_HOLDOUT
    said = []
    if small:
        said.append(
            f"The holdout is small ({count(items, 'item')}; {SMALL_HOLDOUT} or more is better)."
        )
    if small or situation is Standing.UNDECIDED:
        said += [_claim_sentence(summary, scale), power_sentence(summary, scale)]
    note = " ".join(sentence for sentence in said if sentence)
    return [note] if note else []


def _truncation_cautions(summary: RunSummary) -> list[str]:
    if all(truncated_share(row) <= MUCH_TRUNCATED for row in results(summary).rows):
        return []
    return [
        f"{truncation_sentence(summary)} The score depends on max_gen_toks: raise it in the task "
        "file, or add a stop string that ends the answers."
    ]


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"


def _claim_sentence(summary: RunSummary, scale: Scale) -> str:
    """That the lead on the selection items is less than the holdout can show, if it is."""
    comparison = _tightest_test(summary, results(summary).rows)
    visible = None if comparison is None else smallest_visible_lead(comparison)
    bar = best_baseline(summary.selection)
    if visible is None or bar is None or bar.comparison is None:
        return ""
    claimed = bar.comparison.difference
    if not 0.0 < claimed < visible:
        return ""
    return (
        f"The lead on the selection items, {scale.lead(claimed)}, is less than the holdout can "
        "reliably show."
    )


def _constraint_cautions(summary: RunSummary) -> list[str]:
    """What the winner's constraints leave open, or worse."""
    winner = None if summary.winner is None else summary.winner.candidate
    ours = [line for line in summary.constraints if line.candidate == winner]
    open_ones = [line.text for line in ours if line.kept == Kept.UNCLEAR.value]
    broken = [line.text for line in ours if line.kept == Kept.VIOLATED.value]
    items = f"the {results(summary).split} items"
    notes = [f"On {items} the model handed over violates: {text}." for text in broken]
    return notes + [f"{items.capitalize()} cannot tell whether it keeps: {t}." for t in open_ones]


def _tightest_test(summary: RunSummary, rows: tuple[ModelRow, ...]) -> Comparison | None:
    """The comparison with the bar; with the next best model when the bar itself was kept."""
    others = (row for row in rows if not is_winner(summary, row))
    return next((row.comparison for row in others if row.comparison is not None), None)


def _interval(scale: Scale, versus: Comparison) -> str:
    return scale.signed_interval(versus.low, versus.high)
