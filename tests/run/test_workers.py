from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch

from evomerge.candidate import OUT_OF_MEMORY, REJECTED, Assignment, Failed, ItemSelection, Scored
from evomerge.errors import BuildFailed, InvalidInput, PreflightFailed
from evomerge.evaluate.catalog import load_catalog
from evomerge.evaluate.evaluator import EvaluatorSpec, TaskSpec
from evomerge.recipe import Parameters, Recipe, Source
from evomerge.run.benches import Probe
from evomerge.run.pool import Answer
from evomerge.run.pools.local import local_pool
from evomerge.run.workers import Worker, WorkerSpec
from evomerge.score import ItemOutcome, TaskGoal, TaskOutcomes
from evomerge.stack import Segment, recipe_of
from evomerge.weights.canary import StaleWeights
from evomerge.weights.pool import ParentPool
from tests import models

TASK = """\
task: order
dataset_path: json
dataset_kwargs: {data_files: {validation: order.jsonl}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{prompt}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


class FakeModel:
    """A model that raises what it is told, or takes the recipe."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.recipe: Recipe | None = None

    def become(self, recipe: Recipe) -> None:
        if self.error is not None:
            raise self.error
        self.recipe = recipe


class FakeEvaluator:
    """Scores every item 1, or raises, or leaves an item out."""

    def __init__(
        self, error: Exception | None = None, skipped: str = "", *, fitting: int = 8
    ) -> None:
        self.error = error
        self.skipped = skipped
        self.batch = 8
        self.fitting = fitting

    def halve_batch(self) -> int | None:
        if self.batch == 1:
            return None
        self.batch //= 2
        return self.batch

    @property
    def remarks(self) -> tuple[str, ...]:
        return () if self.batch == 8 else (f"batch of {self.batch}",)

    def items(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    def goals(self) -> tuple[TaskGoal, ...]:
        return ()

    def prompt_loss(self, selection: ItemSelection) -> float:
        return float(selection.count)

    def evaluate(self, selection: ItemSelection) -> tuple[TaskOutcomes, ...]:
        if self.error is not None:
            raise self.error
        if self.batch > self.fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tuple(
            TaskOutcomes(task, tuple(ItemOutcome(i, 1.0) for i in items if i != self.skipped))
            for task, items in selection.tasks
            if items
        )


class FakeBench:
    """One bench for every recipe."""

    def __init__(
        self, model: FakeModel, evaluator: FakeEvaluator, rejected: Failed | None = None
    ) -> None:
        self.model = model
        self.scorer = evaluator
        self.rejected = rejected

    def of(self, recipe: Recipe) -> FakeBench:
        del recipe
        return self

    def become(self, recipe: Recipe) -> None:
        self.model.become(recipe)

    def screen(self, recipe: Recipe) -> Failed | None:
        del recipe
        return self.rejected

    def evaluator(self, recipe: Recipe) -> FakeEvaluator:
        del recipe
        return self.scorer

    def costs(self, recipe: Recipe) -> tuple[TaskOutcomes, ...]:
        del recipe
        return (TaskOutcomes("cost", (ItemOutcome("layers", 1.5),)),)


def worker(model: FakeModel, evaluator: FakeEvaluator, rejected: Failed | None = None) -> Worker:
    return Worker(FakeBench(model, evaluator, rejected))


def linear(weight: float, other: float | None = None) -> Recipe:
    rest = 1.0 - weight if other is None else other
    sources = (
        Source("a", parameters=Parameters.constants({"weight": weight})),
        Source("b", parameters=Parameters.constants({"weight": rest})),
    )
    normalize = Parameters.constants({"normalize": False})
    return Recipe("linear", models=sources, parameters=normalize)


def assignment(recipe: Recipe, items: tuple[str, ...] = ("x", "y")) -> Assignment:
    return Assignment(1, "search", recipe, ItemSelection((("order", items), ("empty", ()))))


def test_a_candidate_is_built_then_scored_and_timed() -> None:
    model = FakeModel()
    outcome = worker(model, FakeEvaluator()).evaluate(assignment(linear(0.5)))
    assert model.recipe == linear(0.5)
    assert isinstance(outcome, Scored)
    assert [result.items() for result in outcome.results] == [("x", "y"), ("layers",)]
    assert outcome.build_seconds >= 0.0
    assert outcome.score_seconds >= 0.0


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (
            BuildFailed("merged tensor 'w' holds NaN"),
            Failed("unusable merge", "merged tensor 'w' holds NaN"),
        ),
        (InvalidInput(["weight: wrong", "fix it"]), Failed("error", "weight: wrong fix it")),
        (MemoryError(), Failed("out of memory", "MemoryError")),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            Failed("out of memory", "CUDA out of memory. Tried"),
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            Failed("out of memory", "DefaultCPUAllocator: can't allocate memory"),
        ),
    ],
)
def test_errors_of_building_and_of_scoring_become_values(error: Exception, failed: Failed) -> None:
    while_building = worker(FakeModel(error), FakeEvaluator())
    while_scoring = worker(FakeModel(), FakeEvaluator(error))
    assert while_building.evaluate(assignment(linear(0.5))) == failed
    assert while_scoring.evaluate(assignment(linear(0.5))) == failed


