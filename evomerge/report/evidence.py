"""What a summary proves: the situation of the run and its result rows, ready to be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from evomerge.report.formats import MISSING, Scale, items_of, p_text
from evomerge.report.summary import Comparison, ModelRow, RunSummary
from evomerge.statistics import interval_stderr, visible_difference

KIND_WORDS = {
    "base": "base model",
    "parent": "parent",
    "baseline": "fixed recipe",
    "stage": "earlier stage",
}
EVOLVED = ("winner", "stage")


class Standing(Enum):
    """What can be claimed about a run at this moment."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    BETTER = "better"
    NOT_BETTER = "not better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    UNVERIFIED = "unverified"
    ALONE = "alone keeps the constraints"
    BROKEN = "violates a constraint"


VERIFIED = frozenset(
    {
        Standing.BETTER,
        Standing.NOT_BETTER,
        Standing.WORSE,
        Standing.UNDECIDED,
        Standing.ALONE,
        Standing.BROKEN,
    }
)
"""The situations in which the holdout was used."""


@dataclass(frozen=True)
class ResultRow:
    """One model in a results table, every cell formatted; leads are the winner minus this model."""

    label: str
    kind: str
    score: str
    interval: str
    lead: str
    lead_interval: str
    p_value: str
    winner: bool
    rival: bool


@dataclass(frozen=True)
class Results:
    """The most trustworthy rows a run has: holdout, else selection, else baselines."""

    split: str
    items: int
    rows: tuple[ModelRow, ...]
    """Best first."""


@dataclass(frozen=True)
class HonestyRow:
    """One model's selection score against its holdout score; `gap` is claimed minus held back."""

    label: str
    claimed: str
    holdout: str
    gap: str
    gap_interval: str
    reading: str
    winner: bool


def standing(summary: RunSummary) -> Standing:
    """The situation of the run; a verdict without holdout rows never counts as verified."""
    if summary.state != "finished":
        return Standing.INTERRUPTED if summary.state == "interrupted" else Standing.RUNNING
    if not summary.holdout:
        return Standing.UNVERIFIED
    return Standing.BROKEN if summary.broken else _verified(summary)


def _verified(summary: RunSummary) -> Standing:
    """What the holdout shows of a winner that it does not see violate a constraint."""
    if summary.better is None:
        return Standing.UNDECIDED
    if summary.better:
        alone = best_baseline(summary.holdout) is None
        return Standing.ALONE if alone else Standing.BETTER
    evolved = summary.winner is not None and summary.winner.kind in EVOLVED
    return Standing.WORSE if evolved else Standing.NOT_BETTER


def results(summary: RunSummary) -> Results:
    """The rows to show first, best first, with the split and number of items they come from."""
    known = (
        ("holdout", summary.holdout),
        ("selection", summary.selection),
        ("search", summary.baselines),
    )
    split, rows = next(((name, rows) for name, rows in known if rows), ("search", ()))
    items = max((items_of(row) for row in rows), default=0)
    return Results(split, items, best_first(rows))


def best_first(rows: tuple[ModelRow, ...]) -> tuple[ModelRow, ...]:
    """Rows by falling fitness; ties keep candidate order, rows without a fitness come last."""
    return tuple(sorted(rows, key=lambda row: (-_rank(row.fitness), row.candidate)))


def is_winner(summary: RunSummary, row: ModelRow) -> bool:
    """Whether the row is the model that the run hands over."""
    return summary.winner is not None and row.candidate == summary.winner.candidate


def best_baseline(rows: tuple[ModelRow, ...]) -> ModelRow | None:
    """The bar to clear: the best base, parent, fixed recipe or earlier result among the rows.

    An earlier result that is handed over is none for itself, and whoever violates a constraint is
    none for anybody.
    """
    bars = (row for row in best_first(rows) if row.kind != "winner" and row.eligible)
    return next((r for r in bars if r.kind != "stage" or r.comparison is not None), None)


def kind_word(summary: RunSummary, row: ModelRow) -> str:
    """What the row is, in a word or two; says so when a baseline was kept as the result."""
    kept = is_winner(summary, row)
    if row.kind == "winner":
        return "winner" if kept else "finalist"
    word = KIND_WORDS.get(row.kind, row.kind)
    if not row.eligible:
        word = "breaks limit"
    return f"{word}, kept" if kept else word


def result_rows(summary: RunSummary, scale: Scale) -> tuple[ResultRow, ...]:
    """The rows of `results`, formatted."""
    rows = results(summary).rows
    rival = best_baseline(rows)
    return tuple(_result_row(summary, row, scale, rival) for row in rows)


def honesty_rows(summary: RunSummary, scale: Scale) -> tuple[HonestyRow, ...]:
    """Models scored on selection and on holdout items, best on selection first."""
    held_back = {row.candidate: row for row in summary.holdout}
    pairs = [
        (row, held_back[row.candidate])
        for row in best_first(summary.selection)
        if row.candidate in held_back
    ]
    return tuple(_honesty_row(summary, claimed, held, scale) for claimed, held in pairs)


def smallest_visible_lead(comparison: Comparison) -> float | None:
    """The true lead that a test with this interval finds in 4 of 5 cases; None when unknown."""
    stderr = interval_stderr(comparison.low, comparison.high)
    return visible_difference(stderr) if math.isfinite(stderr) and stderr > 0.0 else None


def _rank(fitness: float) -> float:
    return fitness if math.isfinite(fitness) else -math.inf


def _result_row(
    summary: RunSummary, row: ModelRow, scale: Scale, rival: ModelRow | None
) -> ResultRow:
    winner = is_winner(summary, row)
    versus = None if winner else row.comparison
    return ResultRow(
        label=row.label,
        kind=kind_word(summary, row),
        score=scale.number(row.fitness),
        interval=scale.interval(row.low, row.high),
        lead="" if versus is None else scale.signed(versus.difference),
        lead_interval="" if versus is None else scale.signed_interval(versus.low, versus.high),
        p_value="" if versus is None else p_text(versus.p_value),
        winner=winner,
        rival=rival is not None and row.candidate == rival.candidate,
    )


def _honesty_row(
    summary: RunSummary, claimed: ModelRow, held: ModelRow, scale: Scale
) -> HonestyRow:
    gap = claimed.fitness - held.fitness
    # Both splits are independent samples, so half-widths add in quadrature.
    half = math.hypot(claimed.high - claimed.low, held.high - held.low) / 2.0
    if not (math.isfinite(gap) and math.isfinite(half)):
        reading = MISSING
    elif abs(gap) <= half:
        reading = "agrees within chance"
    else:
        reading = "promised too much" if gap > 0.0 else "promised too little"
    return HonestyRow(
        label=claimed.label,
        claimed=scale.number(claimed.fitness),
        holdout=scale.number(held.fitness),
        gap=scale.signed(gap),
        gap_interval=scale.signed_interval(gap - half, gap + half),
        reading=reading,
        winner=is_winner(summary, claimed),
    )
