"""The figure of which genes mattered: share, direction and how sure both are, a row per gene."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evomerge.report.drawing import ACCENT, GRID, INK, MUTED, TICK_STEPS, WIDTH, render
from evomerge.report.formats import short_names
from evomerge.report.insight import MOST_SHOWN, GeneLine, SearchInsight

_ROW, _TOP, _FOOT = 0.34, 0.3, 0.5
"""Inches: height of a row, room for the headings, room below the axes."""
_BARS, _CURVES = (0.335, 0.3), (0.665, 0.12)
"""Left edge and width of the bars and of the curves, as shares of the figure."""
_NAME = 34


def genes_plot(insight: SearchInsight, number: int) -> str:
    """The most important genes of search `number` as `<svg>`; empty when its trials cannot tell."""
    lines = insight.genes[:MOST_SHOWN]
    if not lines:
        return ""
    height = _TOP + _ROW * len(lines) + _FOOT

    def draw(figure: Figure) -> None:
        bottom, tall = _FOOT / height, _ROW * len(lines) / height
        bars = figure.add_axes((_BARS[0], bottom, _BARS[1], tall))
        _draw_bars(bars, lines)
        for place, line in enumerate(lines):
            low = bottom + tall * (len(lines) - 1 - place + 0.16) / len(lines)
            _draw_curve(
                figure.add_axes((_CURVES[0], low, _CURVES[1], 0.68 * tall / len(lines))), line
            )
        top = 1.0 - 0.5 * _TOP / height
        for left, text in ((_BARS[0], "share"), (_CURVES[0], "score over its range")):
            figure.text(left, top, text, fontsize=8.0, color=MUTED, va="center")
        for place, line in enumerate(lines):
            middle = bottom + tall * (len(lines) - 0.5 - place) / len(lines)
            figure.text(
                0.802, middle, line.advice or ("" if line.effect.clear else "cannot tell"),
                fontsize=8.0, va="center", color=INK if line.advice else MUTED,
            )  # fmt: skip

    return render(f"genes-{number}", "Which genes mattered", (WIDTH, height), draw)


def _draw_bars(axes: Axes, lines: tuple[GeneLine, ...]) -> None:
    names = short_names([line.name for line in lines], _NAME)
    low = min(0.0, *(line.effect.low for line in lines))
    axes.set_xlim(max(low, -0.1), min(1.0, max(line.effect.high for line in lines) * 1.03))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    for place, line in enumerate(lines):
        effect = line.effect
        colour = ACCENT if effect.clear else MUTED
        axes.barh(
            place, max(effect.share, 0.0), height=0.56, color=colour,
            alpha=0.85 if effect.clear else 0.45, zorder=2,
        )  # fmt: skip
        axes.plot(
            [effect.low, effect.high], [place, place], color=INK, linewidth=1.0, alpha=0.75,
            zorder=3,
        )  # fmt: skip
        axes.text(
            -0.03, place, names[line.name], transform=axes.get_yaxis_transform(), ha="right",
            va="center", fontsize=8.0, color=INK if effect.clear else MUTED,
        )  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.axvline(0.0, color=GRID, linewidth=1.2, zorder=1)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    axes.set_xlabel("share of the explained differences, with 95 % interval")


def _draw_curve(axes: Axes, line: GeneLine) -> None:
    """The surrogate over the range tried; the width of the box is the gene's whole range."""
    effect = line.effect
    colour = ACCENT if effect.clear else MUTED
    low = [value - error for value, error in zip(effect.curve, effect.error, strict=True)]
    high = [value + error for value, error in zip(effect.curve, effect.error, strict=True)]
    if line.steps:
        axes.errorbar(
            effect.grid, effect.curve, yerr=effect.error, linestyle="", marker="o", markersize=2.6,
            color=colour, linewidth=0.9,
        )  # fmt: skip
    else:
        axes.fill_between(effect.grid, low, high, color=colour, alpha=0.22, linewidth=0.0)
        axes.plot(effect.grid, effect.curve, color=colour, linewidth=1.4)
    axes.set_xlim(*line.range)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
