"""Several searches in one run: shares of the budget, results that pass on, and kills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest

from evomerge.candidate import REJECTED, SEARCH, Assignment, Failed, Scored
from evomerge.errors import InvalidInput
from evomerge.run.core import Schedule
from evomerge.run.ledger import LedgerReader
from evomerge.run.plan import Batches, Budget, FinalPlan, RunPlan, StagePlan
from evomerge.run.progress import Evaluated, Finished
from evomerge.run.stack_stage import stack_baselines, stack_space
from evomerge.score import ItemOutcome, TaskOutcomes
from evomerge.search.first_paths import first_paths
from evomerge.search.stack_ga import StackGa
from evomerge.stack import hops, path_of
from evomerge.stack_file import read_stack
from tests.run import fakes
from tests.run.test_driver import record

MAPPING = {"merge_method": "stack", "models": [{"model": "$one.best"}, {"model": "b"}]}
DEPTHS = {"$one.best": 6, "b": 6}


@dataclass(frozen=True)
class FakeStacks:
    """Makes workers for which a stack of eight layers is best; too short ones are broken."""

    reject: bool = True

    def __call__(self) -> FakeStackWorker:
        return FakeStackWorker(self.reject)


@dataclass(frozen=True)
class FakeStackWorker:
    reject: bool

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        if assignment.recipe.merge_method != "stack":
            return fakes.FakeWorkers()().evaluate(assignment)
        layers = len(hops(path_of(assignment.recipe)))
        if self.reject and assignment.stage == SEARCH and layers < 7:
            return Failed(REJECTED, "prompts cost more")
        quality = 0.9 - 0.08 * abs(layers - 8)
        results = tuple(
            TaskOutcomes(task, tuple(ItemOutcome(i, float(fakes.draw(i) < quality)) for i in items))
            for task, items in assignment.items.tasks
        )
        return Scored(results, 0.001, 0.01)


def plan(budget: Budget | None = None) -> RunPlan:
    run = fakes.plan()
    settings = read_stack(MAPPING, "space", ("one",))
    space = stack_space(settings, DEPTHS)
    second = StagePlan(
        name="two",
        space=space,
        baselines=stack_baselines(settings, DEPTHS),
        algorithm="stack_ga",
        strategy=lambda _start, _count: StackGa(space, first_paths(space), seed=3, population=8),
        starting_points=lambda _: (),
        population=8,
        schedule=Schedule(ordered=True, ahead=4),
        batches=Batches(40),
        final=FinalPlan(),
        share=2.0,
    )
    first = replace(run.stages[0], name="one")
    return replace(run, stages=(first, second), budget=budget or Budget(150, None, None))


def finish(run_dir: Path, workers: FakeStacks | None = None) -> tuple[object, Finished]:
    *_, last = fakes.drive(run_dir, plan(), workers or FakeStacks())
    assert isinstance(last, Finished)
    return record(run_dir), last


def test_the_second_stage_stacks_the_winner_of_the_first(tmp_path: Path) -> None:
    _, finished = finish(tmp_path)
    assert len(hops(path_of(finished.winner.recipe))) == 8
    with LedgerReader.open(tmp_path) as reader:
        candidates = {c.id: c for c in reader.candidates()}
        first = int(reader.meta("two: first candidate"))
        winner = candidates[int(reader.meta("one: decision")["winner"])]
        holdout = {e.candidate for e in reader.evaluations("holdout")}
    assert winner.id < first
    assert winner.recipe.merge_method == "task_arithmetic"
    nested = dict(candidates[first].recipe.nested)
    assert nested == {"$one.best": winner.recipe}
    assert candidates[first].recipe.stored_models() == ("base", "a", "b")
    labels = {candidates[number].origin for number in holdout}
    assert finished.winner.id in holdout
    assert {"winner of stage one", "a", "b", "base", "TIES 0.5"} <= labels
    assert len(holdout) == len({candidates[number].origin for number in holdout})
    generations = [c.generation for c in candidates.values() if c.generation >= 0]
    later = [c.generation for c in candidates.values() if c.generation >= 0 and c.id >= first]
    assert min(later) > max(g for g in generations if g < min(later)) >= 3


def test_the_best_three_of_a_stage_can_be_stacked(tmp_path: Path) -> None:
    settings = read_stack(MAPPING | {"models": [{"model": "$one.top3"}]}, "space", ("one",))
    assert settings.models == ("$one.top1", "$one.top2", "$one.top3")
    assert settings.donor == "$one.top1"
    depths = dict.fromkeys(settings.models, 6)
    space = stack_space(settings, depths)
    run = plan()
    second = replace(
        run.stages[1],
        space=space,
        baselines=stack_baselines(settings, depths),
        strategy=lambda _start, _count: StackGa(space, first_paths(space), seed=3, population=8),
    )
    *_, last = fakes.drive(
        tmp_path, replace(run, stages=(run.stages[0], second)), FakeStacks(reject=False)
    )
    assert isinstance(last, Finished)
    with LedgerReader.open(tmp_path) as reader:
        first = int(reader.meta("two: first candidate"))
        baselines = {c.origin: c.recipe for c in reader.candidates()[first : first + 3]}
    assert list(baselines) == [f"{rank} of stage one" for rank in ("winner", "second", "third")]
    nested = {recipe.nested[0][1].digest for recipe in baselines.values()}
    assert len(nested) == 3


def test_stages_share_the_budget(tmp_path: Path) -> None:
    finish(tmp_path)
    with LedgerReader.open(tmp_path) as reader:
        first = int(reader.meta("two: first candidate"))
        built = {e.candidate for e in reader.evaluations() if e.stage in ("baseline", SEARCH)}
    assert len([c for c in built if c < first]) == 50
    assert len([c for c in built if c >= first]) == 100


def test_an_item_budget_is_shared_and_kept(tmp_path: Path) -> None:
    events = list(fakes.drive(tmp_path, plan(Budget(None, 12_000, None)), FakeStacks()))
    spent = [e for e in events if isinstance(e, Evaluated) and e.stage != "holdout"]
    before = [e.items_spent for e in spent if e.candidate.recipe.merge_method != "stack"]
    assert 3000 < before[-1] <= 4000
    assert 9000 < spent[-1].items_spent <= 12_000


def test_rejected_stacks_cost_no_items_and_do_not_stop_the_run(tmp_path: Path) -> None:
    events = list(fakes.drive(tmp_path, plan(), FakeStacks()))
    spent = 0
    rejected = 0
    for event in (e for e in events if isinstance(e, Evaluated)):
        assert event.rejected == ((event.failure or "").startswith(REJECTED))
        assert (event.items_spent == spent) == event.rejected
        spent, rejected = event.items_spent, rejected + event.rejected
    assert rejected > 0


@pytest.mark.parametrize("cuts", [(30,), (75, 90, 20), (110, 140, 170)])
def test_killed_in_each_stage_and_continued_equals_uninterrupted(
    tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    expected, _ = finish(tmp_path / "whole")
    for cut in cuts:
        part = fakes.drive(tmp_path / "cut", plan(), FakeStacks())
        list(islice(part, cut))
        part.close()
    found, _ = finish(tmp_path / "cut")
    assert found == expected


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"models": [{"model": "$zero.best"}]}, "no earlier stage has that result"),
        ({"models": [{"model": "b"}, {"model": "b"}]}, "'b' is listed twice"),
        ({"base_model": "c"}, "'c' gives the embeddings and must be one of the models"),
        ({"gains": [0, 1.5]}, "a scale of 0 erases all"),
        ({"layers": [9, 3]}, r"expected \[fewest, most\]"),
        ({"repeats": 0}, "expected a whole number of 1 or more"),
        ({"scale_mode": "steam"}, "did you mean 'stream'"),
        ({"slots": 3}, "unknown key 'slots'"),
    ],
)
def test_what_a_space_of_stacks_may_not_say(change: Mapping[str, object], line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        read_stack(MAPPING | change, "space", ("one",))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"layers": [40, 50]}, "no stack has 40 to 50 layers"),
        ({"repeats": 600}, "expected at most 4096"),
    ],
)
def test_limits_that_no_stack_satisfies(change: Mapping[str, object], line: str) -> None:
    settings = read_stack(MAPPING | change, "space", ("one",))
    with pytest.raises(InvalidInput, match=line):
        stack_space(settings, DEPTHS)
