"""How numbers are written for people: scores on their scale, leads, p values, durations, names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from evomerge.report.summary import ModelRow, RunSummary
from evomerge.score import COST_TASK

MISSING = "n/a"
_MODEL_NAME = re.compile(r"[\w./~+-]+")
_SMALLEST_P = 1e-4
_SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""A unit's length in seconds and name, then the same for the unit below it."""


@dataclass(frozen=True)
class Scale:
    """How fitness is shown: `factor` times the value with `digits` decimals and a unit."""

    factor: float
    digits: int
    unit: str
    lead_unit: str
    minus: str = "-"

    def number(self, value: float) -> str:
        """The bare number, for table cells whose header names the unit."""
        return self._write(value, "")

    def signed(self, value: float) -> str:
        """The number with its sign, for differences."""
        return self._write(value, "+")

    def quantity(self, value: float) -> str:
        """The number with its unit, for sentences."""
        return self._with(self.number(value), self.unit)

    def lead(self, value: float) -> str:
        """A signed difference with its unit, for sentences."""
        return self._with(self.signed(value), self.lead_unit)

    def interval(self, low: float, high: float) -> str:
        """An interval of values in brackets; empty when an end is not a number."""
        return self._brackets(low, high, "")

    def signed_interval(self, low: float, high: float) -> str:
        """An interval of differences in brackets; empty when an end is not a number."""
        return self._brackets(low, high, "+")

    def _brackets(self, low: float, high: float, sign: str) -> str:
        if not (math.isfinite(low) and math.isfinite(high)):
            return ""
        return f"[{self._write(low, sign)}, {self._write(high, sign)}]"

    def _write(self, value: float, sign: str) -> str:
        if not math.isfinite(value):
            return MISSING
        # Adding 0.0 turns the -0.0 that rounding leaves behind into 0.0.
        rounded = round(self.factor * value, self.digits) + 0.0
        return f"{rounded:{sign}.{self.digits}f}".replace("-", self.minus)

    def _with(self, text: str, unit: str) -> str:
        return text if not unit or text == MISSING else f"{text} {unit}"


def scale_of(summary: RunSummary) -> Scale:
    """Percent when every fitness and every task metric lies in [0, 1], else plain decimals."""
    rows = (*summary.baselines, *summary.selection, *summary.holdout)
    fitness = [row.fitness for row in rows]
    fitness += [value for point in summary.history for value in (point.best, point.mean)]
    metrics = [score.value for row in rows for score in row.scores]
    return scale_for(fitness, metrics)


def typographic(scale: Scale) -> Scale:
    """The scale with a true minus sign, for pages and figures; terminals get the ASCII one."""
    return replace(scale, minus="\u2212")


def scale_for(fitness: Iterable[float], metrics: Iterable[float]) -> Scale:
    """The scale that suits these values; values that are not finite do not take part."""
    shown = [value for value in fitness if math.isfinite(value)]
    everything = [*shown, *(value for value in metrics if math.isfinite(value))]
    if everything and all(0.0 <= value <= 1.0 for value in everything):
        return Scale(100.0, 1, "%", "points")
    largest = max((abs(value) for value in shown), default=1.0)
    return Scale(1.0, 4 if largest < 1.0 else 3, "", "")


def p_text(p_value: float) -> str:
    """A p value as people write it: two significant digits, a bound when tiny."""
    if not math.isfinite(p_value):
        return MISSING
    if p_value < _SMALLEST_P:
        return "<0.0001"
    return f"{p_value:.2f}" if p_value >= 0.1 else f"{p_value:.2g}"


def p_clause(p_value: float) -> str:
    """A p value inside a sentence: "p = 0.012" or "p < 0.0001"."""
    text = p_text(p_value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    if not math.isfinite(seconds) or seconds < 0.0:
        return MISSING
    if seconds < 10.0:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, rest in _SPANS:
        if whole >= size:
            first, second = f"{whole // size} {unit}", whole % size // smaller
            return f"{first} {second} {rest}" if second else first
    return f"{whole} s"


def count(number: int, noun: str) -> str:
    """A whole number with its noun: "1 item", "1,250 items"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def items_of(row: ModelRow) -> int:
    """How many items the row's scores rest on, over all tasks."""
    return sum(score.n for score in row.scores if score.task != COST_TASK)


def truncated_share(row: ModelRow) -> float:
    """The share of the row's items whose answer was cut off."""
    return row.truncated / items_of(row) if row.truncated else 0.0


def short_names(names: Iterable[str], width: int) -> dict[str, str]:
    """Names for narrow places, at most `width` characters: folders go first, then the middle.

    A folder stays when two different names would otherwise look the same.
    """
    distinct = list(dict.fromkeys(names))
    bare = {name: _bare(name) for name in distinct}
    unique = {name: name if _count(bare, short) > 1 else short for name, short in bare.items()}
    return {name: _ellipsis(short, width) for name, short in unique.items()}


def _count(bare: dict[str, str], wanted: str) -> int:
    return sum(short == wanted for short in bare.values())


def _bare(name: str) -> str:
    """The last part of a path or hub name; a sentence that contains a slash stays whole."""
    if not _MODEL_NAME.fullmatch(name):
        return name
    return name.rstrip("/").rpartition("/")[2] or name


def _ellipsis(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
