"""The figures about scores: fitness over items spent, and all models with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evomerge.report.drawing import (
    ACCENT,
    INK,
    MUTED,
    RIVAL,
    SERIES,
    TICK_STEPS,
    WIDTH,
    end_labels,
    render,
)
from evomerge.report.evidence import best_baseline, best_first, is_winner, kind_word, results
from evomerge.report.formats import Scale, scale_of, short_names, typographic
from evomerge.report.summary import GenerationPoint, ModelRow, RunSummary

MOST_BASELINES = 9
"""More horizontal lines than this are noise; the best ones are drawn."""

_SHAPES = {"winner": "o", "base": "D", "parent": "^", "baseline": "s", "stage": "P"}


def history_plot(summary: RunSummary) -> str:
    """Best and mean fitness of each generation over the items spent, baselines as lines."""
    points = [p for p in summary.history if math.isfinite(p.best) and math.isfinite(p.mean)]
    if not points:
        return ""
    baselines = best_first(tuple(r for r in summary.baselines if math.isfinite(r.fitness)))
    scale = typographic(scale_of(summary))

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.085, 0.14, 0.545, 0.83))
        labels = _draw_baselines(axes, baselines[:MOST_BASELINES], scale)
        labels += _draw_generations(axes, points, scale)
        axes.set_xlim(0.0, points[-1].items_spent * 1.01)
        axes.set_xlabel("items spent, baselines included")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        _score_axis(axes, scale)
        _pad_scores(axes, [height for height, _, _ in labels] + [p.best for p in points])
        end_labels(axes, labels)

    return render("history", "Fitness over items spent", (WIDTH, 3.9), draw)


def comparison_plot(summary: RunSummary) -> str:
    """Every model's score with its 95 % interval, best first, from the most trustworthy split."""
    found = results(summary)
    rows = [row for row in found.rows if math.isfinite(row.fitness)]
    if not rows:
        return ""
    scale = typographic(scale_of(summary))
    height = 0.75 + 0.33 * len(rows)
    # Bold 8.5 pt digits are about a ninety-sixth of the figure's width each.
    width = 0.6 - max(len(_numbers(row, scale)) for row in rows) / 96.0

    def draw(figure: Figure) -> None:
        bottom = 0.5 / height
        axes = figure.add_axes((0.375, bottom, width, 1.0 - bottom - 0.22 / height))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _draw_bar_to_clear(axes, best_baseline(found.rows))
        for place, row in enumerate(rows):
            _draw_model(axes, place, row, _model_colour(summary, found.rows, row))
        _name_models(axes, summary, rows, scale)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(scale, x)))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        unit = f", {scale.unit}" if scale.unit else ""
        axes.set_xlabel(f"{found.split} score with 95 % interval{unit}")

    return render("comparison", f"Scores on the {found.split} items", (WIDTH, height), draw)


def _draw_baselines(
    axes: Axes, rows: tuple[ModelRow, ...], scale: Scale
) -> list[tuple[float, str, str]]:
    names = short_names([row.label for row in rows], 32)
    labels = []
    for place, row in enumerate(rows):
        colour = RIVAL if place == 0 else MUTED
        axes.axhline(
            row.fitness, color=colour, linewidth=1.1 if place == 0 else 0.8,
            linestyle=(0, (5, 3)), alpha=1.0 if place == 0 else 0.7, zorder=1,
        )  # fmt: skip
        labels.append((row.fitness, f"{names[row.label]}  {scale.number(row.fitness)}", colour))
    return labels


def _draw_generations(
    axes: Axes, points: list[GenerationPoint], scale: Scale
) -> list[tuple[float, str, str]]:
    spent = [point.items_spent for point in points]
    labels = []
    for values, text, colour, marker in (
        ([point.best for point in points], "best of generation", SERIES[0], "o"),
        ([point.mean for point in points], "mean of generation", ACCENT, "s"),
    ):
        axes.plot(
            spent, values, color=colour, marker=marker, markersize=3.6, linewidth=1.6, zorder=3
        )
        # The last value ties the label to its line; the line itself ends at the right edge.
        labels.append((values[-1], f"{text}  {scale.number(values[-1])}", colour))
    return labels


def _draw_bar_to_clear(axes: Axes, rival: ModelRow | None) -> None:
    if rival is not None and math.isfinite(rival.fitness):
        axes.axvline(rival.fitness, color=RIVAL, linewidth=1.0, linestyle=(0, (5, 3)), zorder=1)


def _model_colour(summary: RunSummary, rows: tuple[ModelRow, ...], row: ModelRow) -> str:
    if is_winner(summary, row):
        return ACCENT
    rival = best_baseline(rows)
    return RIVAL if rival is not None and row.candidate == rival.candidate else MUTED


def _draw_model(axes: Axes, place: int, row: ModelRow, colour: str) -> None:
    if math.isfinite(row.low) and math.isfinite(row.high):
        axes.plot(
            [row.low, row.high], [place, place], color=colour, linewidth=4.5, alpha=0.38, zorder=2
        )
    axes.plot(
        [row.fitness], [place], color=colour, marker=_SHAPES.get(row.kind, "o"),
        markersize=6.5 if colour == ACCENT else 5.0, zorder=3,
    )  # fmt: skip


def _name_models(axes: Axes, summary: RunSummary, rows: list[ModelRow], scale: Scale) -> None:
    """Name and kind left of the axes, the numbers right of it."""
    names = short_names([row.label for row in rows], 32)
    place_in = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        strong = is_winner(summary, row)
        weight = "bold" if strong else "normal"
        colour = ACCENT if strong else INK
        axes.text(
            -0.03, place - 0.13, names[row.label], transform=place_in, ha="right", va="center",
            fontweight=weight, color=colour,
        )  # fmt: skip
        axes.text(
            -0.03, place + 0.27, kind_word(summary, row), transform=place_in, ha="right",
            va="center", fontsize=7.0, color=MUTED,
        )  # fmt: skip
        axes.text(
            1.03, place, _numbers(row, scale), transform=place_in, va="center", fontsize=8.5,
            fontweight=weight, color=colour,
        )  # fmt: skip


def _numbers(row: ModelRow, scale: Scale) -> str:
    return f"{scale.number(row.fitness)} {scale.interval(row.low, row.high)}".rstrip()


def _score_axis(axes: Axes, scale: Scale) -> None:
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _tick(scale, y)))
    axes.set_ylabel(f"fitness, {scale.unit}" if scale.unit else "fitness")


def _pad_scores(axes: Axes, values: Iterable[float]) -> None:
    shown = list(values)
    span = max(shown) - min(shown) or 1.0
    axes.set_ylim(min(shown) - 0.05 * span, max(shown) + 0.05 * span)


def _tick(scale: Scale, value: float) -> str:
    return f"{scale.factor * value + 0.0:g}".replace("-", "\u2212")
