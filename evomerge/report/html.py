"""The report of a run as one HTML file: no scripts, no network, everything inline."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evomerge.report.depth import depth_plot
from evomerge.report.drawing import THEME, in_tags
from evomerge.report.evidence import (
    VERIFIED,
    Standing,
    honesty_rows,
    result_rows,
    results,
    standing,
)
from evomerge.report.formats import Scale, scale_of, short_names, typographic
from evomerge.report.front_plots import cover_plot, front_plot
from evomerge.report.front_text import (
    constraint_table,
    front_heads,
    front_lines,
    front_sentences,
)
from evomerge.report.gain_figure import gain_plot
from evomerge.report.gene_figure import genes_plot
from evomerge.report.insight import Insight, SearchInsight
from evomerge.report.insight_sentences import Told, gain_told, genes_told, won_told
from evomerge.report.page import best_minibatch, key_figures, protocol, task_table
from evomerge.report.plots import comparison_plot, history_plot
from evomerge.report.sentences import STAMPS, cautions, evidence_sentences, headline, stamps
from evomerge.report.stacks import layers_plot, route_plot
from evomerge.report.summary import RunSummary
from evomerge.report.won_figure import won_plot

_NAME_WIDTH = 40
_TONES = {
    Standing.RUNNING: "calm",
    Standing.INTERRUPTED: "calm",
    Standing.BETTER: "good",
    Standing.NOT_BETTER: "fair",
    Standing.WORSE: "bad",
    Standing.UNDECIDED: "fair",
    Standing.UNVERIFIED: "bad",
    Standing.ALONE: "good",
    Standing.BROKEN: "bad",
}


@dataclass(frozen=True)
class _Shown:
    """One finding of the insight with its figure, which may be empty; `name` is of a stage."""

    name: str
    told: Told
    figure: Markup


def render_report(summary: RunSummary, insight: Insight) -> str:
    """The whole report as HTML text; the same values always give the same text.

    Works at any moment of a run: parts without data are left out.
    """
    scale = typographic(scale_of(summary))
    situation = standing(summary)
    return _environment().get_template("report.html.j2").render(
        summary=summary,
        merged=tuple(short_names(summary.parents, _NAME_WIDTH).values()),
        unit=scale.unit,
        stamp=STAMPS[situation],
        tone=_TONES[situation],
        verified=situation in VERIFIED,
        stamps=stamps(summary),
        headline=headline(summary),
        evidence=" ".join(evidence_sentences(summary, scale)).replace(" %", "\u00a0%"),
        cautions=cautions(summary, scale),
        figures=key_figures(summary, scale),
        results=results(summary),
        rows=result_rows(summary, scale),
        tasks=task_table(summary),
        honesty=honesty_rows(summary, scale),
        lucky=best_minibatch(summary, scale),
        protocol=protocol(summary, scale),
        history=_themed(history_plot(summary)),
        comparison=_themed(comparison_plot(summary)),
        front=_themed(front_plot(summary)),
        front_lines=front_lines(summary, minus=scale.minus),
        front_heads=front_heads(summary),
        front_sentences=front_sentences(summary),
        cover=_themed(cover_plot(summary)),
        constraints=constraint_table(summary, minus=scale.minus),
        depth=_themed(depth_plot(summary)),
        route=_themed(route_plot(summary)),
        layers=_themed(layers_plot(summary)),
        stages=summary.stages if len(summary.stages) > 1 else (),
        gains=tuple(_gain(s, scale) for s in insight.searches[-1:] if not s.several),
        genes=tuple(_genes(search, number) for number, search in enumerate(insight.searches)),
        won=None if insight.won is None else _Shown(
            "", won_told(insight.won, scale), _themed(won_plot(insight.won))
        ),
    )  # fmt: skip


def _gain(search: SearchInsight, scale: Scale) -> _Shown:
    return _Shown(search.name, gain_told(search, scale), _themed(gain_plot(search, scale)))


def _genes(search: SearchInsight, number: int) -> _Shown:
    return _Shown(search.name, genes_told(search), _themed(genes_plot(search, number)))


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("evomerge.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _themed(svg: str) -> Markup:
    """The figure with its colours as CSS variables, so that it follows the page's theme.

    The figure escapes names itself, so it goes into the page as it is.
    """

    def edit(tag: str) -> str:
        for colour, variable in THEME.items():
            tag = tag.replace(colour, f"var({variable}, {colour})")
        return tag

    return Markup(in_tags(svg, edit))
