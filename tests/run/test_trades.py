from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from evomerge.candidate import Scored
from evomerge.constraints import Constraint
from evomerge.errors import TooManyFailures
from evomerge.front import dominates
from evomerge.run.final import Results, decide
from evomerge.run.forecast import forecast
from evomerge.run.judging import Judge, Judged
from evomerge.run.ledger import LedgerReader
from evomerge.run.plan import RunPlan
from evomerge.run.progress import Evaluated, Finished, Warned
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes, totals
from tests.run.fakes import drive
from tests.run.trades import FLOOR, GUARD, OBJECTIVE, TradeWorkers, trades


def record(run_dir: Path) -> list[object]:
    """All that a run decides, without times."""
    with LedgerReader.open(run_dir) as reader:
        outcomes = {
            e.key: e.outcome.results if isinstance(e.outcome, Scored) else e.outcome
            for e in reader.evaluations()
        }
        return [reader.candidates(), outcomes, reader.meta("decision"), reader.meta("winner")]


def finish(run_dir: Path, plan: RunPlan, workers: TradeWorkers | None = None) -> list[object]:
    *_, last = drive(run_dir, plan, workers or TradeWorkers())  # type: ignore[arg-type]
    assert isinstance(last, Finished)
    return record(run_dir)


def points(run_dir: Path, stage: str) -> dict[int, tuple[float, ...]]:
    with LedgerReader.open(run_dir) as reader:
        return {
            e.candidate: OBJECTIVE.point(totals(e.outcome.results))
            for e in reader.evaluations(stage)
            if isinstance(e.outcome, Scored)
        }


def test_a_front_is_found_and_held_back_items_answered_by_all_of_it(tmp_path: Path) -> None:
    finish(tmp_path, trades())
    with LedgerReader.open(tmp_path) as reader:
        front = reader.meta("decision")["front"]
        winner = reader.meta("winner")
    held = points(tmp_path, "holdout")
    assert len(front) >= 3
    assert winner in front
    assert {*front, *range(len(trades().stages[0].baselines))} == set(held)
    # from the best at "left" to the best at "right"
    assert held[front[0]][0] > held[front[-1]][0] + 0.1
    assert held[front[-1]][1] > held[front[0]][1] + 0.1
    mean = {number: sum(point) for number, point in held.items()}
    assert mean[winner] > max(mean[number] for number in mean if number not in front)


def test_nobody_in_the_last_rung_dominates_the_front(tmp_path: Path) -> None:
    finish(tmp_path, trades())
    with LedgerReader.open(tmp_path) as reader:
        front = reader.meta("decision")["front"]
        rungs = [reader.evaluations(f"final {number}") for number in (1, 2, 3)]
    last = {e.candidate for e in rungs[-1]}
    found: dict[int, list[TaskOutcomes]] = {number: [] for number in last}
    for rung in rungs:
        for entry in rung:
            if entry.candidate in last and isinstance(entry.outcome, Scored):
                found[entry.candidate] += entry.outcome.results
    sums = {
        number: tuple(
            sum(o.value for r in results if r.task == task for o in r.outcomes)
            for task in ("left", "right")
        )
        for number, results in found.items()
    }
    for number in last:
        beaten = any(dominates(sums[other], sums[number]) for other in last)
        assert (number in front) == (not beaten)


def guard_of(run_dir: Path) -> dict[int, float]:
    """What the models of the holdout score in the guard task."""
    with LedgerReader.open(run_dir) as reader:
        found = {e.candidate: e.outcome for e in reader.evaluations("holdout")}
    return {
        number: sum(o.value for o in outcome.results[2].outcomes) / 120
        for number, outcome in found.items()
        if isinstance(outcome, Scored)
    }


def test_a_guard_keeps_the_front_where_it_does_no_harm(tmp_path: Path) -> None:
    finish(tmp_path / "free", trades())
    finish(tmp_path / "guarded", trades(GUARD))
    lowest = {}
    for name in ("free", "guarded"):
        guard = guard_of(tmp_path / name)
        with LedgerReader.open(tmp_path / name) as reader:
            decision = reader.meta("decision")
        assert decision["winner"] not in decision["violating"]
        lowest[name] = min(guard[number] for number in decision["front"]) - guard[1]
    assert lowest["free"] < -0.2
    assert lowest["guarded"] > -0.15


def test_references_answer_no_item_twice_and_only_what_is_limited(tmp_path: Path) -> None:
    finish(tmp_path, trades(GUARD))
    with LedgerReader.open(tmp_path) as reader:
        found = [e for e in reader.evaluations() if e.stage.startswith("reference ")]
        early = next(e.outcome for e in reader.evaluations("baseline") if e.candidate == 1)
    assert found
    assert {entry.candidate for entry in found} == {1}
    assert isinstance(early, Scored)
    seen = [item for result in early.results if result.task == "guard" for item in result.items()]
    for entry in found:
        assert isinstance(entry.outcome, Scored)
        (result,) = entry.outcome.results
        assert result.task == "guard"
        seen += result.items()
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(("constraints", "fail_every"), [((), 7), ((GUARD, FLOOR), 0)])
def test_killed_and_continued_equals_uninterrupted(
    tmp_path: Path, constraints: tuple[Constraint, ...], fail_every: int
) -> None:
    workers, plan = TradeWorkers(fail_every), trades(*constraints)
    expected = finish(tmp_path / "whole", plan, workers)
    for cut in (5, 33, 70):
        part = drive(tmp_path / "cut", plan, workers)  # type: ignore[arg-type]
        list(islice(part, cut))
        part.close()
    assert finish(tmp_path / "cut", plan, workers) == expected


