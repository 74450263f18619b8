"""The figure of what more search would gain: the generations so far and the curves beyond them."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evomerge.report.drawing import (
    ACCENT,
    MUTED,
    SERIES,
    TICK_STEPS,
    WIDTH,
    end_labels,
    render,
)
from evomerge.report.formats import Scale
from evomerge.report.insight import SearchInsight


def gain_plot(insight: SearchInsight, scale: Scale) -> str:
    """Means of the generations and the expected ones up to twice the items, as `<svg>`.

    Empty while there are too few generations.
    """
    found = insight.gain
    if found is None:
        return ""
    spent, means = zip(*insight.levels, strict=True)
    end = spent[-1]

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.085, 0.17, 0.665, 0.78))
        axes.fill_between(
            found.spent, found.low_curve, found.high_curve, color=ACCENT, alpha=0.16, linewidth=0.0
        )
        known = sum(at <= end for at in found.spent)
        axes.plot(found.spent[:known], found.curve[:known], color=ACCENT, linewidth=1.8)
        axes.plot(
            found.spent[known - 1 :], found.curve[known - 1 :], color=ACCENT, linewidth=1.8,
            linestyle=(0, (4, 2)),
        )  # fmt: skip
        axes.plot(spent, means, linestyle="", marker="s", markersize=3.6, color=SERIES[0], zorder=3)
        axes.axvline(end, color=MUTED, linewidth=1.0, linestyle=(0, (2, 2)))
        axes.set_xlim(0.0, 2.0 * end)
        _score_axis(axes, scale)
        label = f"expected  {scale.number(found.curve[-1])}"
        end_labels(axes, [(found.curve[-1], label, ACCENT)])
        axes.annotate(
            "now", (end, 1.0), xycoords=axes.get_xaxis_transform(), color=MUTED, fontsize=8.0,
            va="top", textcoords="offset points", xytext=(4, -2),
        )  # fmt: skip

    return render("gain", "What more search would gain", (WIDTH, 2.9), draw)


def _score_axis(axes: Axes, scale: Scale) -> None:
    axes.grid(axis="y")
    axes.set_xlabel("items spent by the search")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{scale.factor * y + 0.0:g}".replace("-", "\u2212"))
    )
    axes.set_ylabel(f"mean fitness, {scale.unit}" if scale.unit else "mean fitness")
