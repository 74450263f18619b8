"""What the report page says besides its results table: key numbers, protocol, tasks, honesty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evomerge.report.evidence import Standing, best_baseline, is_winner, results, standing
from evomerge.report.formats import Scale, count, duration, items_of, p_clause, scale_for
from evomerge.report.sentences import (
    failures,
    power_sentence,
    time_sentence,
    truncation_sentence,
)
from evomerge.report.summary import ModelRow, RunSummary, Spending


@dataclass(frozen=True)
class Figure:
    """One key number: what it is, the number, its unit and lines of context."""

    name: str
    value: str
    context: tuple[str, ...]
    unit: str = ""


@dataclass(frozen=True)
class TaskTable:
    """Task metrics in their own units: one column per task, one row per model."""

    tasks: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], bool], ...]
    """(label, one cell per task, whether it is the winner)."""


def key_figures(summary: RunSummary, scale: Scale) -> tuple[Figure, ...]:
    """The numbers a reader wants first: score, lead, effort, cost."""
    spent = summary.spending
    return (
        *_scores(summary, scale),
        Figure(
            "candidates tried",
            f"{spent.candidates:,}",
            (failures(spent), *_budget(spent.candidate_budget)),
        ),
        Figure(
            "items answered", f"{spent.items:,}", ("search and final", *_budget(spent.item_budget))
        ),
        Figure("time", duration(spent.seconds), _time_budget(spent)),
    )


def protocol(summary: RunSummary, scale: Scale) -> tuple[tuple[str, str], ...]:
    """How the numbers were measured, as (term, explanation) pairs."""
    facts = (
        ("Score", _score_fact(summary)),
        ("Items", _split_fact(summary)),
        ("Baselines", _baseline_fact(summary)),
        ("Search", _search_fact(summary)),
        ("Choice of the winner", _choice_fact(summary)),
        ("Holdout", _holdout_fact(summary)),
        ("Intervals", "95 %. Leads are paired: both models answered the same items. p: one-sided."),
        ("Resolution", power_sentence(summary, scale)),
        ("Cut answers", truncation_sentence(summary)),
        ("Worker time", time_sentence(summary.spending)),
        ("Seed", str(summary.seed)),
    )
    return tuple((term, text) for term, text in facts if text)


def task_table(summary: RunSummary) -> TaskTable | None:
    """Metrics task by task, or None for a single task, whose metric the main table shows."""
    rows = results(summary).rows
    tasks = list(dict.fromkeys((s.task, s.metric) for row in rows for s in row.scores))
    if len(tasks) < 2:
        return None
    scales = {key: _task_scale(rows, key) for key in tasks}
    heads = tuple(f"{task}: {metric}" for task, metric in tasks)
    body = tuple(
        (
            row.label,
            tuple(_task_cell(row, key, scales[key]) for key in tasks),
            is_winner(summary, row),
        )
        for row in rows
    )
    return TaskTable(heads, body)


def best_minibatch(summary: RunSummary, scale: Scale) -> str:
    """What the best raw search score would have promised; empty without search and holdout."""
    held = next((row for row in summary.holdout if is_winner(summary, row)), None)
    seen = [p.best for p in summary.history if math.isfinite(p.best)]
    if held is None or not seen or not math.isfinite(held.fitness):
        return ""
    return (
        f"The highest score on a search minibatch ({count(summary.minibatch, 'item')}) was "
        f"{scale.quantity(max(seen))}. The best of many noisy scores is lucky by construction, so "
        f"it is never reported as a result: on the holdout the model handed over scores "
        f"{scale.quantity(held.fitness)}."
    )


def _scores(summary: RunSummary, scale: Scale) -> tuple[Figure, ...]:
    found = results(summary)
    bar = best_baseline(found.rows)
    figures = []
    if summary.winner is not None:
        row = next((row for row in found.rows if is_winner(summary, row)), summary.winner)
        interval = scale.interval(row.low, row.high)
        context = ("95 % interval", interval) if interval else ()
        name = f"{found.split} score of the result"
        figures.append(Figure(name, scale.number(row.fitness), context, scale.unit))
    elif summary.history:
        last = summary.history[-1]
        context = (f"generation {last.generation}", count(summary.minibatch, "item"))
        figures.append(Figure("latest mean fitness", scale.number(last.mean), context, scale.unit))
    if bar is not None and bar.comparison is not None:
        versus = bar.comparison
        interval = scale.signed_interval(versus.low, versus.high)
        lead = scale.signed(versus.difference)
        context = (interval, p_clause(versus.p_value))
        figures.append(Figure("lead over the best baseline", lead, context, scale.lead_unit))
    elif bar is not None:
        figures.append(Figure("best baseline", scale.number(bar.fitness), (bar.label,), scale.unit))
    return tuple(figures)


def _budget(limit: int | None) -> tuple[str, ...]:
    return () if limit is None else (f"budget {limit:,}",)


def _time_budget(spent: Spending) -> tuple[str, ...]:
    if spent.time_budget is None:
        return ("wall clock",)
    return ("wall clock", f"budget {duration(spent.time_budget)}")


def _score_fact(summary: RunSummary) -> str:
    return f"{summary.metric}. Fitness is this score, oriented so that more is better."


def _split_fact(summary: RunSummary) -> str:
    sizes = ", ".join(f"{size:,} {name}" for name, size in summary.split_sizes)
    return f"{sizes}. No item is in two splits." if sizes else ""


def _baseline_fact(summary: RunSummary) -> str:
    if not summary.baselines:
        return ""
    items = max(items_of(row) for row in summary.baselines)
    return (
        f"{count(len(summary.baselines), 'baseline')} (base, parents, fixed recipes) were scored "
        f"first, all on the same {count(items, 'search item')}."
    )


def _search_fact(summary: RunSummary) -> str:
    return (
        f"{summary.algorithm} over {count(summary.dimensions, 'gene')} of a {summary.method} "
        f"merge, {count(len(summary.history), 'generation')}; candidates of a generation answered "
        f"the same {count(summary.minibatch, 'item')}."
    )


def _choice_fact(summary: RunSummary) -> str:
    if not summary.selection:
        return ""
    items = max(items_of(row) for row in summary.selection)
    return (
        f"The last {count(len(summary.selection), 'model')} of the final were compared on "
        f"{count(items, 'selection item')}; search scores did not decide."
    )


def _holdout_fact(summary: RunSummary) -> str:
    if summary.holdout:
        items = max(items_of(row) for row in summary.holdout)
        return f"{count(items, 'item')}, used once, after the winner was fixed."
    if standing(summary) is Standing.UNVERIFIED:
        return "Nothing was held back: the result is unverified."
    size = dict(summary.split_sizes).get("holdout", 0)
    return f"{count(size, 'item')}, untouched until the winner is fixed." if size else "No items."


def _task_scale(rows: tuple[ModelRow, ...], key: tuple[str, str]) -> Scale:
    values = [s.value for row in rows for s in row.scores if (s.task, s.metric) == key]
    return scale_for(values, values)


def _task_cell(row: ModelRow, key: tuple[str, str], scale: Scale) -> str:
    score = next((s for s in row.scores if (s.task, s.metric) == key), None)
    if score is None:
        return ""
    error = f" ± {scale.number(score.stderr)}" if math.isfinite(score.stderr) else ""
    return f"{scale.quantity(score.value)}{error}"
