"""How figures look and are written: colours, type, label placement, deterministic SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, MUTED, GRID, CARD = "#1b2430", "#616d7e", "#dfe3e8", "#ffffff"
ACCENT, RIVAL = "#0b7a5c", "#b45f06"
SERIES = ("#2f6fb0", "#b8488a", "#7a6cc4", "#c2662d", "#3d8f8a", "#8a7a1f")
MARKERS = ("o", "s", "D", "^", "v", "P")
TICK_STEPS = [1, 2, 2.5, 5, 10]
WIDTH = 7.6
"""Inches; figures are scaled to the page, so this fixes the size of type relative to the figure."""

THEME = MappingProxyType(
    {
        INK: "--fig-ink", MUTED: "--fig-muted", GRID: "--fig-grid", CARD: "--fig-card",
        ACCENT: "--fig-accent", RIVAL: "--fig-rival",
    }
    | {colour: f"--fig-series-{index}" for index, colour in enumerate(SERIES)}
)  # fmt: skip
"""The CSS variable that may replace each colour on a page with a dark theme."""

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": CARD,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.major.pad": 5.0,
    "ytick.major.pad": 5.0,
    "lines.solid_capstyle": "butt",
}


def render(name: str, title: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Draw a figure of `size` inches and return it as an `<svg>` element.

    The same drawing gives the same text everywhere: no date, fixed identifiers, and matplotlib's
    defaults instead of the user's. Identifiers start with `name`, so that several figures may share
    a page. matplotlib's settings are changed during the call and restored afterwards.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        # Text stays text in the SVG, so a glyph that the measuring font lacks does no harm.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": f"evomerge {name}"})
        figure = Figure(figsize=size)
        draw(figure)
        target = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(target, metadata=no_metadata | {"Title": title})
    return _tidy(target.getvalue(), name)


def spread(
    positions: NDArray[np.float64], gap: float, low: float, high: float
) -> NDArray[np.float64]:
    """Positions at least `gap` apart, as near to the given ascending ones as possible.

    Least squares under the spacing constraint is isotonic regression of `y_i - i * gap` (pool
    adjacent violators). The result lies in [low, high] when that many labels fit at all.
    """
    offsets = gap * np.arange(len(positions))
    pools: list[tuple[float, int]] = []
    for value in positions - offsets:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            before, length = pools.pop()
            mean = (mean * size + before * length) / (size + length)
            size += length
        pools.append((mean, size))
    fitted = np.concatenate([np.full(size, mean) for mean, size in pools] or [np.empty(0)])
    room = max(high - offsets[-1], low) if len(positions) else high
    return np.asarray(np.clip(fitted, low, room) + offsets, dtype=np.float64)


def end_labels(axes: Axes, labels: list[tuple[float, str, str]], *, size: float = 8.5) -> None:
    """Write (height, text, colour) labels at the right edge, nudged apart, tied by thin lines.

    Heights are in data units; the axes' limits must be final.
    """
    labels = sorted(labels)
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes belong to a figure"
    inches = axes.get_position().height * figure.get_size_inches()[1]
    line = 1.35 * size / 72.0 / inches
    heights = (np.asarray([height for height, _, _ in labels]) - low) / (high - low)
    for (_, text, colour), at, to in zip(
        labels, heights, spread(heights, line, 0.0, 1.0), strict=True
    ):
        axes.plot(
            [1.0, 1.018, 1.03], [at, to, to], transform=axes.transAxes, color=colour,
            linewidth=0.8, clip_on=False,
        )  # fmt: skip
        axes.text(
            1.038, to, text, transform=axes.transAxes, color=colour, fontsize=size, va="center"
        )


def in_tags(svg: str, edit: Callable[[str], str]) -> str:
    """Edit the tags of an SVG and leave its text alone, which holds names that people chose."""
    return re.sub(r"<[^>]*>", lambda tag: edit(tag[0]), svg)


def _tidy(svg: str, name: str) -> str:
    """The bare element: no prolog, no metadata, own identifiers, the page's kind of font."""

    def edit(tag: str) -> str:
        tag = re.sub(r'( id="| (?:xlink:)?href="#|url\(#)', lambda found: f"{found[1]}{name}-", tag)
        return re.sub(r"(font: (?:\w+ )*[\d.]+px )[^;\"]+", lambda found: found[1] + _FONTS, tag)

    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return in_tags(svg, edit).replace("<svg ", '<svg role="img" ', 1).strip() + "\n"
