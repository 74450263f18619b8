from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest

from evomerge.candidate import Assignment, Candidate, Failed, Scored
from evomerge.errors import Interrupted, TooManyFailures
from evomerge.genes import CONTINUOUS
from evomerge.run.core import Schedule
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger, LedgerMismatch, LedgerReader
from evomerge.run.plan import Batches, Budget, RunPlan
from evomerge.run.pools.inline import InlinePool
from evomerge.run.progress import Evaluated, Finished, GenerationDone, Warned
from evomerge.search.cma_es import CmaEs
from tests.run.fakes import OBJECTIVE, FakeWorkers, ScrambledPool, drive, items, plan


def record(run_dir: Path) -> list[object]:
    """All that a run decides: candidates and outcomes, without times."""
    with LedgerReader.open(run_dir) as reader:
        outcomes = {
            e.key: e.outcome.results if isinstance(e.outcome, Scored) else e.outcome
            for e in reader.evaluations()
        }
        return [reader.candidates(), outcomes, reader.meta("decision"), reader.meta("winner")]


def finish(run_dir: Path, workers: FakeWorkers | None = None) -> list[object]:
    *_, last = drive(run_dir, plan(), workers or FakeWorkers())
    assert isinstance(last, Finished)
    return record(run_dir)


def test_the_winner_beats_every_baseline_on_the_holdout(tmp_path: Path) -> None:
    events = list(drive(tmp_path, plan(), FakeWorkers()))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert not finished.is_baseline
    with LedgerReader.open(tmp_path) as reader:
        holdout = {e.candidate: e.outcome for e in reader.evaluations("holdout")}
    fitness = {
        c: OBJECTIVE.fitness(outcome.results)
        for c, outcome in holdout.items()
        if isinstance(outcome, Scored)
    }
    rivals = [value for c, value in fitness.items() if c != finished.winner.id]
    assert len(rivals) == len(plan().stages[0].baselines)
    assert fitness[finished.winner.id] > max(rivals) + 0.1


def test_the_budget_counts_baselines_and_candidates(tmp_path: Path) -> None:
    events = list(drive(tmp_path, plan(candidates=60), FakeWorkers()))
    built = {
        e.candidate.id
        for e in events
        if isinstance(e, Evaluated) and e.stage in ("baseline", "search")
    }
    assert len(built) == 60


def test_an_item_budget_is_kept(tmp_path: Path) -> None:
    events = list(drive(tmp_path, plan(candidates=None, budget_items=6000), FakeWorkers()))
    spent = [e.items_spent for e in events if isinstance(e, Evaluated) and e.stage != "holdout"]
    assert 4500 < spent[-1] <= 6000


