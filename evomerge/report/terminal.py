"""A run on a terminal: the results table and plain lines, readable without colour at 80 columns."""

from __future__ import annotations

import math

from rich import box
from rich.table import Table
from rich.text import Text

from evomerge.report.evidence import (
    ResultRow,
    best_baseline,
    result_rows,
    results,
)
from evomerge.report.formats import count, duration, scale_of
from evomerge.report.front_text import (
    constraint_sentences,
    front_heads,
    front_lines,
    front_sentences,
)
from evomerge.report.sentences import (
    cautions,
    evidence_sentences,
    failures,
    headline,
    stamps,
    time_sentence,
    truncation_sentence,
)
from evomerge.report.summary import RunSummary, Spending

_TITLES = {
    "holdout": "Holdout: {items} that neither the search nor the selection used",
    "selection": "Selection: {items} used to choose the winner; unverified",
    "search": "Baselines before the search, on {items} of the search split",
}


def results_table(summary: RunSummary) -> Table:
    """The most trustworthy scores of the run, best first, with the winner's lead over each model.

    Holdout rows when there are any, else selection rows, else the baselines; the title says which.
    Names are never read as markup.
    """
    scale = scale_of(summary)
    found = results(summary)
    table = Table(
        title=Text(_TITLES[found.split].format(items=count(found.items, "item"))),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    unit = f" {scale.unit}" if scale.unit else ""
    # Percentages always fit beside a name; longer decimals may break before their interval.
    fits = bool(scale.unit)
    table.add_column("model", overflow="fold")
    table.add_column("kind", max_width=12)
    table.add_column(f"score{unit}\n[95 %]", no_wrap=fits)
    if found.split != "search":
        table.add_column("winner's lead\n[95 %]", no_wrap=fits)
        table.add_column("p", justify="right", no_wrap=True)
    for row in result_rows(summary, scale):
        cells = _cells(row)[: len(table.columns)]
        table.add_row(*cells, style="bold green" if row.winner else None)
    return table


def front_table(summary: RunSummary) -> Table | None:
    """The models of the front with their scores in every objective; None without one."""
    lines = [line for line in front_lines(summary) if line.place == "front"]
    if not lines:
        return None
    assert summary.front is not None, "it has lines"
    table = Table(
        title=Text(f"The front on the {summary.front.split} items (* differs from the winner)"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("number", justify="right")
    table.add_column("model", overflow="fold")
    for head in front_heads(summary):
        table.add_column(Text(head), justify="right")
    for line in lines:
        cells = (str(line.candidate), line.label, *line.cells)
        style = "bold green" if line.winner else None
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def verdict_lines(summary: RunSummary) -> tuple[str, ...]:
    """The verdict in plain sentences: outcome, evidence, then what to be careful about."""
    scale = scale_of(summary)
    stamped = " ".join([*(f"{stamp}." for stamp in stamps(summary)), headline(summary)])
    said = [stamped, *evidence_sentences(summary, scale), summary.verdict]
    said += [*front_sentences(summary), *constraint_sentences(summary)]
    said += [f"Careful: {note}" for note in cautions(summary, scale)]
    return tuple(dict.fromkeys(line for line in said if line))


def status_lines(summary: RunSummary) -> tuple[str, ...]:
    """Where the run stands: what it searches, what it spent, and the latest scores."""
    spent = summary.spending
    named = (
        ("run", f"{summary.name}, {summary.state}"),
        (
            "search",
            f"{summary.method} with {count(summary.dimensions, 'gene')}, "
            f"{summary.algorithm}, seed {summary.seed}",
        ),
        ("candidates", f"{_of(spent.candidates, spent.candidate_budget)}, {failures(spent)}"),
        ("items", _of(spent.items, spent.item_budget)),
        ("time", _time(spent)),
        ("workers", time_sentence(spent)),
        ("bar", _bar(summary)),
        ("latest", _latest(summary)),
        ("answers", truncation_sentence(summary)),
        ("left", _left(summary)),
    )
    return tuple(f"{name:<11}{text}" for name, text in named if text)


def _cells(row: ResultRow) -> tuple[Text, ...]:
    """The row's cells as literal text."""
    texts = (
        row.label,
        row.kind,
        f"{row.score} {row.interval}".rstrip(),
        f"{row.lead} {row.lead_interval}".rstrip(),
        row.p_value,
    )
    return tuple(Text(text) for text in texts)


def _time(spent: Spending) -> str:
    used = duration(spent.seconds)
    return used if spent.time_budget is None else f"{used} of {duration(spent.time_budget)}"


def _bar(summary: RunSummary) -> str:
    best = best_baseline(summary.baselines)
    if best is None:
        return ""
    return f"{scale_of(summary).quantity(best.fitness)} on search items, {best.label}"


def _latest(summary: RunSummary) -> str:
    if not summary.history:
        return ""
    scale, last = scale_of(summary), summary.history[-1]
    return (
        f"generation {last.generation}: mean {scale.quantity(last.mean)}, "
        f"best {scale.quantity(last.best)} on {count(summary.minibatch, 'item')}"
    )


def _left(summary: RunSummary) -> str:
    """The time left at the present pace, from whichever budget is used up most."""
    spent = summary.spending
    budgets = (
        (spent.candidates, spent.candidate_budget),
        (spent.items, spent.item_budget),
        (spent.seconds, spent.time_budget),
    )
    done = max((used / limit for used, limit in budgets if limit), default=0.0)
    if summary.state != "running" or not 0.0 < done < 1.0 or not math.isfinite(spent.seconds):
        return ""
    return f"about {duration(spent.seconds * (1.0 - done) / done)}, then the final"


def _of(used: int, limit: int | None) -> str:
    return f"{used:,}" if limit is None else f"{used:,} of {limit:,}"
