"""What a worker has in memory: a model for each kind of recipe, and what scores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, final

import torch

from evomerge.candidate import REJECTED, Failed, ItemSelection
from evomerge.evaluate.evaluator import Evaluator, EvaluatorSpec
from evomerge.evaluate.lm_harness import LmHarness
from evomerge.evaluate.prompts import Prompts
from evomerge.recipe import Recipe
from evomerge.score import TaskOutcomes
from evomerge.stack import Segment, recipe_of
from evomerge.weights.canary import Canary
from evomerge.weights.cost import cost_task, depth_of
from evomerge.weights.materialize import Materializer
from evomerge.weights.nested import opened
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel
from evomerge.weights.resident_stack import ResidentStack


@dataclass(frozen=True)
class Probe:
    """A cheap test that broken stacks fail: the likelihood of some prompts.

    Attributes:
        items: whose prompts.
        margin: nats per token by which a stack may be worse than the model whose embeddings it has.
    """

    items: ItemSelection
    margin: float


class Bench(Protocol):
    """A model in memory that becomes one candidate after the other."""

    def become(self, recipe: Recipe) -> None:
        """Take the weights of `recipe`.

        Raises:
            StaleWeights: the model does not compute with them; it must not be used any more.
        """
        ...

    def screen(self, recipe: Recipe) -> Failed | None:
        """Why the candidate that the model has become is not worth an evaluation; None if it is."""
        ...

    def evaluator(self, recipe: Recipe) -> Evaluator:
        """What scores the candidate that the model has become."""
        ...

    def costs(self, recipe: Recipe) -> tuple[TaskOutcomes, ...]:
        """What the candidate costs to run, if the objective asks for it."""
        ...


@final
class Scoring:
    """Makes what scores a model in memory (stateful: it has prompts that all models share)."""

    def __init__(self, spec: EvaluatorSpec, device: str) -> None:
        """Nothing is loaded until the first model is there."""
        self._spec = spec
        self._shared: Prompts | None = None
        self.device = device

    def harness(self, model: torch.nn.Module, tokenizer: Any) -> Evaluator:
        """What scores `model`; only one of those made here may be at work at a time.

        Raises:
            InvalidInput, PreflightFailed: see `LmHarness`.
        """
        if self._shared is None and not self._spec.apply_chat_template:
            self._shared = Prompts(self._spec, None)
        return LmHarness(model, tokenizer, self._spec, self.device, prompts=self._shared)


@final
class MergeBench:
    """For the merges of one stage, which differ in their weights only (stateful)."""

    def __init__(self, materializer: Materializer, donor: Recipe, scoring: Scoring) -> None:
        """Build the resident model; `donor` is any of the recipes."""
        self._surroundings = surroundings(donor)
        self._resident = ResidentModel(materializer, donor, device=scoring.device)
        self._evaluator = scoring.harness(self._resident.model, self._resident.tokenizer)
        self._canary = Canary(self._resident.model, self._resident.weights)

    def become(self, recipe: Recipe) -> None:
        """See `Bench.become`."""
        self._resident.become(recipe)
        self._canary.check(recipe.digest)

    def takes(self, recipe: Recipe) -> bool:
        """Whether `recipe` is one of the merges that it was built for."""
        return surroundings(recipe) == self._surroundings

    def screen(self, recipe: Recipe) -> Failed | None:  # noqa: ARG002 - all merges have one shape
        """Merges are scored as they are."""
        return None

    def evaluator(self, recipe: Recipe) -> Evaluator:  # noqa: ARG002 - one tokenizer for all
        """See `Bench.evaluator`."""
        return self._evaluator

    def costs(self, recipe: Recipe) -> tuple[TaskOutcomes, ...]:  # noqa: ARG002 - see screen
        """All merges cost the same."""
        return ()


@final
class StackBench:
    """For stacks, assembled from their parents' layers (stateful)."""

    def __init__(
        self,
        pool: ParentPool,
        scoring: Scoring,
        *,
        probe: Probe | None,
        cost: str | None,
    ) -> None:
        """Nothing is loaded until the first stack asks for it."""
        self._pool = pool
        self._scoring = scoring
        self._probe = probe
        self._cost = cost
        self._resident: ResidentStack | None = None
        self._evaluators: dict[str, Evaluator] = {}
        self._usual_loss: dict[str, float] = {}

    def become(self, recipe: Recipe) -> None:
        """See `Bench.become`."""
        pool = opened(recipe, self._pool)
        if self._resident is None or pool is not self._pool:
            self._pool = pool
            self._resident = ResidentStack(pool, device=self._scoring.device)
            self._evaluators.clear()
        self._resident.become(recipe)

    def screen(self, recipe: Recipe) -> Failed | None:
        """Compare the likelihood of prompts with that under the donor alone."""
        if self._probe is None:
            return None
        loss = self.evaluator(recipe).prompt_loss(self._probe.items)
        excess = loss - self._loss_of_donor(recipe)
        if excess <= self._probe.margin:
            return None
        return Failed(
            REJECTED,
            f"prompts cost {loss:.2f} nats per token, {excess:.2f} more than with "
            f"'{recipe.donor}' alone (at most {self._probe.margin:g})",
        )

    def evaluator(self, recipe: Recipe) -> Evaluator:
        """One per donor, since donors may have different tokenizers."""
        assert self._resident is not None, "the model becomes a recipe first"
        if recipe.donor not in self._evaluators:
            self._evaluators[recipe.donor] = self._scoring.harness(
                self._resident.model, self._resident.tokenizer(recipe.donor)
            )
        return self._evaluators[recipe.donor]

    def costs(self, recipe: Recipe) -> tuple[TaskOutcomes, ...]:
        """See `Bench.costs`."""
        return () if self._cost is None else (cost_task(recipe, self._pool, self._cost),)

    def _loss_of_donor(self, recipe: Recipe) -> float:
        assert self._probe is not None
        assert self._resident is not None
        if recipe.donor not in self._usual_loss:
            self._resident.become(identity(recipe, self._pool))
            try:
                loss = self.evaluator(recipe).prompt_loss(self._probe.items)
            finally:
                self._resident.become(recipe)
            self._usual_loss[recipe.donor] = loss
        return self._usual_loss[recipe.donor]


def surroundings(recipe: Recipe) -> tuple[object, ...]:
    """Everything but weights that a merge takes from its recipe: config, tokenizer, prompts."""
    models = (recipe.donor, *recipe.referenced_models())
    types = (recipe.dtype, recipe.out_dtype, recipe.tokenizer, recipe.chat_template)
    return (*models, *types, recipe.nested)


def identity(recipe: Recipe, pool: ParentPool) -> Recipe:
    """The stack that is the donor of `recipe` as it is."""
    whole = Segment(recipe.donor, 0, depth_of(pool.parent(recipe.donor)))
    return recipe_of(
        (whole,),
        donor=recipe.donor,
        scale_mode=str(recipe.scale_mode),
        dtype=recipe.dtype,
        nested=recipe.nested,
    )
