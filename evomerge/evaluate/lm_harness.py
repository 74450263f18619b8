"""The Evaluator that scores with lm-eval: tasks and prompts once, then any number of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from lm_eval.evaluator import evaluate

from evomerge.candidate import ItemSelection, parts
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.evaluator import EvaluatorSpec
from evomerge.evaluate.gold import choice_probability
from evomerge.evaluate.lm_eval_guest import guest
from evomerge.evaluate.outcomes import item_outcome
from evomerge.evaluate.preflight import aggregation_name
from evomerge.evaluate.prompts import Prompts
from evomerge.evaluate.scoring_model import ScoringModel, finite_logits
from evomerge.score import AGGREGATIONS, PROBABILITY, TaskGoal, TaskOutcomes, joined, task_score


@final
class LmHarness:
    """Scores a live model, whose weights may change between calls.

    With the same batch size, tasks and weights the numbers are those of the `lm_eval` command,
    bit for bit, up to 64 items; other selections are batched otherwise and may differ in the last
    bits. A task that
    samples (`do_sample: true`) answers the same in every call for the same selection only.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        spec: EvaluatorSpec,
        device: str = "cpu",
        *,
        prompts: Prompts | None = None,
    ) -> None:
        """Load the tasks of `spec` and build all prompts, unless `prompts` has them.

        Args:
            model: a causal language model of transformers; borrowed, put into evaluation mode.
            tokenizer: its tokenizer; copied.
            spec: what to score, and how.
            device: where the model's weights are; they are not moved.
            prompts: of `spec` and in this tokenizer's chat template, if any; shared with models
                that are scored before or after this one, not meanwhile.

        Raises:
            InvalidInput: the task files or the list of tasks are wrong.
            PreflightFailed: a task cannot be scored, the tokenizer has no chat template, or the
                model is elsewhere.
        """
        actual = next(model.parameters()).device
        if actual.type != torch.device(device).type:
            raise PreflightFailed(f"the model is on {actual}, expected {device}; move it first")
        if spec.apply_chat_template and not getattr(tokenizer, "chat_template", None):
            raise PreflightFailed(
                "apply_chat_template: the tokenizer has no chat template; set it to false"
            )
        self._seed = spec.seed
        self._batch_size = spec.batch_size
        self._model = model
        with guest(spec.seed):
            self._lm = ScoringModel(model, tokenizer, spec.batch_size)
        prompts = prompts or Prompts(spec, self._lm if spec.apply_chat_template else None)
        self._goals, self._frozen = prompts.goals, prompts.frozen
        self._loaded, self._position = prompts.loaded, prompts.position

    def items(self) -> Mapping[str, tuple[str, ...]]:
        """All item ids of each task, ascending."""
        return {name: tuple(sorted(loaded.items)) for name, loaded in self._loaded.items()}

    def goals(self) -> tuple[TaskGoal, ...]:
        """The goals in the order of the tasks; `metric` is resolved to "metric,filter"."""
        return self._goals

    def evaluate(self, selection: ItemSelection) -> tuple[TaskOutcomes, ...]:
        """The outcomes of the selected items; see `Evaluator.evaluate`."""
        self._positions(selection)  # all its problems in one report
        return joined([self._part(part) for part in parts(selection)])

    def _part(self, selection: ItemSelection) -> tuple[TaskOutcomes, ...]:
        chosen = self._positions(selection)
        samples = self._run(chosen)["samples"]
        by_task = {goal.task: goal for goal in self._goals}
        return tuple(self._outcomes(by_task[name], samples[name]) for name in chosen)

    def _truncated(self, name: str) -> frozenset[int]:
        """The documents of a task whose answers in the last run were cut off."""
        asked = self._frozen[name].instances
        generated = (r for r in asked if r.request_type == "generate_until")
        return frozenset(r.doc_id for r in generated if self._lm.truncated(r))

    def halve_batch(self) -> int | None:
        """See `Evaluator.halve_batch`."""
        size = int(self._lm.batch_size)
        if size == 1:
            return None
        self._lm.batch_size_per_gpu = size // 2
        return size // 2

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Evaluator.remarks`."""
        size = int(self._lm.batch_size)
        return () if size == self._batch_size else (f"batch of {size}: out of memory with more",)

    def prompt_loss(self, selection: ItemSelection) -> float:
        """See `Evaluator.prompt_loss`."""
        texts = [
            self._frozen[name].text(doc)
            for name, docs in self._positions(selection).items()
            for doc in docs
        ]
        with guest(self._seed):
            return self._lm.loss_per_token(texts)

    def full_results(self) -> dict[str, Any]:
        """Every metric of every task over all items.

        Returns:
            {"tasks": {task: {metric: {"value", "stderr", "n"}}}, "truncated": {task: count}}; the
            metric is named as in lm-eval without ",none"; stderr is None for an aggregation without
            values per item; the count is of answers that were cut off.

        Raises:
            BuildFailed: the model answers with NaN or Inf.
        """
        results = self._run({name: range(len(t.items)) for name, t in self._loaded.items()})
        tasks = {
            name: self._metrics(name, results["results"][name], results["samples"][name])
            for name in self._loaded
        }
        truncated = {name: len(self._truncated(name)) for name in self._loaded}
        return {"tasks": tasks, "truncated": truncated}

    def _run(self, chosen: Mapping[str, Sequence[int]]) -> Any:
        """lm-eval's results for documents at these positions, tasks in the objective's order."""
        tasks = {name: task for name, task in self._frozen.items() if name in chosen}
        for name, task in tasks.items():
            task.choose(chosen[name])
        with guest(self._seed), finite_logits(self._model):
            # standard errors follow from the outcomes; lm-eval's would cost 100,000 resamples
            return evaluate(
                lm=self._lm, task_dict={"tasks": tasks}, bootstrap_iters=0, log_samples=True
            )

    def _positions(self, selection: ItemSelection) -> dict[str, list[int]]:
        problems: list[str] = []
        chosen: dict[str, list[int]] = {}
        for name, items in selection.tasks:
            known = self._position.get(name, {})
            missing = [item for item in items if item not in known]
            if missing:
                problems.append(
                    f"task '{name}': no item {missing[0]} (and {len(missing) - 1} more); the data "
                    "or the list of tasks changed, start a new run"
                )
            elif items:
                chosen[name] = sorted({known[item] for item in items})
        if problems or not chosen:
            raise InvalidInput(problems or "the selection holds no item; select at least one")
        return chosen

    def _outcomes(self, goal: TaskGoal, samples: Sequence[Mapping[str, Any]]) -> TaskOutcomes:
        items, truncated = self._loaded[goal.task].items, self._truncated(goal.task)
        filter_name = goal.metric.partition(",")[2]
        samples = [sample for sample in samples if sample["filter"] == filter_name]
        likely = self._probabilities(goal, samples) if goal.learn_from == PROBABILITY else {}
        outcomes = [
            replace(
                item_outcome(goal, items[sample["doc_id"]], sample),
                truncated=sample["doc_id"] in truncated,
                probability=likely.get(sample["doc_id"]),
            )
            for sample in samples
        ]
        return TaskOutcomes(goal.task, tuple(sorted(outcomes, key=lambda outcome: outcome.item)))

    def _probabilities(
        self, goal: TaskGoal, samples: Sequence[Mapping[str, Any]]
    ) -> dict[int, float]:
        """The probability of the right answer, by document."""
        frozen, docs = self._frozen[goal.task], [sample["doc_id"] for sample in samples]
        if self._loaded[goal.task].task.OUTPUT_TYPE != "multiple_choice":
            with guest(self._seed):
                found = self._lm.token_probability([frozen.answer(doc) for doc in docs])
            return dict(zip(docs, found, strict=True))
        metric = goal.metric.partition(",")[0]
        return {
            sample["doc_id"]: choice_probability(
                metric,
                [likelihood for likelihood, _ in sample["filtered_resps"]],
                *frozen.choices(sample["doc_id"]),
            )
            for sample in samples
        }

    def _metrics(
        self, name: str, values: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for metric, label in sorted({(m, s["filter"]) for s in samples for m in s["metrics"]}):
            key = f"{metric},{label}"
            having = [s for s in samples if s["filter"] == label and metric in s]
            aggregation = aggregation_name(self._loaded[name].task, metric)
            stderr = None
            if aggregation is not None and aggregation in AGGREGATIONS:
                goal = TaskGoal(name, key, aggregation=aggregation)
                stderr = task_score(goal, self._outcomes(goal, having)).stderr
            shown = metric if label == "none" else key
            metrics[shown] = {"value": float(values[key]), "stderr": stderr, "n": len(having)}
        return metrics


def full_results(spec: EvaluatorSpec, model: torch.nn.Module, tokenizer: Any) -> dict[str, Any]:
    """Score `model` once on all items of all tasks; see `LmHarness.full_results`."""
    device = next(model.parameters()).device
    return LmHarness(model, tokenizer, spec, str(device)).full_results()
