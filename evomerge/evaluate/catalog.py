"""Lists the items and goals of an objective without a model; what the driver needs to plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import PreflightFailed
from evomerge.evaluate.evaluated_split import EvaluatedSplit
from evomerge.evaluate.evaluator import EvaluatorSpec, ItemInfo
from evomerge.evaluate.items import digest
from evomerge.evaluate.lm_eval_guest import guest
from evomerge.evaluate.preflight import resolve_goals
from evomerge.evaluate.task_loading import LoadedTask, explain, load_tasks
from evomerge.score import TaskGoal


@dataclass(frozen=True)
class Catalog:
    """What an objective consists of.

    Attributes:
        items: all item ids of each task, ascending.
        splits: which split of its data each task is evaluated on.
        goals: in the order of the tasks, metrics resolved to "metric,filter".
        infos: what each item asks, per task; none for tasks of lm-eval's own.
    """

    items: Mapping[str, tuple[str, ...]]
    goals: tuple[TaskGoal, ...]
    infos: Mapping[str, Mapping[str, ItemInfo]]
    splits: Mapping[str, EvaluatedSplit]

    @property
    def duplicates(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Per task, the groups of items with the same question and answer."""
        return {task: _repeated(found) for task, found in self.infos.items()}

    @property
    def test_splits(self) -> Mapping[str, str]:
        """The tasks whose items are test data, with what their split is called."""
        return {task: split.name for task, split in self.splits.items() if split.is_test}


def load_catalog(spec: EvaluatorSpec) -> Catalog:
    """Load and check every task of `spec`; needs neither a model nor torch.

    Raises:
        InvalidInput: the task files or the list of tasks are wrong.
        PreflightFailed: data are missing, templates do not fit them, a metric does not exist, or a
            multiple-choice answer is not among the choices. Every problem, one line each.
    """
    with guest(spec.seed):
        tasks = load_tasks(spec)
        goals = resolve_goals(tasks, spec.seed)
        infos = _infos(tasks)
    items = {loaded.spec.task: tuple(sorted(loaded.items)) for loaded in tasks}
    splits = {loaded.spec.task: loaded.split for loaded in tasks}
    return Catalog(items, goals, infos, splits)


def _infos(tasks: Sequence[LoadedTask]) -> dict[str, dict[str, ItemInfo]]:
    infos: dict[str, dict[str, ItemInfo]] = {}
    problems: list[str] = []
    for loaded in tasks:
        if loaded.builtin:  # their answers may take any form that their own code understands
            infos[loaded.spec.task] = {}
            continue
        try:
            infos[loaded.spec.task] = _read_items(loaded)
        except PreflightFailed as error:
            problems += error.problems
    if problems:
        raise PreflightFailed(problems)
    return infos


def _read_items(loaded: LoadedTask) -> dict[str, ItemInfo]:
    """Render every item once: finds templates that fail on later items, and unanswerable items."""
    task, name = loaded.task, loaded.spec.task
    has_choices = task.config.doc_to_choice is not None
    infos: dict[str, ItemInfo] = {}
    wrong: list[tuple[str, Any]] = []
    for item, doc in zip(loaded.items, loaded.docs, strict=True):
        try:
            question, answer = task.doc_to_text(doc), task.doc_to_target(doc)
            choices = task.doc_to_choice(doc) if has_choices else []
        except Exception as error:  # a template met data that it cannot render
            raise PreflightFailed(f"{explain(name, error)} (item {item})") from error
        told = [question, *choices, *(answer if isinstance(answer, list) else [answer])]
        text = " ".join(part for part in told if isinstance(part, str))
        infos[item] = ItemInfo(text, digest([question, answer, choices]))
        label = question if task.multiple_input else answer
        if task.OUTPUT_TYPE == "multiple_choice" and not _answerable(label, choices):
            wrong.append((item, label))
    if wrong:
        raise PreflightFailed(
            f"task '{name}': the answer of {len(wrong)} of {len(infos)} items is not among their "
            f"choices (first: item {wrong[0][0]}, answer {wrong[0][1]!r}); correct doc_to_target "
            "or the data"
        )
    return infos


def _answerable(label: Any, choices: Sequence[str]) -> bool:
    """Whether lm-eval can find the right answer: a position, several positions, or a choice."""
    if isinstance(label, list):
        return bool(label) and all(_answerable(entry, choices) for entry in label)
    return 0 <= label < len(choices) if isinstance(label, int) else label in choices


def _repeated(infos: Mapping[str, ItemInfo]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for item, info in infos.items():
        groups[info.text_digest].append(item)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1))
