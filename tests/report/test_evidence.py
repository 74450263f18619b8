from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evomerge.report.evidence import (
    Standing,
    best_baseline,
    honesty_rows,
    result_rows,
    results,
    smallest_visible_lead,
    standing,
)
from evomerge.report.formats import scale_of
from evomerge.report.sentences import (
    cautions,
    headline,
    power_sentence,
    stamps,
    truncation_sentence,
)
from evomerge.report.summary import Comparison, RunSummary


def test_standings(
    summary: RunSummary, running: RunSummary, unverified: RunSummary, not_better: RunSummary
) -> None:
    assert standing(summary) is Standing.BETTER
    assert standing(running) is Standing.RUNNING
    assert standing(replace(running, state="interrupted")) is Standing.INTERRUPTED
    assert standing(unverified) is Standing.UNVERIFIED
    assert standing(not_better) is Standing.NOT_BETTER
    assert standing(replace(summary, better=None)) is Standing.UNDECIDED
    assert standing(replace(summary, better=False)) is Standing.WORSE


def test_a_claim_without_holdout_rows_stays_unverified(unverified: RunSummary) -> None:
    assert standing(replace(unverified, better=True)) is Standing.UNVERIFIED


def test_every_standing_has_its_own_headline(summary: RunSummary, not_better: RunSummary) -> None:
    cases = (
        summary,
        not_better,
        replace(summary, better=None),
        replace(summary, better=False),
        replace(summary, holdout=()),
        replace(summary, state="running"),
        replace(summary, state="interrupted"),
    )
    assert len({headline(case) for case in cases}) == len(cases)


def test_results_prefer_the_holdout(
    summary: RunSummary, unverified: RunSummary, running: RunSummary
) -> None:
    assert (results(summary).split, results(summary).items) == ("holdout", 750)
    assert (results(unverified).split, results(unverified).items) == ("selection", 1250)
    assert (results(running).split, results(running).items) == ("search", 300)
    assert results(replace(running, baselines=())).rows == ()


def test_rows_are_best_first_and_failures_last(summary: RunSummary) -> None:
    broken = replace(summary.holdout[0], fitness=math.nan)
    rows = results(replace(summary, holdout=(broken, *summary.holdout[1:]))).rows
    assert [row.label for row in rows[:2]] == ["merge 171 (late mean)", "task arithmetic 1"]
    assert rows[-1].label == "base"


def test_the_bar_is_the_best_model_that_was_not_evolved(summary: RunSummary) -> None:
    best = best_baseline(summary.holdout)
    assert best is not None
    assert best.label == "task arithmetic 1"
    assert best_baseline(summary.holdout[-1:]) is None


def test_kinds_are_told_apart(summary: RunSummary, not_better: RunSummary) -> None:
    kinds = {row.label: row.kind for row in result_rows(summary, scale_of(summary))}
    assert kinds["merge 171 (late mean)"] == "winner"
    assert kinds["base"] == "base model"
    assert kinds["read"] == "parent"
    assert kinds["uniform soup"] == "fixed recipe"
    kinds = {row.label: row.kind for row in result_rows(not_better, scale_of(not_better))}
    assert kinds["merge 171 (late mean)"] == "finalist"
    assert kinds["task arithmetic 1"] == "fixed recipe, kept"


def test_leads_belong_to_the_other_models(summary: RunSummary) -> None:
    rows = {row.label: row for row in result_rows(summary, scale_of(summary))}
    assert rows["merge 171 (late mean)"].lead == ""
    assert rows["merge 171 (late mean)"].winner
    assert rows["task arithmetic 1"].lead == "+17.1"
    assert [label for label, row in rows.items() if row.rival] == ["task arithmetic 1"]


def test_honesty_compares_the_same_model_on_both_splits(not_better: RunSummary) -> None:
    rows = {row.label: row for row in honesty_rows(not_better, scale_of(not_better))}
    assert len(rows) == len(not_better.selection)
    merge = rows["merge 171 (late mean)"]
    assert (merge.claimed, merge.holdout, merge.gap) == ("94.8", "74.1", "+20.7")
    assert merge.reading == "promised too much"
    assert rows["TIES 0.5"].reading == "agrees within chance"


def test_honesty_needs_both_splits(unverified: RunSummary, running: RunSummary) -> None:
    assert honesty_rows(unverified, scale_of(unverified)) == ()
    assert honesty_rows(running, scale_of(running)) == ()


def test_smallest_visible_lead_matches_the_textbook() -> None:
    # 10 % discordant items of 1537: +2 points with 80 % power at one-sided 5 %.
    half = 1.959964 * math.sqrt(0.10 / 1537)
    visible = smallest_visible_lead(Comparison(0.0, -half, half, 0.5))
    assert visible == pytest.approx(0.02, abs=2e-4)


