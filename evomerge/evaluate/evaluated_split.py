"""Which split of its data a task is evaluated on, and whether that is a test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.evaluate.evaluator import SPLITS, TaskSpec


@dataclass(frozen=True)
class EvaluatedSplit:
    """The evaluated split of a task.

    Attributes:
        kind: one of `SPLITS`.
        name: what the data call it.
        others: the other kinds that the task has and that are no test data.
    """

    kind: str
    name: str
    others: tuple[str, ...]

    @property
    def is_test(self) -> bool:
        """Whether the items are meant for tests: by their kind, or by the name of the split."""
        return self.kind == "test" or _named_test(self.name)


def evaluated_split(spec: TaskSpec, task: Any) -> EvaluatedSplit:
    """Have lm-eval's `task` evaluate the split that `spec` asks for, and say which it is.

    Few-shot examples come from where they came from before; an item is never its own example.

    Raises:
        InvalidInput: the task has no such split.
    """
    config = task.config
    names = {kind: getattr(config, f"{kind}_split") for kind in SPLITS}
    known = {kind: str(name) for kind, name in names.items() if name is not None}
    kind = spec.split or next(iter(known))
    if kind not in known:
        raise InvalidInput(
            f"task '{spec.task}': split: it has no {kind} split but {' and '.join(known)}; choose "
            f"one of them, or name its data as {kind}_split in the task file"
        )
    if spec.split is not None:
        _evaluate(task, known, kind)
    others = (k for k in ("validation", "training") if k in known and k != kind)
    return EvaluatedSplit(kind, known[kind], tuple(k for k in others if not _named_test(known[k])))


def _evaluate(task: Any, known: Mapping[str, str], kind: str) -> None:
    """lm-eval evaluates what it takes for the test split."""
    fewshot = task.config.fewshot_config
    usual = next(known[k] for k in ("training", "validation", "test") if k in known)
    if fewshot.split is None and fewshot.samples is None and usual == known[kind]:
        # only by this name does lm-eval leave an item out of its own examples
        fewshot.split = usual
    task.set_config("test_split", known[kind])


def _named_test(name: str) -> bool:
    """Slices and sums of splits ("test[:50%]", "train+test") are what their parts are."""
    return any(part.strip().startswith("test") for part in name.split("+"))
