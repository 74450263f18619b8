"""Makes lm-eval's task objects from task files, and puts lm-eval's errors into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from lm_eval.tasks import TaskManager

from evomerge.errors import EvomergeError, InvalidInput, PreflightFailed
from evomerge.evaluate.evaluated_split import EvaluatedSplit, evaluated_split
from evomerge.evaluate.evaluator import EvaluatorSpec, TaskSpec
from evomerge.evaluate.items import item_ids
from evomerge.evaluate.limits import Exhausted
from evomerge.evaluate.lm_eval_guest import prepare
from evomerge.evaluate.task_code import with_functions
from evomerge.evaluate.task_files import TaskIndex, find_tasks
from evomerge.evaluate.task_words import unknown_words
from evomerge.signatures import did_you_mean


@dataclass(frozen=True)
class LoadedTask:
    """A task with its data: document i of the evaluated split is item `items[i]`."""

    spec: TaskSpec
    task: Any
    docs: tuple[Mapping[str, Any], ...]
    items: tuple[str, ...]
    split: EvaluatedSplit
    builtin: bool


def load_tasks(spec: EvaluatorSpec) -> tuple[LoadedTask, ...]:
    """Load the data of every task of `spec` and set the number of few-shot examples.

    Raises:
        InvalidInput: task files or the list of tasks are wrong; every problem, one line each.
        PreflightFailed: lm-eval cannot make a task of its file and data; likewise.
    """
    prepare()
    names = [task.task for task in spec.tasks]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"objective.tasks: expected each task once, got {names}")
    index = find_tasks([Path(folder) for folder in spec.include], spec.task_code)
    invalid: list[str] = []
    failed: list[str] = []
    loaded: list[LoadedTask] = []
    manager: TaskManager | None = None
    for task in spec.tasks:
        builtin = spec.builtin and task.task not in index.files
        if builtin and manager is None:
            manager = TaskManager()  # indexes 14,000 files: only when there is no other way
        try:
            made = _builtin(task.task, manager) if builtin else _from_file(task.task, index, spec)
            loaded.append(_with_items(task, made, spec.num_fewshot, builtin=builtin))
        except InvalidInput as error:
            invalid += error.problems
        except PreflightFailed as error:
            failed += error.problems
    if invalid:
        raise InvalidInput(invalid + failed)
    if failed:
        raise PreflightFailed(failed)
    return tuple(loaded)


def explain(task: str, error: Exception) -> str:
    """One line about an exception that lm-eval raised over `task`: the cause, then the fix."""
    text = " ".join(str(error).split())
    match error:
        case EvomergeError():
            return text
        case Exhausted():
            reason = f"a template or filter takes {text}; simplify it"
        case jinja2.exceptions.SecurityError():
            reason = f"a template reaches for Python's internals ({text}); remove that part"
        case jinja2.exceptions.UndefinedError():
            reason = f"a template uses a name that the data do not have ({text}); correct either"
        case jinja2.exceptions.TemplateSyntaxError():
            reason = f"a template is not valid Jinja ({text}); correct it"
        case ConnectionError() | DatasetNotFoundError():
            reason = f"its data set is not on this machine ({text}); download it or use local files"
        case DatasetGenerationError():
            cause = " ".join(str(error.__cause__ or error).split())
            reason = f"its data files cannot be read ({cause}); correct them"
        case FileNotFoundError():
            reason = f"its data are missing ({text}); correct the path or create them"
        case KeyError():
            reason = f"there is no split or column {text}; correct the task file or the data"
        case _:
            reason = f"{type(error).__name__}: {text}; correct the task file or the data"
    return f"task '{task}': {reason}"


def _from_file(name: str, index: TaskIndex, spec: EvaluatorSpec) -> Any:
    config = with_functions(index.config(name), spec.task_code)
    problems = [f"{index.files[name].path}: {line}" for line in unknown_words(config)]
    if problems:
        raise InvalidInput(problems)
    try:
        return TaskManager(include_defaults=False).load([config])["tasks"][name]
    except Exception as error:  # whatever foreign code raises is about this task file
        raise PreflightFailed(explain(name, error)) from error


def _builtin(name: str, manager: TaskManager | None) -> Any:
    assert manager is not None, "the index of lm-eval's own tasks was not made"
    if name not in manager.all_subtasks:
        known = manager.all_subtasks
        grouped = name in manager.all_groups or name in manager.all_tags
        fix = "it is a group; list its tasks instead" if grouped else _guess(name, known)
        raise InvalidInput(f"task '{name}' is no task file's and none of lm-eval's own; {fix}")
    try:
        return manager.load([name])["tasks"][name]
    except Exception as error:  # as above
        raise PreflightFailed(explain(name, error)) from error


def _guess(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return hint if hint.startswith("did") else "`lm_eval ls tasks` prints them"


def _with_items(spec: TaskSpec, task: Any, num_fewshot: int | None, *, builtin: bool) -> LoadedTask:
    split = evaluated_split(spec, task)
    _set_fewshot(task, num_fewshot)
    try:
        docs = tuple(task.eval_docs)
        items = item_ids(docs)
    except Exception as error:  # built-in tasks run their own code over the data
        raise PreflightFailed(explain(spec.task, error)) from error
    if not docs:
        raise PreflightFailed(f"task '{spec.task}': its data have no item; add items")
    leak = _fewshot_leak(task)
    if leak:
        raise PreflightFailed(f"task '{spec.task}': {leak}")
    return LoadedTask(spec, task, docs, items, split, builtin)


def _set_fewshot(task: Any, num_fewshot: int | None) -> None:
    """As lm-eval's command line does: an explicit 0 of the task stays."""
    if num_fewshot is not None and task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)


def _fewshot_leak(task: Any) -> str | None:
    """lm-eval removes an item from its own examples only when both splits are the test split."""
    config = task.config
    fewshot = config.fewshot_config
    if not config.num_fewshot or fewshot is None or fewshot.samples is not None:
        return None
    evaluated = config.test_split or config.validation_split
    source = fewshot.split or config.training_split or config.validation_split or config.test_split
    if source != evaluated or fewshot.split == config.test_split:
        return None
    return (
        f"few-shot examples come from the evaluated split '{evaluated}', so an item's own answer "
        "can stand in its prompt; set fewshot_split to another split, or name this one as both "
        "test_split and fewshot_split"
    )
