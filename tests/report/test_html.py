from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evomerge.report.html import render_report
from evomerge.report.insight import NOTHING, Insight
from evomerge.report.summary import DepthProfile, ModelRow, RunSummary

CASES = ["summary", "running", "unverified", "not_better", "two_tasks", "stacked"]
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The text of a page by tag, and proof that its tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.seen: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


@pytest.mark.parametrize("case", CASES)
def test_one_file_without_scripts_or_network(case: str, request: pytest.FixtureRequest) -> None:
    html = render_report(request.getfixturevalue(case), NOTHING)
    assert {"script", "link", "img", "iframe"}.isdisjoint(Page(html).seen)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)", html)
    assert not re.search(r"\b(nan|None|inf)\b", html)


@pytest.mark.parametrize("case", CASES)
def test_the_same_summary_gives_the_same_page(case: str, request: pytest.FixtureRequest) -> None:
    summary = request.getfixturevalue(case)
    assert render_report(summary, NOTHING) == render_report(summary, NOTHING)


def test_every_row_is_in_the_results_table(summary: RunSummary) -> None:
    page = Page(render_report(summary, NOTHING))
    table = page.texts["table"][0]
    ordered = sorted(summary.holdout, key=lambda row: -row.fitness)
    shown = [text.removesuffix(" best baseline") for text in page.texts["tr"][1 : 1 + len(ordered)]]
    assert all(text.startswith(row.label) for text, row in zip(shown, ordered, strict=True))
    assert "93.6 [91.6, 95.1]" in table
    assert table.count("best baseline") == 1
    assert len(page.texts["svg"]) == 3


def test_the_verdict_comes_first(summary: RunSummary) -> None:
    headings = Page(render_report(summary, NOTHING)).texts["h2"]
    assert headings[0].startswith("The evolved merge beats every model")
    assert "Did the selection promise too much?" in headings


def test_a_running_search_has_a_page(running: RunSummary) -> None:
    page = Page(render_report(running, NOTHING))
    assert page.texts["h2"][0] == "The search is still running: there is no verdict yet."
    assert "pre" not in page.seen
    assert len(page.texts["svg"]) == 2
    assert "Unverified" not in page.texts["main"][0]


def test_a_run_that_has_just_begun_has_a_page(running: RunSummary) -> None:
    page = Page(render_report(replace(running, baselines=(), history=()), NOTHING))
    assert "table" not in page.seen
    assert "svg" not in page.seen


def test_no_holdout_is_stamped_at_the_top(unverified: RunSummary) -> None:
    page = Page(render_report(unverified, NOTHING))
    main = page.texts["main"][0]
    assert main.index("UNVERIFIED") < main.index("Nobody has checked this result")
    assert "There is no holdout" in main
    assert "Results on selection items (not held back)" in page.texts["h2"]


def test_nothing_better_is_said_plainly(not_better: RunSummary) -> None:
    main = Page(render_report(not_better, NOTHING)).texts["main"][0]
    assert "Nothing beat the baselines" in main
    assert "fixed recipe, kept" in main
    assert "beats every" not in main


def test_one_generation(summary: RunSummary) -> None:
    page = Page(render_report(replace(summary, history=summary.history[:1]), NOTHING))
    assert len(page.texts["svg"]) == 3
    assert "1 generation;" in page.texts["main"][0]


def hostile(row: ModelRow) -> ModelRow:
    return replace(row, label="<b>x</b>")


def test_names_are_escaped_everywhere(summary: RunSummary, insight: Insight) -> None:
    bad, won = "<b>x</b>", insight.won
    assert won is not None
    page_text = render_report(
        replace(
            summary,
            name=bad, method=bad, metric=bad, base=bad, parents=(bad, "other"), algorithm=bad,
            baselines=tuple(hostile(row) for row in summary.baselines),
            selection=tuple(hostile(row) for row in summary.selection),
            holdout=tuple(hostile(row) for row in summary.holdout),
            winner_recipe=f"models: [{bad}]", verdict=bad, warnings=(bad,),
            profiles=(DepthProfile(bad, bad, (bad,), (1.0,)),), versions=((bad, bad),),
            split_sizes=((bad, 1),),
        ),
        Insight(
            tuple(
                replace(s, name=bad, genes=tuple(replace(g, name=bad, advice=bad) for g in s.genes))
                for s in insight.searches
            ),
            replace(
                won,
                parents=(bad, "other"),
                groups=tuple(replace(group, label=bad) for group in won.groups),
            ),
        ),
    )  # fmt: skip
    page = Page(page_text)
    assert "b" not in page.seen
    assert bad not in page_text
    for tag in ("title", "h1", "table", "svg", "pre", "li", "footer"):
        assert bad in " ".join(page.texts[tag]), tag


def test_missing_numbers_stay_off_the_page(summary: RunSummary) -> None:
    nan = math.nan
    broken = replace(summary.holdout[0], fitness=nan, low=nan, high=nan)
    html = render_report(
        replace(
            summary,
            holdout=(broken, *summary.holdout[1:]),
            spending=replace(summary.spending, seconds=nan, build_seconds=nan),
        ),
        NOTHING,
    )
    assert not re.search(r"\bnan\b", html)
    assert "n/a" in html


def test_tasks_get_their_own_table(two_tasks: RunSummary, summary: RunSummary) -> None:
    tables = Page(render_report(two_tasks, NOTHING)).texts["table"]
    (tasks,) = [table for table in tables if "wiki: word_perplexity" in table]
    assert "93.6 % ± 0.9" in tasks
    assert "2.898 ± 0.120" in tasks
    assert "Task by task" not in render_report(summary, NOTHING)


def test_insight_is_shown_in_the_order_a_reader_wants(
    summary: RunSummary, insight: Insight
) -> None:
    page = Page(render_report(summary, insight))
    headings = page.texts["h2"]
    wanted = [
        "The search",
        "What more search would gain",
        "Which genes mattered",
        "Which layers each parent won",
        "What the result looks like inside",
    ]
    assert [heading for heading in headings if heading in wanted] == wanted
    assert len(page.texts["svg"]) == 6
    main = page.texts["main"][0]
    assert "Twice the items would be expected to add" in main
    assert "weight[a, layers 0-1]" in main


def test_what_cannot_be_told_is_said_without_a_figure(
    summary: RunSummary, unknown: Insight
) -> None:
    page = Page(render_report(summary, replace(unknown, won=None)))
    assert len(page.texts["svg"]) == 3
    assert page.texts["main"][0].count("Cannot tell") == 2
    assert not re.search(r"\bnan\b", page.texts["main"][0])


def test_figures_follow_the_theme_of_the_page(summary: RunSummary, insight: Insight) -> None:
    html = render_report(summary, insight)
    figures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    css = re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
    used = set(re.findall(r"var\((--fig-[\w-]+), #", "".join(figures)))
    assert {"--fig-ink", "--fig-card", "--fig-accent", "--fig-series-0"} <= used
    dark = css[css.index("prefers-color-scheme: dark") : css.index("box-sizing")]
    assert used - {"--fig-card"} <= set(re.findall(r"(--fig-[\w-]+):", dark))


def test_a_stack_shows_its_path_its_depth_and_its_stages(stacked: RunSummary) -> None:
    page = Page(render_report(stacked, NOTHING))
    assert {"Stage after stage", "Accuracy against depth", "The path of the result"} <= set(
        page.texts["h2"]
    )
    assert "\u00d71.15" in page.texts["svg"][-1]
    assert any("12 rejected unscored" in text for text in page.texts["main"])
    assert "What the result looks like inside" not in page.texts["h2"]