def test_in_order_the_arrival_of_references_changes_nothing(tmp_path: Path) -> None:
    expected = finish(tmp_path / "one", trades(GUARD))
    for seed in (1, 2):
        place = tmp_path / str(seed)
        list(drive(place, trades(GUARD), TradeWorkers(), scrambled=seed))  # type: ignore[arg-type]
        assert record(place) == expected


def test_by_arrival_a_continued_run_follows_its_ledger(tmp_path: Path) -> None:
    plan, workers = trades(GUARD, by_arrival=True), TradeWorkers(fail_every=9)
    before: list[object] = []
    for seed, cut in enumerate((20, 45)):
        part = drive(tmp_path, plan, workers, scrambled=seed)  # type: ignore[arg-type]
        list(islice(part, cut))
        part.close()
        with LedgerReader.open(tmp_path) as reader:
            counted: list[object] = [(e.key, e.outcome) for e in reader.evaluations()]
        assert counted[: len(before)] == before
        before = counted
    *_, last = drive(tmp_path, plan, workers, scrambled=9)  # type: ignore[arg-type]
    assert isinstance(last, Finished)


def test_an_item_budget_pays_for_references_too(tmp_path: Path) -> None:
    plan = trades(GUARD, items=6000)
    events = list(drive(tmp_path, plan, TradeWorkers()))  # type: ignore[arg-type]
    spent = [e.items_spent for e in events if isinstance(e, Evaluated) and e.stage != "holdout"]
    assert 4000 < spent[-1] <= 6000
    expected = forecast(plan, 1, None).items
    assert expected is not None
    assert spent[-1] <= expected - plan.holdout_items.count


def test_a_reference_that_cannot_be_scored_stops_the_run(tmp_path: Path) -> None:
    plan = trades(GUARD)
    with pytest.raises(TooManyFailures, match="which a constraint compares with, could not be"):
        list(drive(tmp_path, plan, TradeWorkers(broken_reference=True)))  # type: ignore[arg-type]
    finish(tmp_path, plan)


def test_baselines_that_all_violate_are_worth_a_warning(tmp_path: Path) -> None:
    plan = trades(Constraint("guard", "min", 0.99))
    events = list(drive(tmp_path, plan, TradeWorkers()))  # type: ignore[arg-type]
    said = [event.text for event in events if isinstance(event, Warned)]
    assert any("every baseline violates a constraint" in text for text in said)
    with LedgerReader.open(tmp_path) as reader:
        decision = reader.meta("decision")
    assert decision["winner"] in decision["violating"]
    assert decision["front"] == []
    assert decision["best_baseline"] is None


def answers(right: int, count: int = 100) -> Results:
    return (TaskOutcomes("t", tuple(ItemOutcome(f"{i}", float(i < right)) for i in range(count))),)


@pytest.mark.parametrize(
    ("scores", "violating", "winner", "bar"),
    [
        ({0: 50, 1: 60, 5: 90}, [], 5, 1),
        ({0: 50, 1: 60, 5: 90}, [5], 1, 1),
        ({0: 50, 1: 95, 5: 90}, [1], 5, 0),
        ({0: 50, 1: 60, 5: 55}, [0, 1], 5, None),
        ({0: 50, 1: 60, 5: 61}, [], 1, 1),
    ],
)
def test_who_violates_is_neither_winner_nor_bar(
    scores: dict[int, int], violating: list[int], winner: int, bar: int | None
) -> None:
    objective = Objective((TaskGoal("t", "acc"),))
    results = {number: answers(right) for number, right in scores.items()}
    judged = {
        number: Judged(right / 100, right / 100 - (0.5 if number in violating else 0.0), (), ())
        for number, right in scores.items()
    }
    decision = decide(objective, results, judged, frozenset({0, 1}), {})
    assert (decision.winner, decision.best_baseline) == (winner, bar)
    assert list(decision.violating) == violating
    assert (decision.comparison is None) == (bar is None or 5 in violating)


def test_without_constraints_judging_changes_nothing() -> None:
    judge = Judge(OBJECTIVE, (), {"a": 1})
    plan = trades()
    found = judge.judged(
        tuple(t for r in answers(30) for t in totals((TaskOutcomes("left", r.outcomes),))),
        plan.search_items,
    )
    assert found == Judged(0.15, 0.15, (0.3,), (0.3,))
    assert not judge.references
    assert not judge.claimed(plan.search_items).tasks
