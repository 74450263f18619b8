"""Finds out what a task measures by scoring two items with a made-up model, before any real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.metrics import mean
from lm_eval.api.model import LM
from lm_eval.api.registry import aggregation_registry
from lm_eval.evaluator import evaluate

from evomerge.errors import PreflightFailed
from evomerge.evaluate.frozen_task import FrozenTask
from evomerge.evaluate.gold import CHOICE_METRICS
from evomerge.evaluate.outcomes import item_outcome
from evomerge.evaluate.task_loading import LoadedTask, explain
from evomerge.score import AGGREGATIONS, METRIC, PROBABILITY, TaskGoal
from evomerge.signatures import did_you_mean

_ITEMS = 2


def resolve_goals(tasks: Sequence[LoadedTask], seed: int) -> tuple[TaskGoal, ...]:
    """The goals of the tasks' specs, with metric and filter, aggregation and direction known.

    lm-eval says nothing about a metric that a task does not compute; this does.

    Raises:
        PreflightFailed: a task cannot be scored or has no such metric; every problem, one line.
    """
    goals: list[TaskGoal] = []
    problems: list[str] = []
    for loaded in tasks:
        try:
            goals.append(_goal(loaded, seed))
        except PreflightFailed as error:
            problems += error.problems
    if problems:
        raise PreflightFailed(problems)
    return tuple(goals)


def aggregation_name(task: Any, metric: str) -> str | None:
    """The name of the function that lm-eval aggregates `metric` with; None when it has no name."""
    function = task.aggregation().get(metric, mean)  # lm-eval's default too
    names = aggregation_registry.keys()
    return next((name for name in names if aggregation_registry.get(name) is function), None)


def _goal(loaded: LoadedTask, seed: int) -> TaskGoal:
    spec = loaded.spec
    samples = _trial(loaded, seed)
    metric, filter_name = _choose(spec.task, spec.wanted, samples)
    aggregation = aggregation_name(loaded.task, metric)
    if aggregation is None or aggregation not in AGGREGATIONS:
        raise PreflightFailed(
            f"task '{spec.task}': metric {metric} is aggregated by {aggregation or 'own code'}, "
            f"which has no value per item; choose a metric with {', '.join(AGGREGATIONS)}"
        )
    direction = loaded.task.higher_is_better().get(metric)
    if not isinstance(direction, bool):
        raise PreflightFailed(
            f"task '{spec.task}': metric {metric} does not say whether higher is better; add "
            "higher_is_better: true or false to its entry in metric_list"
        )
    key = f"{metric},{filter_name}"
    learn_from = _learn_from(loaded, metric)
    goal = TaskGoal(spec.task, key, spec.weight, aggregation, direction, learn_from)
    for sample in samples:
        if sample["filter"] == filter_name:
            item_outcome(goal, loaded.items[sample["doc_id"]], sample)
    return goal


def _learn_from(loaded: LoadedTask, metric: str) -> str:
    """What a search learns from; raises PreflightFailed where that is not known."""
    wanted, kind = loaded.spec.learn_from, str(loaded.task.OUTPUT_TYPE)
    if kind == "multiple_choice" and metric in CHOICE_METRICS:
        return wanted or PROBABILITY
    if wanted == PROBABILITY and not (kind == "generate_until" and metric == "exact_match"):
        raise PreflightFailed(
            f"task '{loaded.spec.task}': learn_from: probability needs a right answer whose "
            f"likelihood stands for the metric: multiple choice with {', '.join(CHOICE_METRICS)}, "
            f"or generate_until with exact_match; got {kind} with {metric}; remove learn_from"
        )
    return wanted or METRIC


def _trial(loaded: LoadedTask, seed: int) -> list[Mapping[str, Any]]:
    """The samples that lm-eval logs for the first items and a model that always says the same."""
    name = loaded.spec.task
    try:
        frozen = FrozenTask(loaded, seed, limit=_ITEMS)
        results = evaluate(
            lm=_Parrot(), task_dict={"tasks": {name: frozen}}, bootstrap_iters=0, log_samples=True
        )
    except Exception as error:  # whatever lm-eval raises here is about this task
        raise PreflightFailed(explain(name, error)) from error
    return list(results["samples"][name])


def _choose(
    task: str, wanted: tuple[str, str | None], samples: Sequence[Mapping[str, Any]]
) -> tuple[str, str]:
    metric, filter_name = wanted
    pairs = sorted({(name, s["filter"]) for s in samples for name in s["metrics"]})
    offer = ", ".join(name if label == "none" else f"'{name},{label}'" for name, label in pairs)
    filters = [label for name, label in pairs if name == metric]
    if not pairs:
        raise PreflightFailed(
            f"task '{task}': it measures nothing; add metric '{metric}' to its metric_list"
        )
    if not filters:
        raise PreflightFailed(
            f"task '{task}': it does not measure '{metric}' but {offer}; "
            + did_you_mean(metric, {name for name, _ in pairs})
        )
    if filter_name is None and len(filters) > 1:
        raise PreflightFailed(
            f"task '{task}': metric '{metric}' exists after several filters; write one of {offer}"
        )
    if filter_name is not None and filter_name not in filters:
        raise PreflightFailed(
            f"task '{task}': it has no '{metric},{filter_name}'; write one of {offer}"
        )
    return metric, filter_name or filters[0]


class _Parrot(LM):  # type: ignore[misc]
    """Gives every request the same answer; lm-eval has its interface for models as a base class."""

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return [-1.0] * len(requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        return ["0"] * len(requests)
