from __future__ import annotations

import io
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from evomerge.report.summary import RunSummary
from evomerge.report.terminal import results_table, status_lines, verdict_lines


def printed(summary: RunSummary, width: int = 80) -> str:
    """The table as a pipe receives it."""
    target = io.StringIO()
    Console(file=target, width=width).print(results_table(summary))
    return target.getvalue()


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_every_model_is_shown_with_its_numbers(summary: RunSummary) -> None:
    text = printed(summary)
    for row in summary.holdout:
        assert all(word in text for word in row.label.split())
    assert "Holdout: 750 items" in text
    assert "93.6 [91.6, 95.1]" in text
    assert "+17.1 [+14.0, +20.2] <0.0001" in text
    assert text.index("merge 171") < text.index("task arithmetic 1") < text.index("uniform soup")


@pytest.mark.parametrize("case", ["summary", "running", "unverified", "not_better", "two_tasks"])
def test_plain_text_within_80_columns(case: str, request: pytest.FixtureRequest) -> None:
    text = printed(request.getfixturevalue(case))
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text


def test_no_color_keeps_the_kinds_readable(
    summary: RunSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    target = io.StringIO()
    Console(file=target, width=80, force_terminal=True).print(results_table(summary))
    assert "\x1b[32m" not in target.getvalue()
    assert "winner" in target.getvalue()


def test_the_winner_stands_out_on_a_terminal(summary: RunSummary) -> None:
    target = io.StringIO()
    console = Console(
        file=target, width=80, force_terminal=True, color_system="standard", no_color=False
    )
    console.print(results_table(summary))
    (line,) = [line for line in target.getvalue().splitlines() if "merge 171" in line]
    assert "\x1b[1;32m" in line


def test_names_are_not_markup(summary: RunSummary) -> None:
    rows = (replace(summary.holdout[0], label="[red]x[/red]"), *summary.holdout[1:])
    assert "[red]x[/red]" in printed(replace(summary, holdout=rows))


def test_long_names_wrap_instead_of_vanishing(summary: RunSummary) -> None:
    name = "someorganisation/A-Very-Long-Model-Name-7B-Instruct-v0.3-experimental"
    rows = (replace(summary.holdout[0], label=name), *summary.holdout[1:])
    column = [line[:24] for line in printed(replace(summary, holdout=rows)).splitlines()]
    assert name[:12] in squeezed("".join(column))
    assert name[-6:] in squeezed("".join(column))


def test_a_running_search_shows_its_baselines(running: RunSummary) -> None:
    text = printed(running)
    assert "Baselines before the search" in text
    assert "winner's lead" not in text


def test_an_empty_run_prints_an_empty_table(running: RunSummary) -> None:
    assert "model" in printed(replace(running, baselines=()))


def test_numbers_that_are_missing_are_not_printed_as_nan(summary: RunSummary) -> None:
    broken = replace(summary.holdout[0], fitness=math.nan, low=math.nan, high=math.nan)
    text = printed(replace(summary, holdout=(broken, *summary.holdout[1:])))
    assert "nan" not in text
    assert "n/a" in text


def test_the_verdict_in_sentences(summary: RunSummary) -> None:
    first, score, lead, chosen, careful = verdict_lines(summary)
    assert first == "The evolved merge beats every model and fixed recipe it was compared with."
    assert score == (
        "merge 171 (late mean) scores 93.6 %, 95 % interval [91.6, 95.1], on 750 holdout items."
    )
    assert "task arithmetic 1 at 76.5 %" in lead
    assert "the lead is +17.1 points (95 % interval [+14.0, +20.2], p < 0.0001)." in lead
    assert chosen == summary.verdict
    assert careful == f"Careful: {summary.warnings[0]}"


def test_the_verdict_of_other_endings(
    running: RunSummary, unverified: RunSummary, not_better: RunSummary
) -> None:
    assert verdict_lines(running) == ("The search is still running: there is no verdict yet.",)
    assert verdict_lines(unverified)[0].startswith("UNVERIFIED. ")
    assert verdict_lines(not_better)[0].startswith("Nothing beat the baselines")
    assert "task arithmetic 1 scores 76.5 %" in verdict_lines(not_better)[1]


def test_status_of_a_running_search(running: RunSummary) -> None:
    lines = dict(line.split(maxsplit=1) for line in status_lines(running))
    assert lines["run"] == "read-write-ties, running"
    assert lines["candidates"] == "44 of 180, none failed"
    assert lines["items"] == "4,160 of 30,000"
    assert lines["workers"] == "40 s: 30 % building merges, 70 % scoring"
    assert lines["bar"].startswith("76.5 % on search items, task arithmetic 1")
    assert lines["latest"].startswith("generation 3: mean 66.1 %")
    # 44 of 180 candidates took 41 s, so 136 more take 41 * 136 / 44 s.
    assert lines["left"] == "about 2 min 7 s, then the final"


def test_status_before_the_first_score(running: RunSummary) -> None:
    spent = replace(
        running.spending, candidates=0, items=0, seconds=0.0, build_seconds=0.0, score_seconds=0.0
    )
    lines = status_lines(replace(running, baselines=(), history=(), spending=spent))
    assert [line.split()[0] for line in lines] == ["run", "search", "candidates", "items", "time"]


def test_status_of_a_finished_run_has_no_time_left(summary: RunSummary) -> None:
    lines = status_lines(summary)
    assert not any(line.startswith("left") for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_terminal_needs_no_plotting_library() -> None:
    code = (
        "import sys, evomerge.report.terminal; "
        "heavy = {'matplotlib', 'jinja2', 'torch', 'ray', 'lm_eval'} & set(sys.modules); "
        "print(*heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
