"""What tables and sentences say about a front and about constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.constraints import Kept
from evomerge.report.formats import Scale, count, scale_for, short_names
from evomerge.report.summary import FrontSummary, RunSummary, TradeRow, TradeScore

NAME_WIDTH = 40


@dataclass(frozen=True)
class FrontLine:
    """One model of the front or a baseline: its number, its name and a cell for each objective."""

    candidate: int
    label: str
    place: str
    eligible: bool
    cells: tuple[str, ...]
    winner: bool


@dataclass(frozen=True)
class ConstraintTable:
    """Models down, constraints across."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], bool], ...]
    """(label, one cell per constraint, whether it is the winner)."""


def trade_scales(front: FrontSummary, *, minus: str = "-") -> tuple[Scale, ...]:
    """How each objective's metric is written."""
    columns = zip(*(row.scores for row in (*front.rows, *front.dropped)), strict=True)
    values = [[score.value for score in column] for column in columns]
    scales = [scale_for(column, column) for column in values]
    return tuple(Scale(s.factor, s.digits, s.unit, s.lead_unit, minus) for s in scales)


def front_lines(summary: RunSummary, *, minus: str = "-") -> tuple[FrontLine, ...]:
    """The front, best in the first objective first, then the baselines by their order."""
    front = summary.front
    if front is None:
        return ()
    scales = trade_scales(front, minus=minus)
    winner = None if summary.winner is None else summary.winner.candidate
    return tuple(
        FrontLine(
            row.candidate,
            row.label,
            row.place,
            row.eligible,
            tuple(_cell(score, scale) for score, scale in zip(row.scores, scales, strict=True)),
            row.candidate == winner,
        )
        for row in front.rows
    )


def front_heads(summary: RunSummary) -> tuple[str, ...]:
    """One per objective: task, metric and unit."""
    front = summary.front
    if front is None or not front.rows:
        return ()
    heads = (f"{s.task} {s.metric.removesuffix(',none')}" for s in front.rows[0].scores)
    units = (scale.unit for scale in trade_scales(front))
    return tuple(f"{h}, {unit}" if unit else h for h, unit in zip(heads, units, strict=True))


def front_sentences(summary: RunSummary) -> tuple[str, ...]:
    """How large the front is, what it covers, and how sure the domination is."""
    front = summary.front
    members = [] if front is None else [row for row in front.rows if row.place == "front"]
    if front is None or not members:
        return ()
    said = [
        f"The front has {count(len(members), 'model')}: on the selection items no finalist is at "
        "least as good as one of them in everything and better in something."
    ]
    dominated = [row for row in front.dropped if row.eligible]
    if dominated:
        said.append(
            f"{count(len(dominated), 'finalist')} left it because another is; for "
            f"{front.clearly_dropped or 'none'} of them the difference is more than chance."
        )
    excluded = len(front.dropped) - len(dominated)
    if excluded:
        said.append(f"{count(excluded, 'finalist')} left it over a constraint.")
    said.append(
        f"Above the baselines' least scores ({_reference(front)}) the front covers a volume of "
        f"{front.covered:.4f} on the {front.split} items, the baselines {front.covered_before:.4f}"
        f"{_without_violating(front)}."
    )
    return tuple(said)


def constraint_table(summary: RunSummary, *, minus: str = "-") -> ConstraintTable | None:
    """Every model of the results against every constraint; None without constraints."""
    heads = tuple(dict.fromkeys(line.text for line in summary.constraints))
    if not heads:
        return None
    winner = None if summary.winner is None else summary.winner.candidate
    labels = {line.candidate: line.label for line in summary.constraints}
    scales = {
        text: scale_for([x.value for x in summary.constraints if x.text == text], ())
        for text in heads
    }
    cells: dict[tuple[int, str], str] = {}
    for line in summary.constraints:
        scale = Scale(*_parts(scales[line.text]), minus)
        interval = scale.signed_interval(line.low, line.high)
        text = f"{scale.quantity(line.value)}, {line.kept}; room {scale.signed(line.room)}"
        cells[line.candidate, line.text] = f"{text} {interval}".rstrip()
    front = _front_ids(summary)
    order = sorted(labels, key=lambda c: (c != winner, c not in front, c))
    return ConstraintTable(
        heads,
        tuple(
            (labels[c], tuple(cells.get((c, head), "") for head in heads), c == winner)
            for c in order
        ),
    )


def constraint_sentences(summary: RunSummary) -> tuple[str, ...]:
    """How the model handed over stands with each constraint."""
    winner = None if summary.winner is None else summary.winner.candidate
    words = {Kept.KEPT.value: "keeps", Kept.VIOLATED.value: "violates"}
    ours = [line for line in summary.constraints if line.candidate == winner]
    return tuple(
        f"It {words[line.kept]}: {line.text}."
        if line.kept in words
        else f"The items cannot tell whether it keeps: {line.text}."
        for line in ours
    )


def names(rows: Sequence[TradeRow], width: int = NAME_WIDTH) -> dict[str, str]:
    """Short names of models for narrow places."""
    return short_names([row.label for row in rows], width)


def _front_ids(summary: RunSummary) -> frozenset[int]:
    rows = () if summary.front is None else summary.front.rows
    return frozenset(row.candidate for row in rows if row.place == "front")


def _cell(score: TradeScore, scale: Scale) -> str:
    error = f" ± {scale.number(score.stderr)}" if math.isfinite(score.stderr) else ""
    mark = " *" if score.clear else ""
    return f"{scale.number(score.value)}{error}{mark}"


def _without_violating(front: FrontSummary) -> str:
    violating = [row for row in front.rows if row.place == "baseline" and not row.eligible]
    return f", without the {len(violating)} that violate a constraint" if violating else ""


def _reference(front: FrontSummary) -> str:
    parts = zip(front.tasks, front.reference, strict=True)
    return ", ".join(f"{task} {value:.3f}" for task, value in parts)


def _parts(scale: Scale) -> tuple[float, int, str, str]:
    return scale.factor, scale.digits, scale.unit, scale.lead_unit