def test_an_unexpected_error_says_where_and_its_traceback_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = worker(FakeModel(), FakeEvaluator(KeyError("a\nb"))).evaluate(assignment(linear(0.5)))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "error"
    assert outcome.message.startswith(r"KeyError: 'a\nb' (in test_workers.py:")
    assert " evaluate < workers.py:" in outcome.message
    assert "\n" not in outcome.message
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_answer_to_another_question_is_no_score() -> None:
    outcome = worker(FakeModel(), FakeEvaluator(skipped="x")).evaluate(assignment(linear(0.5)))
    assert isinstance(outcome, Failed)
    assert "the evaluator answered other items than it was asked" in outcome.message


def test_broken_candidates_are_rejected_in_the_search_only() -> None:
    rejected = Failed(REJECTED, "prompts cost more")
    strict = worker(FakeModel(), FakeEvaluator(RuntimeError("not reached")), rejected)
    assert strict.evaluate(assignment(linear(0.5))) == rejected
    final = replace(assignment(linear(0.5)), stage="final 1")
    assert isinstance(worker(FakeModel(), FakeEvaluator(), rejected).evaluate(final), Scored)


@pytest.mark.parametrize("fitting", [1, 3, 7])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(fitting: int) -> None:
    evaluator = FakeEvaluator(fitting=fitting)
    subject = worker(FakeModel(), evaluator)
    for _ in range(2):
        outcome = subject.evaluate(assignment(linear(0.5)))
        assert isinstance(outcome, Scored)
        assert len(outcome.results[0].outcomes) == 2
        assert outcome.remarks == (f"batch of {evaluator.batch}",)
    assert evaluator.batch <= fitting < 2 * evaluator.batch


def test_what_does_not_fit_one_by_one_has_failed() -> None:
    evaluator = FakeEvaluator(fitting=0)
    outcome = worker(FakeModel(), evaluator).evaluate(assignment(linear(0.5)))
    assert outcome == Failed(OUT_OF_MEMORY, "CUDA out of memory")
    assert evaluator.batch == 1


def test_a_model_that_keeps_old_weights_breaks_the_worker() -> None:
    subject = worker(FakeModel(StaleWeights("what was written")), FakeEvaluator())
    with pytest.raises(StaleWeights, match="what was written"):
        subject.evaluate(assignment(linear(0.5)))