class Clock:
    """Time that passes when somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.02
        return self.now


def test_a_time_budget_closes_the_search_and_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.run.evaluations.time", Clock())
    timed = replace(plan(candidates=None), budget=Budget(None, None, 4.0))
    workers = FakeWorkers()
    part = drive(tmp_path, timed, workers)
    events = list(islice(part, 60))
    part.close()
    events = list(drive(tmp_path, timed, workers))
    assert isinstance(events[-1], Finished)
    searched = [e for e in events if isinstance(e, Evaluated) and e.stage == "search"]
    assert 0 < len(searched) < 400
    before = record(tmp_path)
    again = list(drive(tmp_path, timed, workers))
    assert all(e.replayed for e in again if isinstance(e, Evaluated))
    assert record(tmp_path) == before


def test_time_that_is_over_takes_nothing_back(tmp_path: Path) -> None:
    timed = replace(plan(candidates=None), budget=Budget(None, None, 1000.0))
    part = drive(tmp_path, timed, FakeWorkers())
    list(islice(part, 60))
    part.close()
    with Ledger.open(tmp_path) as ledger:
        asked = ledger.next_candidate
        ledger.set_meta("seconds", 999.0, lasting=True)
    *_, last = drive(tmp_path, timed, FakeWorkers())
    assert isinstance(last, Finished)
    with LedgerReader.open(tmp_path) as reader:
        searched = len(reader.evaluations("search"))
        proposed = [c.id for c in reader.candidates() if c.origin == "cma_es"]
    assert len(proposed) == searched > 30
    assert max(proposed) < asked
    assert not last.is_baseline


def test_equal_failures_after_a_restart_are_no_opening(tmp_path: Path) -> None:
    part = drive(tmp_path, plan(), FakeWorkers())
    list(islice(part, 40))
    part.close()

    @dataclass(frozen=True)
    class FiveFailures:
        def __call__(self) -> FiveFailures:
            return self

        def evaluate(self, assignment: Assignment) -> Scored | Failed:
            if assignment.stage == "search" and 38 <= assignment.candidate < 43:
                return Failed("unusable merge", "NaN")
            return FakeWorkers()().evaluate(assignment)

    *_, last = drive(tmp_path, plan(), FiveFailures())  # type: ignore[arg-type]
    assert isinstance(last, Finished)


def test_generations_have_fresh_items_common_to_their_candidates(tmp_path: Path) -> None:
    finish(tmp_path)
    with LedgerReader.open(tmp_path) as reader:
        generation = {c.id: c.generation for c in reader.candidates()}
        sets: dict[int, set[tuple[str, ...]]] = {}
        for entry in reader.evaluations("search"):
            assert isinstance(entry.outcome, Scored)
            sets.setdefault(generation[entry.candidate], set()).add(
                entry.outcome.results[0].items()
            )
    assert len(sets) > 5
    assert all(len(found) == 1 for found in sets.values())
    assert len(set.union(*sets.values())) == len(sets)


def test_splits_are_used_for_what_they_are_for(tmp_path: Path) -> None:
    finish(tmp_path)
    letters = {"baseline": "s", "search": "s", "final 1": "v", "final 3": "v", "holdout": "h"}
    with LedgerReader.open(tmp_path) as reader:
        for stage, letter in letters.items():
            for entry in reader.evaluations(stage):
                assert isinstance(entry.outcome, Scored)
                assert {i[0] for i in entry.outcome.results[0].items()} == {letter}


@pytest.mark.parametrize("fail_every", [0, 7])
@pytest.mark.parametrize("cuts", [(3,), (20, 1, 9), (13, 40, 60, 95), (118,)])
def test_killed_and_continued_equals_uninterrupted(
    tmp_path: Path, cuts: tuple[int, ...], fail_every: int
) -> None:
    workers = FakeWorkers(fail_every=fail_every)
    expected = finish(tmp_path / "whole", workers)
    for cut in cuts:
        part = drive(tmp_path / "cut", plan(), workers)
        list(islice(part, cut))
        part.close()
    assert finish(tmp_path / "cut", workers) == expected


def by_arrival() -> RunPlan:
    (stage,) = plan().stages
    schedule = Schedule(ordered=False, ahead=ScrambledPool.size)
    return replace(plan(), stages=(replace(stage, schedule=schedule),))


def test_in_order_the_arrival_of_results_changes_nothing(tmp_path: Path) -> None:
    expected = finish(tmp_path / "one")
    list(drive(tmp_path / "five", plan(), FakeWorkers(), scrambled=1))
    assert record(tmp_path / "five") == expected


@pytest.mark.parametrize("fail_every", [0, 7])
@pytest.mark.parametrize("cuts", [(), (3,), (20, 1, 9), (13, 40, 60, 95)])
def test_by_arrival_a_continued_run_follows_its_ledger(
    tmp_path: Path, cuts: tuple[int, ...], fail_every: int
) -> None:
    workers = FakeWorkers(fail_every=fail_every)
    before: list[object] = []
    for seed, cut in enumerate(cuts):
        part = drive(tmp_path, by_arrival(), workers, scrambled=seed)
        list(islice(part, cut))
        part.close()
        with LedgerReader.open(tmp_path) as reader:
            counted = [(e.key, e.outcome) for e in reader.evaluations()]
        assert counted[: len(before)] == before
        before = list(counted)
    *_, last = drive(tmp_path, by_arrival(), workers, scrambled=len(cuts))
    assert isinstance(last, Finished)
    whole = record(tmp_path)
    again = list(drive(tmp_path, by_arrival(), FakeWorkers(flat=True)))
    assert all(e.replayed for e in again if isinstance(e, Evaluated))
    assert record(tmp_path) == whole
    searched = [e.candidate.id for e in again if isinstance(e, Evaluated) and e.stage == "search"]
    assert searched != sorted(searched), "nothing overtook anything"


def test_a_recipe_that_failed_by_itself_is_not_evaluated_again(tmp_path: Path) -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Broken:
        def __call__(self) -> Broken:
            return self

        def evaluate(self, assignment: Assignment) -> Scored | Failed:
            asked.append(assignment.candidate)
            return Failed("unusable merge", "NaN")

    one = plan().stages[0].space.decode(plan().stages[0].space.start)
    with Ledger.open(tmp_path) as ledger, InlinePool(Broken()) as pool:
        evaluations = Evaluations(ledger, Dispatcher(pool), OBJECTIVE, threading.Event())
        same = [Candidate(number, 0, "ga", one) for number in range(3)]
        for candidate in same:
            (evaluated,) = evaluations.each([candidate], "search", items("s", 4))
            assert evaluated.failure == "unusable merge: NaN"
            assert evaluated.fitness is None
    assert asked == [0]
    with LedgerReader.open(tmp_path) as reader:
        assert [e.attempts for e in reader.evaluations()] == [1, 0, 0]


def test_recorded_outcomes_are_not_evaluated_again(tmp_path: Path) -> None:
    finish(tmp_path)
    again = list(drive(tmp_path, plan(), FakeWorkers(flat=True)))
    assert all(e.replayed for e in again if isinstance(e, Evaluated))
    assert sum(isinstance(e, GenerationDone) for e in again) > 5


def test_another_trajectory_is_refused(tmp_path: Path) -> None:
    finish(tmp_path)
    stage = plan().stages[0]
    other = replace(
        stage,
        strategy=lambda start, _: CmaEs(
            start, axes=(CONTINUOUS,) * len(start), seed=4, population=8, sigma=0.1
        ),
    )
    with pytest.raises(LedgerMismatch, match="candidate"):
        list(drive(tmp_path, replace(plan(), stages=(other,)), FakeWorkers()))


def test_stopping_drains_and_can_be_continued(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    stop = threading.Event()
    part = drive(tmp_path / "stopped", plan(), FakeWorkers(), stop=stop)
    list(islice(part, 30))
    stop.set()
    with pytest.raises(Interrupted, match="the same command continues"):
        list(part)
    assert finish(tmp_path / "stopped") == expected


def test_nothing_better_hands_over_the_best_baseline(tmp_path: Path) -> None:
    *_, finished = drive(tmp_path, plan(), FakeWorkers(best=0.45))
    assert isinstance(finished, Finished)
    assert finished.is_baseline
    assert finished.winner.origin.startswith("task arithmetic")


def test_no_better_than_the_best_baseline_is_not_better(tmp_path: Path) -> None:
    *_, finished = drive(tmp_path, plan(), FakeWorkers(best=0.5))
    assert isinstance(finished, Finished)
    assert finished.is_baseline


def test_a_flat_objective_is_reported(tmp_path: Path) -> None:
    events = list(drive(tmp_path, plan(), FakeWorkers(flat=True)))
    assert any(isinstance(e, Warned) and "cannot tell candidates apart" in e.text for e in events)


def test_failures_are_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    events = list(drive(tmp_path, plan(), FakeWorkers(fail_every=5)))
    failed = [e for e in events if isinstance(e, Evaluated) and e.fitness is None]
    assert failed
    assert all(e.failure == "non-finite weights: tensor 'x' has NaN" for e in failed)
    assert isinstance(events[-1], Finished)


def test_failing_always_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        TooManyFailures, match="5 of the last 5 candidates failed; the first: non-f"
    ):
        list(drive(tmp_path, plan(), FakeWorkers(fail_every=1)))


def test_a_run_of_which_two_thirds_fail_goes_on(tmp_path: Path) -> None:
    baselines = len(plan().stages[0].baselines)
    workers = FakeWorkers(fail_every=1, spare_every=3, fail_from=baselines)
    *_, last = drive(tmp_path, plan(), workers)
    assert isinstance(last, Finished)


def test_a_run_of_which_four_fifths_fail_stops(tmp_path: Path) -> None:
    workers = FakeWorkers(fail_every=1, spare_every=5)
    with pytest.raises(TooManyFailures, match="15 of the last"):
        list(drive(tmp_path, plan(), workers))


@pytest.mark.parametrize("broken_from", [0, 9, 60])
def test_the_failures_that_stopped_a_run_are_forgotten_when_it_is_continued(
    tmp_path: Path, broken_from: int
) -> None:
    expected = finish(tmp_path / "whole")
    broken = FakeWorkers(fail_every=1, fail_from=broken_from)
    with pytest.raises(TooManyFailures, match="candidates failed"):
        list(drive(tmp_path / "run", plan(), broken))
    with LedgerReader.open(tmp_path / "run") as reader:
        failed = [e for e in reader.tallies() if e.failure is not None]
    with pytest.raises(TooManyFailures, match="candidates failed"):  # nothing was mended yet
        list(drive(tmp_path / "run", plan(), broken))
    first, *_, last = drive(tmp_path / "run", plan(), FakeWorkers())
    assert isinstance(first, Warned)
    assert re.match(r"\d+ evaluations, from the first failure that stopped this run on", first.text)
    assert isinstance(last, Finished)
    assert record(tmp_path / "run") == expected
    with LedgerReader.open(tmp_path / "run") as reader:
        rewinds = reader.events("rewound")
        assert not any(e.failure for e in reader.tallies())
    assert [event.payload["before"] for event in rewinds] == [failed[0].seq] * 2


def test_a_final_without_baselines_is_done_again(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole")
    baselines = len(plan().stages[0].baselines)
    for _ in range(2):
        with pytest.raises(TooManyFailures, match="no baseline could be scored in the final"):
            list(drive(tmp_path / "run", plan(), FakeWorkers(no_final_below=baselines)))
    assert finish(tmp_path / "run") == expected


def test_without_a_holdout_the_run_says_so(tmp_path: Path) -> None:
    events = list(drive(tmp_path, replace(plan(), holdout_items=items("h", 0)), FakeWorkers()))
    assert any(isinstance(e, Warned) and "unverified" in e.text for e in events)


def test_without_a_final_the_best_score_of_the_search_is_handed_over(tmp_path: Path) -> None:
    run = plan()
    believed = replace(run.stages[0], final=None, batches=Batches(40, fresh=False))
    events = list(drive(tmp_path, replace(run, stages=(believed,)), FakeWorkers()))
    searched = [e for e in events if isinstance(e, Evaluated) and e.stage == "search"]
    best = max(searched, key=lambda e: e.fitness or 0.0)
    assert isinstance(events[-1], Finished)
    assert events[-1].winner.id == best.candidate.id
    assert not any(isinstance(e, Evaluated) and e.stage.startswith("final") for e in events)
    with LedgerReader.open(tmp_path) as reader:
        assert len({e.outcome.results[0].items() for e in reader.evaluations("search")}) == 1  # type: ignore[union-attr]


def test_a_search_without_baselines_spends_nothing_on_them(tmp_path: Path) -> None:
    run = plan()
    bare = replace(
        run.stages[0], baselines=(), starting_points=lambda _: (), final=None, batches=Batches(None)
    )
    events = list(drive(tmp_path, replace(run, stages=(bare,)), FakeWorkers()))
    stages = {e.stage for e in events if isinstance(e, Evaluated)}
    assert stages == {"search", "holdout"}