@pytest.mark.parametrize("ends", [(0.1, 0.1), (math.nan, 0.2)])
def test_power_is_unknown_without_an_interval(ends: tuple[float, float]) -> None:
    assert smallest_visible_lead(Comparison(0.1, *ends, 0.5)) is None


def test_a_small_holdout_is_a_caution(summary: RunSummary) -> None:
    scale = scale_of(summary)
    scores = tuple(replace(score, n=120) for score in summary.holdout[0].scores)
    small = replace(summary, holdout=tuple(replace(r, scores=scores) for r in summary.holdout))
    assert not any("holdout" in note for note in cautions(summary, scale))
    (note,) = [note for note in cautions(small, scale) if "holdout is small" in note]
    assert "120 items" in note
    assert power_sentence(small, scale) in note


def test_an_undecided_run_says_what_the_holdout_could_have_shown(summary: RunSummary) -> None:
    notes = cautions(replace(summary, better=None), scale_of(summary))
    assert any("80 % power" in note for note in notes)


def test_missing_holdout_is_the_first_caution(unverified: RunSummary, running: RunSummary) -> None:
    assert "There is no holdout" in cautions(unverified, scale_of(unverified))[0]
    planned = replace(running, split_sizes=(("search", 3000), ("holdout", 0)))
    assert "will end unverified" in cautions(planned, scale_of(planned))[0]
    assert cautions(running, scale_of(running)) == ()


def test_many_failures_are_a_caution(summary: RunSummary) -> None:
    many = replace(summary, spending=replace(summary.spending, failed=60))
    assert any("60 of 180 candidates failed" in n for n in cautions(many, scale_of(many)))
    assert not any("failed" in n for n in cautions(summary, scale_of(summary)))


def test_the_lead_on_selection_is_held_against_what_the_holdout_can_show(
    summary: RunSummary,
) -> None:
    scale = scale_of(summary)
    undecided = replace(summary, better=None)
    assert "reliably" not in cautions(undecided, scale)[0]
    bar = best_baseline(summary.selection)
    assert bar is not None
    assert bar.comparison is not None
    slight = replace(bar, comparison=replace(bar.comparison, difference=0.01))
    rows = tuple(slight if row is bar else row for row in summary.selection)
    note = cautions(replace(undecided, selection=rows), scale)[0]
    assert note.startswith(
        "The lead on the selection items, +1.0 points, is less than the holdout can reliably show. "
        "With 750 holdout items a true lead of less than about "
    )
    assert not any("reliably" in n for n in cautions(replace(summary, selection=rows), scale))


def test_leaks_are_cautions_and_a_test_split_is_a_stamp(summary: RunSummary) -> None:
    leaking = replace(summary, test_splits=("arc", "gsm"), near_duplicates=12)
    first, second = cautions(leaking, scale_of(leaking))[:2]
    assert first.startswith("The recipe was tuned on items of the test split of arc, gsm: compare")
    assert second.startswith("12 of 750 holdout items nearly repeat items that the recipe was tun")
    assert stamps(leaking) == ("TUNED ON THE TEST SPLIT OF arc, gsm",)
    assert stamps(replace(leaking, holdout=())) == ("UNVERIFIED", *stamps(leaking))
    assert stamps(summary) == ()


def with_truncated(summary: RunSummary, **counts: int) -> RunSummary:
    rows = (replace(row, truncated=counts.get(row.kind, 0)) for row in summary.holdout)
    return replace(summary, holdout=tuple(rows))


def test_truncated_answers_are_counted_for_the_winner_and_the_others(summary: RunSummary) -> None:
    assert truncation_sentence(summary) == ""
    few = with_truncated(summary, winner=15, parent=3)
    assert truncation_sentence(few) == (
        "Cut off by max_gen_toks on holdout items: 2.0 % of the answers of merge 171 (late mean), "
        "at most 0.4 % of those of the others (write)."
    )
    assert not any("depends on max_gen_toks" in n for n in cautions(few, scale_of(few)))
    for many in (with_truncated(summary, winner=16), with_truncated(summary, base=16)):
        (note,) = (n for n in cautions(many, scale_of(many)) if "depends on max_gen_toks" in n)
        assert note.startswith(truncation_sentence(many))
        assert "2.1 %" in note


def test_truncated_answers_of_a_run_that_goes_on(running: RunSummary) -> None:
    rows = tuple(replace(row, truncated=30) for row in running.baselines)
    sentence = truncation_sentence(replace(running, baselines=rows))
    assert sentence.startswith("Cut off by max_gen_toks on search items: at most 10.0 % of those")