def test_a_gpu_that_is_lost_breaks_the_worker() -> None:
    error = RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(RuntimeError, match="CUDA error"):
        worker(FakeModel(error), FakeEvaluator()).evaluate(assignment(linear(0.5)))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    root = tmp_path_factory.mktemp("models")
    models.llama(root / "a", seed=1)
    models.llama(root / "b", seed=2)
    rows = [
        {
            "prompt": f"w{number} w{number + 1}",
            "choices": [f"w{number + 2}", "w40", f"w{number + 9}"],
            "answer": number % 3,
        }
        for number in range(12)
    ]
    (root / "order.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "order.yaml").write_text(TASK)
    tasks = (TaskSpec("order", "acc", weight=1.0, limit=None),)
    evaluator = EvaluatorSpec(
        tasks=tasks, include=(str(root),), batch_size=4, apply_chat_template=False, num_fewshot=0
    )
    pool = ParentPool.open(("a", "b"), root)
    parents = tuple((model, pool.contents(model)) for model in pool.models)
    return WorkerSpec(parents, str(root), linear(0.5), evaluator, threads=1, merges=1)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("own_cache", "restored_threads")
def test_a_real_worker_gives_the_same_outcomes_whatever_it_did_before_and_wherever_it_is(
    spec: WorkerSpec,
) -> None:
    assert pickle.loads(pickle.dumps(spec)) == spec
    worker = spec()
    ids = load_catalog(spec.evaluator).items["order"]
    work = [assignment(linear(weight), ids) for weight in (0.0, 0.3, 1.0)]
    first = [results(worker.evaluate(one)) for one in work]
    again = [results(worker.evaluate(one)) for one in reversed(work)]
    assert again[::-1] == first
    assert len({outcome.value for outcome in first[0][0].outcomes}) == 2
    assert first[0] != first[2]

    nan = worker.evaluate(assignment(linear(3e38, 3e38), ids))
    assert isinstance(nan, Failed)
    assert nan.kind == "unusable merge"
    assert "holds NaN or Inf" in nan.message
    assert results(worker.evaluate(work[1])) == first[1]

    with local_pool(spec, 1, deadline=lambda _: 300.0) as pool:
        pool.submit(work[1])
        answers: tuple[Answer, ...] = ()
        while not answers:
            answers = pool.poll(60.0)
    assert results(answers[0].outcome) == first[1]


def test_a_worker_whose_parent_is_missing_says_so(spec: WorkerSpec) -> None:
    with pytest.raises(InvalidInput, match="model 'c': there is no folder"):
        replace(spec, models=(spec.models[0], ("c", "")))()


def test_a_damaged_copy_of_a_parent_stops_the_worker(spec: WorkerSpec, tmp_path: Path) -> None:
    shutil.copytree(spec.root, tmp_path / "node")
    weights = tmp_path / "node" / "b" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PreflightFailed, match="b: not the same files as where the search was") as e:
        replace(spec, root=str(tmp_path / "node"))()
    assert len(e.value.problems) == 1


def results(outcome: object) -> tuple[TaskOutcomes, ...]:
    assert isinstance(outcome, Scored), outcome
    return outcome.results


def stack(*segments: Segment, nested: tuple[tuple[str, Recipe], ...] = ()) -> Recipe:
    return recipe_of(
        segments, donor=segments[0].model, scale_mode="stream", dtype=None, nested=nested
    )


@pytest.mark.usefixtures("own_cache", "restored_threads")
def test_a_real_worker_scores_stacks_and_merges_in_turn(
    spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    worker = replace(spec, cost="layers")()
    ids = load_catalog(spec.evaluator).items["order"]
    parent = worker.evaluate(assignment(linear(1.0), ids))
    alone = worker.evaluate(assignment(stack(Segment("a", 0, 2)), ids))
    assert isinstance(alone, Scored)
    assert alone.results[0] == results(parent)[0]
    assert alone.results[1] == TaskOutcomes("cost", (ItemOutcome("layers", 1.0),))
    longer = worker.evaluate(
        assignment(stack(Segment("a", 0, 2), Segment("b", 0, 1, 1.2), Segment("a", 1, 2)), ids)
    )
    assert results(longer)[1].outcomes[0].value == pytest.approx(2.0)
    mixed = (("$one.best", linear(0.3)),)
    of_merge = worker.evaluate(assignment(stack(Segment("$one.best", 0, 2), nested=mixed), ids))
    assert results(of_merge)[0] == results(worker.evaluate(assignment(linear(0.3), ids)))[0]


@pytest.mark.usefixtures("own_cache", "restored_threads")
def test_a_stack_whose_prompts_become_unlikely_is_rejected(spec: WorkerSpec) -> None:
    ids = load_catalog(spec.evaluator).items["order"]
    items = ItemSelection((("order", ids[:4]),))
    other = stack(Segment("a", 0, 1), Segment("b", 0, 1, 1.3))
    strict, generous = (replace(spec, probe=Probe(items, margin))() for margin in (-50.0, 50.0))
    outcome = strict.evaluate(assignment(other, ids))
    assert isinstance(outcome, Failed)
    assert outcome.rejected
    assert "than with 'a' alone (at most -50)" in outcome.message
    scored = [generous.evaluate(assignment(other, ids)) for _ in range(2)]
    assert results(scored[0]) == results(scored[1])
    assert results(scored[0]) == results(spec().evaluate(assignment(other, ids)))
