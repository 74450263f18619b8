"""Micro: landscapes of real merges, of models small enough to score hundreds of items in a second.

A merge is built by evomerge's own kernels into one model in memory; an item is right iff all tokens
of its answer have the highest logit given a right beginning, so one forward pass scores a batch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import halves
import numpy as np
import torch
import yaml
from landscapes import MICRO, fails, outcomes_of
from simulator import Floats, Indices

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.errors import BuildFailed
from evomerge.recipe import Recipe
from evomerge.run.pool import EvaluatingWorker
from evomerge.score import Objective, TaskGoal, TaskOutcomes
from evomerge.seeding import generator
from evomerge.space import SearchSpace
from evomerge.space_file import read_space
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART_SEED = 7
HALVES_SEED = 0
_MERGES = 10_000


@dataclass(frozen=True)
class Questions:
    """Token ids of a task's items, shape (N, length); the last `answer` tokens are the answer."""

    rows: torch.Tensor
    answer: int


@dataclass(frozen=True)
class Sizes:
    """Items per task of each split; the rest of the items are the truth, up to `truth`."""

    search: int
    selection: int
    holdout: int
    truth: int


@dataclass(frozen=True)
class Models:
    """What one set of parents offers: the space of their merges, and its tasks."""

    space: SearchSpace
    root: Path
    questions: Mapping[str, Questions]
    sizes: Sizes

    @cached_property
    def resident(self) -> ResidentModel:
        """The one model in memory."""
        torch.set_num_threads(1)
        recipe = self.space.decode(self.space.start)
        pool = ParentPool.open(recipe.referenced_models(), self.root)
        return ResidentModel(Materializer(pool, merges=_MERGES), recipe)

    def answers(self, task: str, items: Indices) -> tuple[Floats, Floats]:
        """For the recipe in memory: right or wrong, and the probability of the gold answer."""
        asked = self.questions[task]
        rows, n = asked.rows[torch.from_numpy(np.asarray(items))], asked.answer
        with torch.inference_mode():
            logits = self.resident.model(
                input_ids=rows[:, :-1], use_cache=False, logits_to_keep=n
            ).logits
            gold = rows[:, -n:]
            right = (logits.argmax(-1) == gold).all(1)
            chosen = logits.log_softmax(-1).gather(-1, gold.unsqueeze(-1)).squeeze(-1).sum(1)
        return right.double().numpy(), chosen.double().exp().numpy()


@dataclass(frozen=True)
class Micro:
    """A landscape of real merges; the seed deals the items to the splits."""

    models: Models
    seed: int

    @property
    def space(self) -> SearchSpace:
        return self.models.space

    @property
    def objective(self) -> Objective:
        return Objective(tuple(TaskGoal(task, "exact_match") for task in self.models.questions))

    @cached_property
    def order(self) -> Mapping[str, Indices]:
        """The items of each task in the order they are dealt."""
        return {
            task: generator(self.seed, "deal", task).permutation(len(asked.rows))
            for task, asked in self.models.questions.items()
        }

    @property
    def splits(self) -> tuple[ItemSelection, ItemSelection, ItemSelection]:
        sizes = self.models.sizes
        ends = np.cumsum([0, sizes.search, sizes.selection, sizes.holdout])
        search, selection, holdout = (
            ItemSelection(
                tuple(
                    (task, tuple(sorted(f"i{i:05d}" for i in order[ends[part] : ends[part + 1]])))
                    for task, order in self.order.items()
                )
            )
            for part in range(3)
        )
        return search, selection, holdout

    def worker(self, failing: float) -> Callable[[], EvaluatingWorker]:
        return lambda: MicroWorker(self, failing)

    def truth(self, recipe: Recipe) -> Floats:
        """Mean over tasks of the same number of items, so plain values."""
        sizes = self.models.sizes
        begin = sizes.search + sizes.selection + sizes.holdout
        self.models.resident.become(recipe)
        parts = [
            self.models.answers(task, order[begin : begin + sizes.truth])[0]
            for task, order in self.order.items()
        ]
        return np.concatenate(parts)


class MicroWorker:
    """Merges and scores (stateful: the recipe in memory)."""

    def __init__(self, landscape: Micro, failing: float) -> None:
        self._landscape = landscape
        self._failing = failing
        self._recipe: Recipe | None = None

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Build the merge unless it is there, and answer the items."""
        if fails(self._failing, self._landscape.seed, assignment):
            return Failed("non-finite weights", "drawn by lot")
        models = self._landscape.models
        if assignment.recipe is not self._recipe:
            self._recipe = None
            try:
                models.resident.become(assignment.recipe)
            except BuildFailed as error:
                return Failed("build", str(error))
            self._recipe = assignment.recipe
        results: list[TaskOutcomes] = []
        for task, ids in assignment.items.tasks:
            items = np.fromiter((int(name[1:]) for name in ids), np.intp, len(ids))
            results.append(outcomes_of(task, ids, *models.answers(task, items)))
        return Scored(tuple(results), 0.0, 0.0)


def read_and_write() -> Models:
    """The quickstart's parents and space: READ + WRITE, 12 genes."""
    folder = ROOT / "runs" / "quickstart-parents" / f"seed-{QUICKSTART_SEED}"
    script = ROOT / "experiments" / "quickstart" / "make_parents.py"
    if not (folder / "parents.json").exists():
        subprocess.run([sys.executable, str(script)], check=True)
    sys.path += [str(script.parent), str(ROOT / "evals" / "read_write")]
    # both lie beside their own experiment, on the path since the line above
    from read_write_language import WORDS  # noqa: PLC0415
    from training import Course, build_tokenizer, encode  # noqa: PLC0415

    items = encode(build_tokenizer(), Course(WORDS, WORDS, 0, 0.0))
    rows = torch.cat([items.prompts, items.answers.unsqueeze(1)], dim=1)
    written = ROOT / "search_spaces" / "quickstart.yaml"
    mapping: dict[str, Any] = yaml.safe_load(written.read_text(encoding="utf-8"))["space"]
    return Models(
        read_space(mapping, str(written), 4),
        written.parent,
        {"read_write": Questions(rows, 1)},
        Sizes(1200, 400, 800, 2600),
    )


def two_halves() -> Models:
    """The two experts on halves of a skill: weights of nine groups of tensors each, 18 genes."""
    folder = ROOT / "runs" / "search" / f"halves-{HALVES_SEED}"
    halves.make(folder, HALVES_SEED)
    groups = [f"layers.{layer}.{part}" for layer in range(4) for part in ("self_attn", "mlp")]
    mapping: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / name)} for name in ("expert_1", "expert_2")],
        "filters": groups,
        "parameters": {"weight": {"float": [-0.3, 1.5], "init": 0.6, "per": ["model", "filter"]}},
        "dtype": "float32",
    }
    pairs: Sequence[tuple[int, int]] = [(a, b) for a in range(100) for b in range(100)]
    questions = {
        form: Questions(halves.encoded(form, list(pairs)), halves.ANSWER)
        for form in ("letters", "plain")
    }
    return Models(read_space(mapping, "space", 4), ROOT, questions, Sizes(600, 200, 600, 2000))


_MADE: dict[str, Models] = {}
_MAKERS: Mapping[str, Callable[[], Models]] = MappingProxyType(
    {"read and write": read_and_write, "two halves": two_halves}
)
assert tuple(_MAKERS) == MICRO


def micro(name: str, seed: int) -> Micro:
    """The landscape of a set of parents; models are kept in this process."""
    if name not in _MADE:
        _MADE[name] = _MAKERS[name]()
    return Micro(_MADE[name], seed)
