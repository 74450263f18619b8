"""The figures about stacks: the path of the winner, and scores against the number of layers."""

from __future__ import annotations

import math

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
from evomerge.report.formats import scale_of, short_names, typographic
from evomerge.report.summary import DepthPoint, RouteStop, RunSummary

_SHAPES = {"winner": "o", "base": "D", "parent": "^", "baseline": "s", "stage": "P"}


def route_plot(summary: RunSummary) -> str:
    """The layers that a token passes, in order, as `<svg>`; empty unless the winner is a stack."""
    route = summary.route
    if not route:
        return ""
    models = list(dict.fromkeys(stop.model for stop in route))
    names = short_names(models, 26)

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.085, 0.17, 0.665, 0.8))
        labels: dict[str, tuple[float, str, str]] = {}
        for index, model in enumerate(models):
            colour = SERIES[index % len(SERIES)]
            places = [i for i, stop in enumerate(route) if stop.model == model]
            layers = [route[i].layer for i in places]
            axes.plot(places, layers, linestyle="", marker="o", markersize=4.5, color=colour)
            labels[model] = (float(layers[-1]), names[model], colour)
        axes.plot(range(len(route)), [s.layer for s in route], color=MUTED, linewidth=0.8, zorder=1)
        _name_scales(axes, route)
        axes.set_xlabel("position in the stack, from input to output")
        axes.set_ylabel("layer of its model")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="y")
        end_labels(axes, list(labels.values()))

    return render("route", "The path of the result", (WIDTH, 3.2), draw)


def _name_scales(axes: Axes, route: tuple[RouteStop, ...]) -> None:
    for place, stop in enumerate(route):
        if stop.gain != 1.0:
            axes.annotate(
                f"\u00d7{stop.gain:.2f}", (place, stop.layer), textcoords="offset points",
                xytext=(0, 7), ha="center", fontsize=7.5, color=INK,
            )  # fmt: skip


def layers_plot(summary: RunSummary) -> str:
    """Scores against the number of layers as `<svg>`; empty unless stacks were searched."""
    points = [point for point in summary.depths if math.isfinite(point.fitness)]
    if not points:
        return ""
    scale = typographic(scale_of(summary))
    tried = [point for point in points if point.kind == "search"]
    judged = [point for point in points if point.kind != "search"]

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.085, 0.17, 0.665, 0.8))
        if tried:
            axes.plot(
                [p.layers for p in tried], [p.fitness for p in tried], linestyle="", marker=".",
                markersize=5.0, color=MUTED, alpha=0.55, zorder=2,
            )  # fmt: skip
        for point in judged:
            colour = _colour(summary, point)
            axes.plot(
                [point.layers], [point.fitness], color=colour, marker=_SHAPES.get(point.kind, "o"),
                markersize=7.5 if colour == ACCENT else 6.0, zorder=3,
            )  # fmt: skip
        axes.set_xlabel("layers")
        unit = f", {scale.unit}" if scale.unit else ""
        axes.set_ylabel(f"score{unit}")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=TICK_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{scale.factor * y:g}"))
        axes.grid()
        end_labels(axes, [(p.fitness, _name(summary, p), _colour(summary, p)) for p in judged])

    return render("layers", "Scores against depth", (WIDTH, 3.4), draw)


def _colour(summary: RunSummary, point: DepthPoint) -> str:
    winner = summary.winner is not None and point.candidate == summary.winner.candidate
    return ACCENT if winner else RIVAL


def _name(summary: RunSummary, point: DepthPoint) -> str:
    rows = (*summary.holdout, *summary.selection)
    label = next((row.label for row in rows if row.candidate == point.candidate), "")
    return short_names([label], 30)[label]
