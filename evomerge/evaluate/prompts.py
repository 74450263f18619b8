"""Prompts: the tasks loaded and their prompts built, once for any number of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from evomerge.errors import PreflightFailed
from evomerge.evaluate.evaluator import EvaluatorSpec
from evomerge.evaluate.frozen_task import ChatFormat, FrozenTask
from evomerge.evaluate.lm_eval_guest import guest
from evomerge.evaluate.preflight import resolve_goals
from evomerge.evaluate.task_loading import LoadedTask, explain, load_tasks


@final
class Prompts:
    """Everything that models are asked (stateful: a task holds the answers of the last model).

    Attributes:
        loaded: the tasks by name, with their items.
        frozen: the same with their prompts.
        goals: what counts, in the order of the tasks.
    """

    def __init__(self, spec: EvaluatorSpec, chat: ChatFormat | None) -> None:
        """Load the tasks of `spec` and build their prompts, in the chat template of `chat`.

        Raises:
            InvalidInput: the task files or the list of tasks are wrong.
            PreflightFailed: a task cannot be scored.
        """
        with guest(spec.seed):
            tasks = load_tasks(spec)
            self.goals = resolve_goals(tasks, spec.seed)
            self.frozen: Mapping[str, FrozenTask] = {
                task.spec.task: _freeze(task, spec.seed, chat) for task in tasks
            }
        self.loaded: Mapping[str, LoadedTask] = {task.spec.task: task for task in tasks}
        self.position = {
            name: {item: doc for doc, item in enumerate(task.items)}
            for name, task in self.loaded.items()
        }


def _freeze(loaded: LoadedTask, seed: int, chat: ChatFormat | None) -> FrozenTask:
    try:
        return FrozenTask(loaded, seed, chat=chat)
    except Exception as error:  # whatever lm-eval raises while it builds prompts is about the task
        raise PreflightFailed(explain(loaded.spec.task, error)) from error
