"""Tables of README.md, between its markers, and the figures, from the results files beside it.

python experiments/search/render.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from goals import goals_table
from matplotlib.axes import Axes

mpl.use("Agg")
import matplotlib.pyplot as plt

mpl.rcParams["svg.hashsalt"] = "the same figure for the same results"
HERE = Path(__file__).resolve().parent
README = HERE / "README.md"

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "evomerge": "#0b6e4f",
        "evomerge, probabilities": "#5fc49a",
        "Sakana": "#c1440e",
        "mergekit-evolve": "#3d5a98",
        "Mergenetic": "#8d5a97",
        "CMA-ES, fixed 100": "#6b8fd6",
        "CMA-ES, fixed 20": "#d9a441",
        "random, fixed 100": "#999999",
        "best static recipe": "#333333",
    }
)
Cell = Mapping[str, Any]


def quality_table(cells: Sequence[Cell]) -> str:
    """One table per landscape: a row per protocol, a column per budget."""
    parts: list[str] = []
    for place in _in_order(cell["landscape"] for cell in cells):
        here = [cell for cell in cells if cell["landscape"] == place]
        budgets = sorted({cell["budget"] for cell in here})
        most = max(cell["seeds"] for cell in here)
        parts.append(f"**{place}** ({most} seeds; fewer where n says so)\n")
        parts.append("| protocol | " + " | ".join(f"{b:,}" for b in budgets) + " |")
        parts.append("|---|" + "---|" * len(budgets))
        for name in _in_order(cell["protocol"] for cell in here):
            by = {cell["budget"]: cell for cell in here if cell["protocol"] == name}
            parts.append(
                f"| {name} | " + " | ".join(_entry(by.get(b), most) for b in budgets) + " |"
            )
        parts.append("")
    return "\n".join(parts).rstrip()


def _entry(cell: Cell | None, most: int) -> str:
    if cell is None:
        return ""
    fewer = f", n = {cell['seeds']}" if cell["seeds"] < most else ""
    low, middle, high = cell["truth"]
    return f"{middle:.1f} [{low:.1f}, {high:.1f}] ({cell['claimed_minus_truth'][1]:+.1f}{fewer})"


def honesty_table(results: Mapping[str, Any]) -> str:
    """Claims against the truth by protocol, and how often a baseline would have been better."""
    lines = [
        "| protocol | runs | claimed - truth, median | its amount, median "
        "| claim's interval covers | holdout's interval covers | below the best baseline |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results["honesty"].items():
        worse = results["never_worse"][name]["below_percent"]
        lines.append(
            f"| {name} | {row['runs']} | {row['median_claimed_minus_truth']:+.1f} "
            f"| {row['median_abs_claimed_minus_truth']:.1f} | {row['claim_covers_percent']:.1f} % "
            f"| {row['holdout_covers_percent']:.1f} % | {worse:.1f} % |"
        )
    return "\n".join(lines)


def parts_table(rows: Sequence[Cell]) -> str:
    """Ablations: a row per part, a column per landscape."""
    places = _in_order(row["landscape"] for row in rows)
    lines = ["| part | " + " | ".join(places) + " |", "|---|" + "---|" * len(places)]
    for part in _in_order(row["part"] for row in rows):
        by = {row["landscape"]: row for row in rows if row["part"] == part}
        lines.append(f"| {part} | " + " | ".join(_part(by.get(place)) for place in places) + " |")
    return "\n".join(lines)


def _part(row: Cell | None) -> str:
    if row is None:
        return ""
    if row["part"] == "default":
        return f"{row['truth']:.1f}"
    return f"{row['difference']:+.1f} ± {row['error']:.1f}"


def straggler_table(rows: Sequence[Cell]) -> str:
    """Failures and stragglers."""
    lines = [
        "| landscape | condition | runs | stopped | truth | difference | workers busy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        busy = "" if row["busy_percent"] is None else f"{row['busy_percent']:.0f} %"
        lines.append(
            f"| {row['landscape']} | {row['condition']} | {row['seeds']} | {row['stopped']} "
            f"| {row['truth']:.1f} | {row['difference']:+.1f} ± {row['error']:.1f} | {busy} |"
        )
    return "\n".join(lines)


def cost_table(rows: Sequence[Cell]) -> str:
    """What to ask of merges that take time: a row per landscape and cost."""
    asked = _in_order(row["asked"] for row in rows)
    lines = ["| landscape | a merge takes | " + " | ".join(asked) + " |"]
    lines.append("|---|---|" + "---|" * len(asked))
    for place in _in_order(row["landscape"] for row in rows):
        for cost in sorted({row["cost"] for row in rows}):
            by = {r["asked"]: r for r in rows if (r["landscape"], r["cost"]) == (place, cost)}
            entries = [_cost(by[name]) for name in asked]
            lines.append(f"| {place} | {cost} items | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _cost(row: Cell) -> str:
    if row["behind"] == 0.0 and row["error"] == 0.0:
        return f"**{row['truth']:.1f}**"
    return f"{row['truth']:.1f} ({row['behind']:+.1f} ± {row['error']:.1f})"


def draw(cells: Sequence[Cell], key: str, label: str, path: Path) -> None:
    """One small plot per landscape: a line per protocol over the budget, with its quartiles."""
    places = _in_order(cell["landscape"] for cell in cells)
    columns = min(4, len(places))
    rows = -(-len(places) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.9 * rows), squeeze=False)
    for axis, place in zip(axes.flat, places, strict=False):
        _lines(axis, [cell for cell in cells if cell["landscape"] == place], key)
        axis.set_title(place, fontsize=10)
    for axis in axes.flat[len(places) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(label, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("items scored", fontsize=9)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0.0, 0.13 / rows + 0.02, 1.0, 1.0))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _lines(axis: Axes, cells: Sequence[Cell], key: str) -> None:
    for name, colour in COLOURS.items():
        mine = sorted((c for c in cells if c["protocol"] == name), key=lambda c: c["budget"])
        x = [cell["budget"] for cell in mine]
        low, middle, high = zip(*(cell[key] for cell in mine), strict=True) if mine else ((),) * 3
        width = 2.2 if name == "evomerge" else 1.2
        axis.plot(x, middle, color=colour, linewidth=width, marker="o", markersize=3, label=name)
        axis.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    axis.set_xscale("log")
    axis.set_xlim(600, 120_000)
    axis.grid(alpha=0.25)
    if key != "truth":
        axis.axhline(0.0, color="black", linewidth=0.7)


def _in_order(values: Iterable[str]) -> list[str]:
    """Each once, first come; evomerge before the others."""
    found = list(dict.fromkeys(values))
    return sorted(found, key=lambda name: name != "evomerge")


def _replace(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    assert begin in text, f"README.md lacks the marker {begin}"
    assert end in text, f"README.md lacks the marker {end}"
    head, rest = text.split(begin)
    return head + begin + "\n" + table + "\n" + end + rest.split(end)[1]


def main() -> None:
    """Write what there are results for."""
    text = README.read_text(encoding="utf-8")
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    text = _replace(text, "quality", quality_table(results["cells"]))
    text = _replace(text, "honesty", honesty_table(results))
    uneven = json.loads((HERE / "stragglers.json").read_text(encoding="utf-8"))
    text = _replace(text, "goals", goals_table(results, uneven))
    others: Mapping[str, Callable[[Sequence[Cell]], str]] = {
        "ablations": parts_table,
        "stragglers": straggler_table,
        "merge_cost": cost_table,
    }
    for name, table in others.items():
        path = HERE / f"{name}.json"
        if path.exists():
            text = _replace(text, name, table(json.loads(path.read_text(encoding="utf-8"))))
    README.write_text(text, encoding="utf-8")
    draw(results["cells"], "truth", "true quality, %", HERE / "quality.svg")
    draw(results["cells"], "claimed_minus_truth", "claimed - true, points", HERE / "optimism.svg")


if __name__ == "__main__":
    main()
