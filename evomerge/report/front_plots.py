"""The figures about trades: who trades what for what, and how much the search covered."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evomerge.report.drawing import (
    ACCENT,
    CARD,
    INK,
    MUTED,
    RIVAL,
    SERIES,
    TICK_STEPS,
    WIDTH,
    end_labels,
    render,
    spread,
)
from evomerge.report.formats import Scale
from evomerge.report.front_text import front_heads, names, trade_scales
from evomerge.report.summary import FrontSummary, RunSummary, TradeRow

_LABEL = 7.5
_PAIR = 2


def front_plot(summary: RunSummary) -> str:
    """Every model of the front with the baselines; finalists that left are faint."""
    front = summary.front
    if front is None or not any(row.place == "front" for row in front.rows):
        return ""
    winner = None if summary.winner is None else summary.winner.candidate
    scales = trade_scales(front, minus="\u2212")
    heads = front_heads(summary)
    if len(front.tasks) == _PAIR:

        def draw(figure: Figure) -> None:
            axes = figure.add_axes((0.085, 0.12, 0.6, 0.85))
            _scatter(axes, front, scales, heads, winner)

        return render("front", "The front of both objectives", (WIDTH, 4.6), draw)

    def draw_parallel(figure: Figure) -> None:
        axes = figure.add_axes((0.11, 0.14, 0.57, 0.8))
        _parallel(axes, front, scales, heads, winner)

    return render("front", "The front of all objectives", (WIDTH, 4.6), draw_parallel)


def cover_plot(summary: RunSummary) -> str:
    """The volume that each generation covers, over the items spent."""
    front = summary.front
    if front is None or not front.history:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.085, 0.18, 0.6, 0.78))
        spent = [point.items_spent for point in front.history]
        values = [point.hypervolume for point in front.history]
        axes.plot(spent, values, color=SERIES[0], marker="o", markersize=3.6, linewidth=1.6)
        axes.axhline(front.before, color=RIVAL, linewidth=1.1, linestyle=(0, (5, 3)))
        axes.set_xlim(0.0, spent[-1] * 1.01)
        axes.set_ylim(0.0, 1.08 * max(*values, front.before, 1e-9))
        axes.set_xlabel("items spent, baselines included")
        axes.set_ylabel("volume covered")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
        axes.grid(axis="y")
        labels = [
            (values[-1], f"each generation  {values[-1]:.3f}", SERIES[0]),
            (front.before, f"baselines  {front.before:.3f}", RIVAL),
        ]
        end_labels(axes, labels)

    return render("cover", "Volume covered over items spent", (WIDTH, 2.9), draw)


def _scatter(
    axes: Axes,
    front: FrontSummary,
    scales: tuple[Scale, ...],
    heads: tuple[str, ...],
    winner: int | None,
) -> None:
    members = [row for row in front.rows if row.place == "front"]
    for row in front.dropped:
        axes.plot(*_at(row, scales), "o", color=MUTED, markersize=3.5, alpha=0.35, zorder=2)
    line = [_at(row, scales) for row in members]
    axes.plot(*zip(*line, strict=True), color=ACCENT, linewidth=1.0, alpha=0.5, zorder=2)
    for row in front.rows:
        on_front = row.place == "front"
        colour = ACCENT if on_front else RIVAL
        x, y = _at(row, scales)
        for horizontal, score, scale in zip((True, False), row.scores, scales, strict=True):
            half = 1.96 * score.stderr * scale.factor
            ends = ([x - half, x + half], [y, y]) if horizontal else ([x, x], [y - half, y + half])
            axes.plot(*ends, color=colour, linewidth=0.8, alpha=0.45, zorder=2)
        size = 8.0 if row.candidate == winner else 5.5
        face = colour if row.eligible else CARD
        shape = "o" if on_front else "s"
        axes.plot([x], [y], shape, color=colour, markerfacecolor=face, markersize=size, zorder=4)
    axes.grid()
    for axis, head in ((axes.xaxis, heads[0]), (axes.yaxis, heads[1])):
        axis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        axis.set_label_text(head)
    _name_points(axes, front, scales, winner)


def _name_points(
    axes: Axes, front: FrontSummary, scales: tuple[Scale, ...], winner: int | None
) -> None:
    """Names right of the axes, tied to their points by thin lines."""
    rows = sorted(front.rows, key=lambda row: _at(row, scales)[1])
    shown = names(front.rows, 30)
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    heights = np.asarray([(_at(row, scales)[1] - low) / (high - low) for row in rows])
    for row, height in zip(rows, spread(heights, 0.042, 0.0, 1.0), strict=True):
        x, y = _at(row, scales)
        colour = ACCENT if row.place == "front" else RIVAL
        point = ((x - left) / (right - left), (y - low) / (high - low))
        axes.plot(
            [point[0], 1.02, 1.035], [point[1], height, height], transform=axes.transAxes,
            color=colour, linewidth=0.5, alpha=0.45, clip_on=False, zorder=1,
        )  # fmt: skip
        strong = row.candidate == winner
        axes.text(
            1.042, height, shown[row.label], transform=axes.transAxes, va="center",
            fontsize=_LABEL, color=colour, fontweight="bold" if strong else "normal",
        )  # fmt: skip


def _parallel(
    axes: Axes,
    front: FrontSummary,
    scales: tuple[Scale, ...],
    heads: tuple[str, ...],
    winner: int | None,
) -> None:
    """One vertical axis per objective, each from the least to the most that anybody scores."""
    rows = [*front.dropped, *front.rows]
    columns = list(zip(*(_at(row, scales) for row in rows), strict=True))
    lows, highs = [min(c) for c in columns], [max(c) for c in columns]

    def heights(row: TradeRow) -> list[float]:
        found = zip(_at(row, scales), lows, highs, strict=True)
        return [(value - low) / ((high - low) or 1.0) for value, low, high in found]

    places = list(range(len(columns)))
    for row in rows:
        colour = {"front": ACCENT, "baseline": RIVAL}.get(row.place, MUTED)
        strong = row.candidate == winner
        width = 2.6 if strong else 1.5 if row.place == "front" else 0.8
        alpha = {"front": 0.95, "baseline": 0.55}.get(row.place, 0.3)
        style = "-" if row.eligible else (0, (3, 3))
        axes.plot(
            places, heights(row), color=colour, linewidth=width, alpha=alpha, marker="o",
            linestyle=style,
            markersize=4.0 if row.place == "front" else 2.5, zorder=3 if strong else 2,
        )  # fmt: skip
    for place, (head, scale) in enumerate(zip(heads, scales, strict=True)):
        axes.axvline(place, color=INK, linewidth=0.6, alpha=0.5, zorder=1)
        for height, value in ((-0.03, lows[place]), (1.03, highs[place])):
            axes.text(
                place, height, scale.number(value / scale.factor), ha="center",
                va="top" if height < 0 else "bottom", fontsize=7.5, color=MUTED,
            )  # fmt: skip
        axes.text(place, -0.12, head, ha="center", va="top", fontsize=8.0, color=MUTED)
    axes.set_axis_off()
    axes.set_xlim(-0.05, len(columns) - 0.95)
    axes.set_ylim(-0.02, 1.02)
    shown = names(front.rows, 30)
    colours = {"front": ACCENT, "baseline": RIVAL}
    labels = [(heights(r)[-1], shown[r.label], colours[r.place]) for r in front.rows]
    end_labels(axes, labels, size=_LABEL)


def _at(row: TradeRow, scales: tuple[Scale, ...]) -> tuple[float, ...]:
    return tuple(s.value * scale.factor for s, scale in zip(row.scores, scales, strict=True))
