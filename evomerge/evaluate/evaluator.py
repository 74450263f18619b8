"""What scoring a model means to the rest of the program; knows neither lm-eval nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from evomerge.candidate import ItemSelection
from evomerge.consent import Allowed
from evomerge.score import TaskGoal, TaskOutcomes

SPLITS = ("test", "validation", "training")
"""The splits that a task file can name, in lm-eval's order of preference for evaluation."""


@dataclass(frozen=True)
class TaskSpec:
    """One task of an objective as the user asks for it.

    `metric` is lm-eval's name ("acc") or, as lm-eval prints it, metric and filter in one
    ("exact_match,strict"). `split` is one of `SPLITS`; None is what lm-eval evaluates: the test
    split if the task has one, else the validation split. `limit` is for whoever splits the items;
    scoring ignores it. `learn_from` is `PROBABILITY` or `METRIC`; None is the probability of the
    right answer where choosing it is the task, else the metric.
    """

    task: str
    metric: str
    filter: str | None = None
    weight: float = 1.0
    limit: int | None = None
    split: str | None = None
    learn_from: str | None = None

    @property
    def wanted(self) -> tuple[str, str | None]:
        """The metric and the filter; None when any filter that has the metric will do."""
        metric, comma, name = self.metric.partition(",")
        return metric.strip(), name.strip() if comma else self.filter


@dataclass(frozen=True)
class EvaluatorSpec:
    """Everything besides the model that can change a score; picklable, so workers receive it.

    Attributes:
        tasks: what to score, each task once.
        include: absolute paths of folders with task files.
        batch_size: rows per forward pass; part of a score's identity, as padding moves last bits.
        apply_chat_template: wrap prompts in the tokenizer's chat template.
        num_fewshot: solved examples in each prompt; None: as each task file says. As in lm-eval,
            a task file that says 0 keeps 0.
        seed: seed of the choice of few-shot examples and of any sampling, lm-eval's default.
        builtin: names that no task file defines may be lm-eval's own tasks, which run the code
            that package ships.
        task_code: folders whose task files may call the Python files in them.
    """

    tasks: tuple[TaskSpec, ...]
    include: tuple[str, ...] = ()
    batch_size: int = 8
    apply_chat_template: bool = False
    num_fewshot: int | None = None
    seed: int = 1234
    builtin: bool = False
    task_code: tuple[Allowed, ...] = ()


@dataclass(frozen=True)
class ItemInfo:
    """What an item asks, in words, and the digest of its question, choices and answer.

    Two items with different ids and one text digest differ only in columns that no prompt shows.
    """

    text: str
    text_digest: str


class Evaluator(Protocol):
    """Scores the model it was made for, as its weights are at the time of the call."""

    def items(self) -> Mapping[str, tuple[str, ...]]:
        """All item ids of each task, ascending."""

    def goals(self) -> tuple[TaskGoal, ...]:
        """The goals in the order of the tasks; `metric` is resolved to "metric,filter"."""

    def evaluate(self, selection: ItemSelection) -> tuple[TaskOutcomes, ...]:
        """The outcomes of the selected items, tasks in the selection's order, items ascending.

        A task of which nothing is selected has no entry. The same weights and selection give the
        same outcomes. The global random states are as before.

        Raises:
            InvalidInput: the selection is empty or names an unknown task or item.
            BuildFailed: the model answers with NaN or Inf.
        """

    def halve_batch(self) -> int | None:
        """Score batches of half the size from now on; the new size, or None if it was 1.

        Outcomes may differ in the last bits from those of the full batch; `remarks` says so.
        """

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual about how it scores, in a few words each."""

    def prompt_loss(self, selection: ItemSelection) -> float:
        """How unlikely the model finds the prompts and right answers of the selected items.

        The negative log-likelihood in nats, mean over all tokens; nothing is generated.

        Raises:
            InvalidInput: the selection is empty or names an unknown task or item.
            BuildFailed: it is NaN or Inf.
        """
