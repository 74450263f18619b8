"""The figure of which layers each parent won: weights as a map of parents by layer groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evomerge.report.drawing import CARD, GRID, INK, MUTED, SERIES, WIDTH, render
from evomerge.report.formats import short_names
from evomerge.report.won_layers import CLEAR, LEANING, WonGroup, WonLayers

_ROW, _TOP, _FOOT = 0.42, 0.05, 0.52
_HALF = (0.47, 0.43)
"""Half the width and height of a cell."""
_TEXT = 14
"""More groups than this leave no room for numbers in their cells."""
_MARKS: Mapping[str, Literal["full", "left"]] = {CLEAR: "full", LEANING: "left"}


def won_plot(won: WonLayers | None) -> str:
    """Parents by layer groups as `<svg>`; empty when there is no such winner."""
    if won is None:
        return ""
    names = short_names(won.parents, 24)
    rows, columns = len(won.parents), len(won.groups)
    turned = max(len(group.label) for group in won.groups) * columns > 74
    foot = _FOOT + (0.07 * max(len(group.label) for group in won.groups) if turned else 0.0)
    height = _TOP + _ROW * (rows + 1) + foot
    largest = max(abs(weight) for group in won.groups for weight in group.weights) or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.235, foot / height, 0.745, _ROW * (rows + 1) / height))
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows + 0.5, -0.5)
        for place, group in enumerate(won.groups):
            for row, weight in enumerate(group.weights):
                _draw_cell(axes, place, row, weight / largest)
                if columns <= _TEXT:
                    _write(axes, place, row, group)
            _draw_frame(axes, place, group)
            _draw_mark(axes, place, rows, group)
        labels = [*(names[parent] for parent in won.parents), "how sure"]
        axes.set_yticks(range(rows + 1), labels, fontsize=8.5, color=INK)
        for label in axes.get_yticklabels()[-1:]:
            label.set_color(MUTED)
        shown = range(0, columns, 1 + columns // 40)
        axes.set_xticks(
            shown, [won.groups[place].label for place in shown], rotation=90 if turned else 0,
            fontsize=8.0,
        )  # fmt: skip
        axes.set_xlabel("layers, from input to output")
        for spine in axes.spines.values():
            spine.set_visible(False)

    return render("won", "Which layers each parent won", (WIDTH, height), draw)


def _draw_cell(axes: Axes, place: int, row: int, strength: float) -> None:
    """A box in the parent's colour, the stronger the larger its weight."""
    shade = (GRID, 0.35) if strength <= 0.0 else (SERIES[row % len(SERIES)], 0.75 * strength)
    axes.add_patch(
        Rectangle(
            (place - _HALF[0], row - _HALF[1]), 2.0 * _HALF[0], 2.0 * _HALF[1],
            facecolor=shade[0], alpha=shade[1], linewidth=0.0,
        )
    )  # fmt: skip


def _draw_frame(axes: Axes, place: int, group: WonGroup) -> None:
    """Around the cell that leads; thin where that means little."""
    if group.winner is None:
        return
    axes.add_patch(
        Rectangle(
            (place - _HALF[0], group.winner - _HALF[1]), 2.0 * _HALF[0], 2.0 * _HALF[1],
            fill=False, edgecolor=SERIES[group.winner % len(SERIES)], zorder=3,
            linewidth=2.0 if group.sure in _MARKS else 0.9,
            linestyle="-" if group.sure in _MARKS else (0, (2, 2)),
        )
    )  # fmt: skip


def _write(axes: Axes, place: int, row: int, group: WonGroup) -> None:
    text = f"{group.weights[row]:.2f}".replace("-", "\u2212")
    axes.text(
        place, row, text, ha="center", va="center", fontsize=8.0, color=INK, zorder=4,
        fontweight="bold" if row == group.winner else "normal",
    )  # fmt: skip


def _draw_mark(axes: Axes, place: int, row: int, group: WonGroup) -> None:
    """A full circle: clear; half of one: leaning; an empty one: cannot tell."""
    colour = MUTED if group.winner is None else SERIES[group.winner % len(SERIES)]
    axes.plot(
        [place], [row], marker="o", markersize=7.5, linestyle="", color=colour,
        fillstyle=_MARKS.get(group.sure, "none"),
        markerfacecoloralt=CARD, markeredgewidth=1.2, clip_on=False,
    )  # fmt: skip
