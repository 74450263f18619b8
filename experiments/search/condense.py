"""From the cells of the bench to the numbers that its README quotes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from bench import BUDGETS

Row = Mapping[str, Any]


def condensed(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians and quartiles over seeds of every landscape, protocol and budget, and the goals."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["landscape"], row["protocol"], row["budget"]), []).append(row)
    table = [
        {"landscape": place, "protocol": name, "budget": budget, **_numbers(found)}
        for (place, name, budget), found in sorted(groups.items(), key=_rank)
    ]
    return {"cells": table, "honesty": honesty(rows), "never_worse": never_worse(rows)}


def _rank(group: tuple[tuple[str, str, int], list[Row]]) -> tuple[int, str, int]:
    """Landscapes as they are listed, protocols by name, budgets from the smallest."""
    (place, name, budget), _ = group
    return (list(BUDGETS).index(place), name, budget)


def _numbers(found: Sequence[Row]) -> dict[str, Any]:
    optimism = [row["claimed"] - row["truth"] for row in found]
    return {
        "seeds": len(found),
        "truth": _quartiles(row["truth"] for row in found),
        "bar": _points(np.median([row["bar"] for row in found])),
        "claimed_minus_truth": _quartiles(optimism),
        "worst_optimism": _points(max(optimism)),
        "items": int(np.median([row["items"] for row in found])),
        "over_budget": sum(row["items"] > row["budget"] for row in found),
        "candidates": int(np.median([row["candidates"] for row in found])),
        "below_bar": sum(row["below"] for row in found),
        "seconds": round(float(np.median([row["seconds"] for row in found])), 1),
    }


def honesty(rows: Sequence[Row]) -> dict[str, Any]:
    """By protocol, over all landscapes, budgets and seeds: claims against the truth."""
    found: dict[str, Any] = {}
    for name, members in _by_protocol(rows).items():
        claimed = np.asarray([row["claimed"] - row["truth"] for row in members])
        quoted = np.asarray([row["quoted"] - row["truth"] for row in members])
        found[name] = {
            "runs": len(members),
            "median_claimed_minus_truth": _points(np.median(claimed)),
            "median_abs_claimed_minus_truth": _points(np.median(np.abs(claimed))),
            "claim_covers_percent": _percent(_inside(members, "claim_low", "claim_high")),
            "median_abs_holdout_minus_truth": _points(np.median(np.abs(quoted))),
            "holdout_covers_percent": _percent(_inside(members, "low", "high")),
        }
    return found


def never_worse(rows: Sequence[Row]) -> dict[str, Any]:
    """By protocol: how often the recipe is truly below the best baseline by more than an error."""
    return {
        name: {
            "runs": len(members),
            "below_percent": _percent(row["below"] for row in members),
            "median_loss_when_below": _points(
                np.median([r["bar"] - r["truth"] for r in members if r["below"]] or [0.0])
            ),
        }
        for name, members in _by_protocol(rows).items()
    }


def _by_protocol(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["protocol"], []).append(row)
    return dict(sorted(found.items()))


def _inside(rows: Sequence[Row], low: str, high: str) -> list[bool]:
    return [row[low] <= row["truth"] <= row[high] for row in rows]


def _quartiles(values: Iterable[float]) -> list[float]:
    """Lower quartile, median, upper quartile, in points."""
    return [_points(v) for v in np.quantile(list(values), [0.25, 0.5, 0.75])]


def _points(value: float) -> float:
    return round(100.0 * float(value), 1)


def _percent(flags: Iterable[bool]) -> float:
    return _points(float(np.mean([float(flag) for flag in flags])))
