"""Trades and constraints as reports show them, from recorded runs without models."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evomerge import yaml12
from evomerge.constraints import Constraint
from evomerge.report.card import render_card
from evomerge.report.evidence import Standing, best_baseline, standing
from evomerge.report.formats import scale_of
from evomerge.report.front_plots import front_plot
from evomerge.report.html import render_report
from evomerge.report.insight import NOTHING
from evomerge.report.leading import leading_candidates
from evomerge.report.sentences import cautions, headline
from evomerge.report.summarize import summarize
from evomerge.report.summary import RunSummary
from evomerge.report.terminal import front_table, verdict_lines
from evomerge.report.trades import holm
from evomerge.run.plan import RunPlan
from tests.run.fakes import drive
from tests.run.trades import GUARD, TradeWorkers, trades

NOBODY = Constraint("guard", "min", 0.99)


def resolved(plan: RunPlan) -> dict[str, Any]:
    """What a report reads of a resolved specification."""
    (stage,) = plan.stages
    return {
        "name": "trades",
        "seed": 3,
        "objective": {"combine": "pareto"},
        "goals": [asdict(goal) for goal in plan.objective.goals],
        "constraints": [asdict(constraint) for constraint in plan.constraints],
        "parents": {"base": "0", "a": "1", "b": "2"},
        "budget": {"candidates": plan.budget.candidates, "items": None, "time": None},
        "splits": {"search": {"left": 150}, "selection": {"left": 120}, "holdout": {"left": 120}},
        "versions": {"evomerge": "0"},
        "test_splits": [],
        "near_duplicates": 0,
        "searches": [
            {
                "name": "",
                "method": "task_arithmetic",
                "algorithm": stage.algorithm,
                "population": stage.population,
                "minibatch": 20,
                "dimensions": 6,
                "baselines": [
                    {"label": b.label, "kind": b.kind, "model": b.model} for b in stage.baselines
                ],
            }
        ],
    }


def recorded(place: Path, *constraints: Constraint) -> Path:
    plan = trades(*constraints)
    list(drive(place, plan, TradeWorkers()))  # type: ignore[arg-type]
    (place / "spec.resolved.yaml").write_text(yaml12.dumps(resolved(plan)), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("guarded"), GUARD)


@pytest.fixture(scope="module")
def summary(guarded: Path) -> RunSummary:
    return summarize(guarded)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    return summarize(recorded(tmp_path_factory.mktemp("hopeless"), NOBODY))


def test_the_front_is_on_the_holdout_with_baselines_behind_it(summary: RunSummary) -> None:
    front = summary.front
    assert front is not None
    assert front.split == "holdout"
    assert front.tasks == ("left", "right")
    places = [row.place for row in front.rows]
    assert places == sorted(places, reverse=True)  # "front" before "baseline"
    assert len(places) == len(summary.holdout)
    assert front.covered > front.covered_before
    assert all(point.hypervolume >= 0.0 for point in front.history)
    spent = [point.items_spent for point in front.history]
    assert spent == sorted(spent)


def test_differences_to_the_winner_are_those_of_the_scores(summary: RunSummary) -> None:
    assert summary.front is not None
    assert summary.winner is not None
    rows = {row.candidate: row for row in summary.front.rows}
    winner = rows[summary.winner.candidate]
    for row in rows.values():
        for ours, theirs in zip(row.scores, winner.scores, strict=True):
            assert ours.difference == pytest.approx(ours.value - theirs.value)
    assert not any(score.clear for score in winner.scores)
    assert not any(s.clear for r in rows.values() if r.place == "baseline" for s in r.scores)


def test_everybody_is_judged_on_the_guard(summary: RunSummary) -> None:
    lines = {line.candidate: line for line in summary.constraints}
    assert set(lines) == {row.candidate for row in summary.holdout}
    assert lines[1].kept == "kept"  # the reference itself
    assert lines[1].room == pytest.approx(0.1)
    assert lines[0].kept == "violated"
    limit = lines[1].value - 0.1
    assert all(line.limit == pytest.approx(limit) for line in lines.values())
    eligible = {row.candidate: row.eligible for row in summary.holdout}
    assert eligible == {c: line.room >= 0.0 for c, line in lines.items()}


def test_who_violates_is_no_bar(summary: RunSummary) -> None:
    bar = best_baseline(summary.holdout)
    assert bar is not None
    assert bar.label == "a"
    assert standing(summary) is Standing.BETTER


def test_the_page_shows_front_volume_and_constraints(summary: RunSummary) -> None:
    html = render_report(summary, NOTHING)
    for text in (
        "Which model for which trade",
        "The front has",
        "Constraints",
        "guard acc at most",
    ):
        assert text in html
    assert html.count("<svg") >= 4
    assert "violates a constraint" in html
    assert render_report(summary, NOTHING) == html


def test_terminal_and_card_name_the_whole_front(summary: RunSummary) -> None:
    assert summary.front is not None
    members = [row for row in summary.front.rows if row.place == "front"]
    table = front_table(summary)
    assert table is not None
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    shown, card = console.export_text(), render_card(summary)
    for row in members:
        assert str(row.candidate) in shown
        assert row.label in card
    assert re.search(r"It (keeps|violates): guard acc|cannot tell whether", card)
    said = " ".join(verdict_lines(summary))
    assert "covers a volume of" in said


def test_leading_candidates_have_the_front_after_the_winner(
    guarded: Path, summary: RunSummary
) -> None:
    assert summary.front is not None
    assert summary.winner is not None
    members = {row.candidate for row in summary.front.rows if row.place == "front"}
    leading = leading_candidates(guarded, len(members))
    assert leading[0].candidate.id == summary.winner.candidate
    assert {one.candidate.id for one in leading} == members
    assert all("on the front" in one.score and "left 0." in one.score for one in leading)


def test_three_objectives_are_drawn_side_by_side(summary: RunSummary) -> None:
    assert summary.front is not None

    def wider(row: Any) -> Any:
        more = replace(row.scores[0], task="third", value=1.0 - row.scores[0].value)
        return replace(row, scores=(*row.scores, more))

    front = replace(
        summary.front,
        tasks=("left", "right", "third"),
        rows=tuple(map(wider, summary.front.rows)),
        dropped=tuple(map(wider, summary.front.dropped)),
    )
    svg = front_plot(replace(summary, front=front))
    assert "third acc" in svg
    assert front_plot(summary) != svg


def test_when_nobody_keeps_all_it_is_said(hopeless: RunSummary) -> None:
    assert hopeless.broken
    assert hopeless.better is False
    assert standing(hopeless) is Standing.BROKEN
    assert headline(hopeless) == "The model handed over violates a constraint."
    assert "No finalist kept every constraint" in hopeless.verdict
    notes = cautions(hopeless, scale_of(hopeless))
    assert any("violates: guard acc at least 0.99" in note for note in notes)
    assert "violates a constraint" in render_report(hopeless, NOTHING)


def test_without_baselines_that_keep_all_the_winner_stands_alone(summary: RunSummary) -> None:
    rows = tuple(
        row if row.kind == "winner" else replace(row, eligible=False) for row in summary.holdout
    )
    alone = replace(summary, holdout=rows)
    assert standing(alone) is Standing.ALONE
    assert "No baseline keeps every constraint" in headline(alone)


def test_holm_stops_at_the_first_that_is_not_clear() -> None:
    tests = {(1, "a"): 0.01, (1, "b"): 0.03, (2, "a"): 0.04, (2, "b"): 0.001}
    assert holm(tests) == {(2, "b"), (1, "a")}
    assert holm({}) == set()
