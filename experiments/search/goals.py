"""The goals that the bench was built for, and what its results say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OURS = ("evomerge", "evomerge, probabilities")
EFFICIENCY = ("6 smooth", "read and write", "two halves")
MANY = ("64 depth", "64 free")
LEAST = 4
"""Seeds below which a cell is not held against a goal."""
Cell = Mapping[str, Any]


def goals_table(results: Mapping[str, Any], stragglers: Sequence[Cell]) -> str:
    """Goal, figure, and whether it is met, as a Markdown table."""
    lines = ["| goal | measured | met |", "|---|---|---|"]
    cells = results["cells"]
    for place in EFFICIENCY:
        lines += _reached(cells, place, "Sakana", 100_000)
        lines += _reached(cells, place, "CMA-ES, fixed 100", 30_000)
    honest = results["honesty"][OURS[0]]
    for kind, key in (("the final's score", "claimed"), ("the holdout's, quoted", "holdout")):
        amount = honest[f"median_abs_{key}_minus_truth"]
        goal = f"median amount of {kind} minus truth at most 1 point"
        lines.append(_line(goal, f"{amount:.1f} ({honest['runs']} runs)", amount <= 1.0))
    for kind, key in (("final's", "claim"), ("holdout's", "holdout")):
        share = honest[f"{key}_covers_percent"]
        lines.append(_line(f"the {kind} 95 % interval covers the truth", f"{share} %", share >= 90))
    worse = results["never_worse"][OURS[0]]["below_percent"]
    lines.append(
        _line("below the best baseline in at most 5 % of runs", f"{worse} %", worse <= 5.0)
    )
    for place in MANY:
        lines += _ahead(cells, place)
    for row in stragglers:
        if row["condition"] == "both":
            goal = f"{row['landscape']}: a fifth fails, 16 uneven workers: same within noise"
            difference, error = row["difference"], row["error"]
            met = abs(difference) <= 2 * error
            lines.append(_line(goal, f"{difference:+.1f} ± {error:.1f}", met))
    return "\n".join(lines)


def _reached(cells: Sequence[Cell], place: str, rival: str, budget: int) -> list[str]:
    """Whether 10,000 items reach what a rival reaches with more."""
    theirs = _truth(cells, place, rival, budget)
    lines: list[str] = []
    for name in OURS:
        ours = _truth(cells, place, name, 10_000)
        if ours is not None and theirs is not None:
            goal = f"{place}: what {rival} reaches with {budget:,} items, {name} with 10,000"
            lines.append(_line(goal, f"{ours:.1f} against {theirs:.1f}", ours >= theirs))
    return lines


def _ahead(cells: Sequence[Cell], place: str) -> list[str]:
    """Whether the lead over the best rival at 50,000 items is 5 points."""
    here = {c["protocol"] for c in cells if c["landscape"] == place} - set(OURS)
    rivals = {name: _truth(cells, place, name, 50_000) for name in sorted(here)}
    known = {name: value for name, value in rivals.items() if value is not None}
    lines: list[str] = []
    for name in OURS:
        ours = _truth(cells, place, name, 50_000)
        if ours is None or not known:
            continue
        best = max(known, key=lambda rival: known[rival])
        goal = f"{place}, 50,000 items: {name} at least 5 points ahead of every rival"
        measured = f"{ours:.1f} against {known[best]:.1f} ({best})"
        lines.append(_line(goal, measured, ours - known[best] >= 5.0))
    return lines


def _truth(cells: Sequence[Cell], place: str, name: str, budget: int) -> float | None:
    for cell in cells:
        if (cell["landscape"], cell["protocol"], cell["budget"]) == (place, name, budget):
            return float(cell["truth"][1]) if cell["seeds"] >= LEAST else None
    return None


def _line(goal: str, measured: str, met: bool) -> str:
    return f"| {goal} | {measured} | {'yes' if met else '**no**'} |"
