"""The figure of what the winner does over depth: a panel per parameter, a line per model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evomerge.report.drawing import (
    GRID,
    INK,
    MARKERS,
    SERIES,
    TICK_STEPS,
    WIDTH,
    end_labels,
    render,
)
from evomerge.report.formats import short_names
from evomerge.report.summary import DepthProfile, RunSummary

SHARED = "all models"
_FEW = 16
_LINE = 74.0
"""Characters that fit along the axes."""

_DRAWN, _TITLE, _GAP = 1.5, 0.3, 0.15
"""Inches: height of a panel's axes, room for its title, room below unnamed axes."""


@dataclass(frozen=True)
class _Panel:
    """One parameter with everything drawn in it; `named` panels carry the names of positions."""

    parameter: str
    profiles: tuple[DepthProfile, ...]
    positions: tuple[str, ...]
    named: bool

    @property
    def turned(self) -> bool:
        """Whether the names are turned: few, but too long to stand side by side."""
        count = len(self.positions)
        return count <= _FEW and len(_side_by_side(self.positions)) < count

    @property
    def shown(self) -> tuple[int, ...]:
        """The positions whose names are written."""
        return tuple(range(len(self.positions))) if self.turned else _side_by_side(self.positions)

    @property
    def foot(self) -> float:
        """Inches needed below the axes."""
        if not self.named:
            return _GAP
        longest = max(len(name) for name in self.positions)
        return 0.55 + (0.042 * longest if self.turned else 0.0)


def depth_plot(summary: RunSummary) -> str:
    """The winner's parameters from input to output as `<svg>`; empty when there are none."""
    panels = _panels(summary.profiles)
    if not panels:
        return ""
    models = list(dict.fromkeys(profile.model for profile in summary.profiles))
    names = short_names(models, 26) | {"": SHARED}
    height = sum(_TITLE + _DRAWN + panel.foot for panel in panels)

    def draw(figure: Figure) -> None:
        top = height
        for panel in panels:
            bottom = top - _TITLE - _DRAWN
            axes = figure.add_axes((0.085, bottom / height, 0.665, _DRAWN / height))
            _draw_panel(axes, panel, models, names)
            top = bottom - panel.foot

    return render("depth", "The winner's parameters over depth", (WIDTH, height), draw)


def _panels(profiles: Iterable[DepthProfile]) -> list[_Panel]:
    """One panel per parameter; names appear where the next panel's positions differ."""
    finite = [p for p in profiles if any(math.isfinite(value) for value in p.values)]
    parameters = list(dict.fromkeys(profile.parameter for profile in finite))
    groups = [tuple(p for p in finite if p.parameter == name) for name in parameters]
    positions = [_positions(group) for group in groups]
    following = [*positions, None][1:]
    return [
        _Panel(name, group, here, here != below)
        for name, group, here, below in zip(parameters, groups, positions, following, strict=True)
    ]


def _positions(profiles: tuple[DepthProfile, ...]) -> tuple[str, ...]:
    """The positions of every series, in order; single values span all of them."""
    series = [profile for profile in profiles if len(profile.values) > 1] or profiles
    return tuple(dict.fromkeys(label for profile in series for label in profile.labels))


def _side_by_side(names: tuple[str, ...]) -> tuple[int, ...]:
    """Positions whose centred names do not touch: the ends, and what fits between them."""
    slot = _LINE / len(names)
    last = len(names) - 1

    def apart(left: int, right: int) -> bool:
        return (right - left) * slot >= (len(names[left]) + len(names[right])) / 2.0 + 1.5

    kept = [0]
    for place in range(1, last):
        if apart(kept[-1], place) and apart(place, last):
            kept.append(place)
    return (*kept, last) if last > 0 and apart(kept[-1], last) else tuple(kept)


def _draw_panel(axes: Axes, panel: _Panel, models: list[str], names: dict[str, str]) -> None:
    axes.set_title(panel.parameter, loc="left", fontsize=9.5, fontweight="bold", color=INK)
    labels = []
    for profile in panel.profiles:
        index = models.index(profile.model)
        end = _draw_profile(axes, profile, panel.positions, index)
        labels.append((end, names[profile.model], SERIES[index % len(SERIES)]))
    _depth_axis(axes, panel)
    end_labels(axes, labels)


def _draw_profile(
    axes: Axes, profile: DepthProfile, positions: tuple[str, ...], index: int
) -> float:
    """Draw one model's series and return its last value."""
    colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
    if len(profile.values) == 1 and len(positions) > 1:
        axes.axhline(profile.values[0], color=colour, linewidth=1.6, zorder=3)
        return profile.values[0]
    pairs = zip(profile.labels, profile.values, strict=True)
    points = sorted((positions.index(name), v) for name, v in pairs if math.isfinite(v))
    axes.plot(
        [x for x, _ in points], [v for _, v in points], color=colour, linewidth=1.6,
        marker=marker, markersize=5.0, zorder=3,
    )  # fmt: skip
    return points[-1][1]


def _depth_axis(axes: Axes, panel: _Panel) -> None:
    """Positions along the bottom; zero always in sight, because it means "not used"."""
    axes.set_xticks(
        panel.shown, [panel.positions[place] if panel.named else "" for place in panel.shown],
        rotation=40 if panel.turned else 0, rotation_mode="anchor",
        ha="right" if panel.turned else "center", va="center_baseline" if panel.turned else "top",
    )  # fmt: skip
    axes.set_xlim(-0.35, len(panel.positions) - 0.65)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 0.0))
    axes.axhline(0.0, color=GRID, linewidth=1.2, zorder=1)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=TICK_STEPS))
    axes.grid(axis="y")
    if panel.named and len(panel.positions) > 1:
        axes.set_xlabel("layers, from input to output")
