from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.report.depth import depth_plot
from evomerge.report.drawing import spread
from evomerge.report.plots import comparison_plot, history_plot
from evomerge.report.stacks import layers_plot, route_plot
from evomerge.report.summary import DepthProfile, RunSummary

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = [history_plot, comparison_plot, depth_plot]
Plot = Callable[[RunSummary], str]


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("plot", FIGURES)
def test_figures_are_well_formed_and_the_same_every_time(plot: Plot, summary: RunSummary) -> None:
    svg = plot(summary)
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title") is not None
    assert svg == plot(summary)
    assert "<script" not in svg
    assert not re.search(r"\b20\d\d-\d\d-\d\d", svg)


@pytest.mark.parametrize("plot", FIGURES)
def test_the_users_style_changes_nothing(plot: Plot, summary: RunSummary) -> None:
    expected = plot(summary)
    with mpl.rc_context({"font.size": 30.0, "axes.grid": True, "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        assert plot(summary) == expected
        assert dict(mpl.rcParams) == before


def test_figures_may_share_a_page(summary: RunSummary) -> None:
    found = re.findall(r'\sid="([^"]+)"', "".join(plot(summary) for plot in FIGURES))
    assert found
    assert len(found) == len(set(found))


@pytest.mark.parametrize("plot", FIGURES)
def test_references_point_to_something(plot: Plot, summary: RunSummary) -> None:
    svg = plot(summary)
    names = set(re.findall(r'\sid="([^"]+)"', svg))
    used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert used
    assert set(used) <= names


def test_history_names_every_line_with_its_score(summary: RunSummary) -> None:
    shown = texts(history_plot(summary))
    assert any(text.startswith("best of generation") for text in shown)
    for row in summary.baselines:
        assert any(re.sub(r"\s+", " ", t).startswith(f"{row.label} ") for t in shown), row.label


def test_labels_at_the_edge_do_not_overlap(summary: RunSummary) -> None:
    crowded = tuple(replace(row, fitness=0.7 + row.candidate / 1e4) for row in summary.baselines)
    root = ElementTree.fromstring(history_plot(replace(summary, baselines=crowded)))
    labels = [node for node in root.iter(f"{SVG}text") if re.search(r" \d\d\.\d$", node.text or "")]
    heights = sorted(float(node.attrib["y"]) for node in labels)
    assert len(heights) == 2 + 9
    assert min(b - a for a, b in pairwise(heights)) > 8.5


def test_only_the_best_of_many_baselines_are_drawn(summary: RunSummary) -> None:
    row = summary.baselines[0]
    many = tuple(
        replace(row, candidate=i, label=f"fixed {i:02d}", fitness=0.3 + i / 100) for i in range(20)
    )
    shown = [
        text for text in texts(history_plot(replace(summary, baselines=many))) if "fixed" in text
    ]
    assert len(shown) == 9
    assert not any("fixed 10" in text for text in shown)
    assert any("fixed 19" in text for text in shown)


def test_one_generation_is_enough(summary: RunSummary) -> None:
    assert "best of generation" in history_plot(replace(summary, history=summary.history[:1]))


def test_generations_without_a_score_are_left_out(summary: RunSummary) -> None:
    failed = replace(summary.history[3], best=-math.inf, mean=math.nan)
    svg = history_plot(replace(summary, history=(*summary.history[:3], failed)))
    assert svg == history_plot(replace(summary, history=summary.history[:3]))
    assert "nan" not in svg.lower()
    assert history_plot(replace(summary, history=(failed,))) == ""


def test_comparison_shows_every_model_and_its_kind(summary: RunSummary) -> None:
    shown = texts(comparison_plot(summary))
    for row in summary.holdout:
        assert row.label in shown
    assert {"winner", "base model", "parent", "fixed recipe"} <= set(shown)
    assert "93.6 [91.6, 95.1]" in shown


def test_depth_has_a_panel_per_parameter_and_a_line_per_parent(summary: RunSummary) -> None:
    shown = texts(depth_plot(summary))
    assert {"weight", "density", "embeddings", "16-23", "head"} <= set(shown)
    assert shown.count("read") == shown.count("write") == 2


def test_shared_and_constant_parameters_have_a_place(summary: RunSummary) -> None:
    more = (
        DepthProfile("weight", "org/third", ("all layers",), (0.4,)),
        DepthProfile("lambda", "", ("all layers",), (1.1,)),
    )
    shown = texts(depth_plot(replace(summary, profiles=(*summary.profiles, *more))))
    assert {"third", "lambda", "all models", "all layers"} <= set(shown)
    assert shown.count("all layers") == 1


def test_many_layers_get_fewer_names(summary: RunSummary) -> None:
    labels = ("embeddings", *map(str, range(80)), "head")
    profile = DepthProfile("weight", "m", labels, tuple(0.01 * i for i in range(82)))
    svg = depth_plot(replace(summary, profiles=(profile,)))
    shown = [text for text in texts(svg) if text in labels]
    assert 10 <= len(shown) <= 24
    assert shown[0] == "embeddings"
    assert shown[-1] == "head"
    root = ElementTree.fromstring(svg)
    named = [node for node in root.iter(f"{SVG}text") if node.text in labels]
    # 9 pt type on a figure of 72 units per inch: about 5.5 units per character.
    edges = [(float(n.attrib["x"]), 5.5 * len(n.text or "") / 2) for n in named]
    assert all(b - a > p + q for (a, p), (b, q) in pairwise(edges))


def test_few_long_names_are_turned(summary: RunSummary) -> None:
    labels = tuple(f"0-7, {depth} % deep" for depth in (0, 25, 50, 75, 100))
    profile = DepthProfile("t", "m", labels, (0.1, 0.2, 0.3, 0.4, 0.5))
    svg = depth_plot(replace(summary, profiles=(profile,)))
    assert set(labels) <= set(texts(svg))
    assert svg.count("rotate(-40 ") == len(labels)


def test_values_that_are_not_numbers_are_not_drawn(summary: RunSummary) -> None:
    gap = DepthProfile("weight", "m", ("0", "1", "2"), (0.1, math.nan, 0.3))
    none = DepthProfile("density", "m", ("0",), (math.nan,))
    svg = depth_plot(replace(summary, profiles=(gap, none)))
    assert "nan" not in svg.lower()
    assert "density" not in texts(svg)


@pytest.mark.parametrize("name", ["<b>x</b>", "a & b", "$x_1$ \\alpha", 'id="q" #1b2430', "日本語"])
def test_names_are_shown_as_they_are(name: str, summary: RunSummary) -> None:
    odd = replace(
        summary,
        baselines=(replace(summary.baselines[0], label=name), *summary.baselines[1:]),
        holdout=(replace(summary.holdout[0], label=name), *summary.holdout[1:]),
        profiles=tuple(replace(profile, model=name) for profile in summary.profiles[:1]),
    )
    assert any(text.startswith(f"{name} ") for text in texts(history_plot(odd)))
    assert name in texts(comparison_plot(odd))
    assert name in texts(depth_plot(odd))


def test_nothing_to_draw_is_an_empty_text(running: RunSummary) -> None:
    assert depth_plot(running) == ""
    assert history_plot(replace(running, history=())) == ""
    assert comparison_plot(replace(running, baselines=())) == ""


@given(st.lists(st.floats(0.0, 1.0), max_size=12), st.floats(0.01, 0.08))
def test_spread_keeps_order_distance_and_bounds(heights: list[float], gap: float) -> None:
    given_at = np.sort(np.asarray(heights, dtype=np.float64))
    placed = spread(given_at, gap, 0.0, 1.0)
    assert placed.shape == given_at.shape
    assert np.all(np.diff(placed) >= gap - 1e-12)
    assert np.all((placed >= -1e-12) & (placed <= 1.0 + 1e-12))


def test_spread_leaves_distant_labels_alone_and_centres_crowded_ones() -> None:
    apart = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(spread(apart, 0.1, 0.0, 1.0), apart, rtol=0, atol=1e-12)
    together = spread(np.array([0.5, 0.5, 0.5]), 0.1, 0.0, 1.0)
    np.testing.assert_allclose(together, [0.4, 0.5, 0.6], rtol=0, atol=1e-12)


@pytest.mark.parametrize("plot", [route_plot, layers_plot])
def test_figures_of_stacks(plot: Plot, stacked: RunSummary, summary: RunSummary) -> None:
    svg = plot(stacked)
    assert ElementTree.fromstring(svg).tag == f"{SVG}svg"
    assert svg == plot(stacked)
    assert plot(summary) == ""
