"""The parents of a recipe: opened once, found compatible once, then only borrowed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.recipe import Recipe
from evomerge.signatures import did_you_mean
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights.checkpoint import Checkpoint
from evomerge.weights.compatibility import (
    Parent,
    capped,
    incompatibilities,
    own_problems,
    vocabulary_problems,
)
from evomerge.weights.fingerprint import fingerprint
from evomerge.weights.finite import is_finite
from evomerge.weights.headers import TensorInfo
from evomerge.weights.layout import Layout
from evomerge.weights.references import locate
from evomerge.weights.vocabulary import Alignment, Words, align
from evomerge.weights.vocabulary_file import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@final
class ParentPool:
    """Opened parents by the names that recipes use for them. No torch until data is read."""

    def __init__(self, parents: Mapping[str, Parent]) -> None:
        """Use `open`."""
        self._parents = dict(parents)
        self._scanned: set[str] = set()
        self._vocabularies: dict[str, Vocabulary] = {}
        self._alignments: dict[object, Alignment] = {}

    @staticmethod
    def open(recipe_models: Sequence[str], root: Path) -> ParentPool:
        """Open every model that recipes may refer to; paths are relative to `root`.

        Raises:
            InvalidInput: with the problems of all models that cannot be found or read.
        """
        problems: list[str] = []
        parents: dict[str, Parent] = {}
        for model in dict.fromkeys(recipe_models):
            try:
                checkpoint = Checkpoint.open(locate(model, root))
                parents[model] = Parent(model, checkpoint, Layout.of(checkpoint.infos()))
            except InvalidInput as error:
                problems += error.problems
        if problems:
            raise InvalidInput(problems)
        return ParentPool(parents)

    @property
    def models(self) -> tuple[str, ...]:
        """The references of all parents, in the order they were opened."""
        return tuple(self._parents)

    def parent(self, model: str) -> Parent:
        """The parent called `model`.

        Raises:
            InvalidInput: no such parent was opened.
        """
        if model not in self._parents:
            raise InvalidInput(
                f"model '{model}' is not an opened parent: {did_you_mean(model, self._parents)}"
            )
        return self._parents[model]

    def directory(self, model: str) -> Path:
        """The directory of a parent."""
        return self.parent(model).checkpoint.directory

    def config(self, model: str) -> Mapping[str, Any]:
        """The parsed config.json of a parent."""
        return self.parent(model).checkpoint.config

    def fingerprint(self, model: str) -> str:
        """A digest of a parent's files; 16 hex digits."""
        return fingerprint(self.directory(model))

    def layout(self, model: str) -> Layout:
        """The places of a parent's tensors."""
        return self.parent(model).layout

    def infos(self, model: str) -> Mapping[str, TensorInfo]:
        """The tensors of a parent, without data."""
        return self.parent(model).checkpoint.infos()

    def get(self, model: str, tensor: str) -> Tensor:
        """A tensor of a parent: borrowed, mapped, to be read only."""
        return self.parent(model).checkpoint.get(tensor)

    def vocabulary(self, model: str) -> Vocabulary:
        """The tokens of a parent; raises like `read_vocabulary`."""
        if model not in self._vocabularies:
            self._vocabularies[model] = read_vocabulary(model, self.directory(model))
        return self._vocabularies[model]

    def vocabulary_rows(self, model: str) -> int:
        """The number of rows of a parent's token embedding.

        Raises:
            PreflightFailed: it has none under a name that we know.
        """
        name = self.layout(model).token_embedding
        if name is None:
            raise PreflightFailed(
                f"model '{model}': expected a token embedding, found none by its name: remove the "
                "recipe's tokenizer"
            )
        return self.infos(model)[name].shape[0]

    def alignment(self, recipe: Recipe) -> Alignment | None:
        """How the vocabularies of a recipe become one; None when it does not say whose tokens.

        Raises:
            InvalidInput, PreflightFailed: a tokenizer file is damaged or missing, or a rule takes
                a row that its model lacks.
        """
        if recipe.tokenizer is None:
            return None
        models = recipe.referenced_models()
        key = (recipe.tokenizer, recipe.base_model, models)
        if key not in self._alignments:
            words = {m: Words(self.vocabulary(m), self.vocabulary_rows(m)) for m in models}
            self._alignments[key] = align(recipe.tokenizer, words, recipe.base_model)
        return self._alignments[key]

    def problems(
        self, models: Iterable[str], donor: str, tokenizer: TokenizerPolicy | None = None
    ) -> list[str]:
        """Why `donor` and `models` cannot be merged, one line per cause; empty when they can.

        Without a `tokenizer` policy their vocabularies must be one.
        """
        reference = self.parent(donor)
        others = [self.parent(model) for model in dict.fromkeys(models) if model != donor]
        alone = [line for parent in (reference, *others) for line in own_problems(parent)]
        found = alone + [line for other in others for line in incompatibilities(other, reference)]
        if tokenizer is None:
            found += [line for other in others for line in vocabulary_problems(other, reference)]
        return found

    def check(self, tokenizer: TokenizerPolicy | None = None) -> None:
        """Compare all parents with the first; with a recipe's `tokenizer`, all but vocabularies.

        Raises:
            PreflightFailed: with one line per incompatibility.
        """
        models = self.models
        problems = self.problems(models, models[0], tokenizer) if models else []
        if problems:
            raise PreflightFailed(problems)

    def check_finite(self, models: Iterable[str]) -> None:
        """Read every floating tensor of `models` once; a parent found sound is not read again.

        Raises:
            InvalidInput: with one line per tensor that holds NaN or Inf.
        """
        problems: list[str] = []
        for model in dict.fromkeys(models):
            if model in self._scanned:
                continue
            lines = [
                f"model '{model}': tensor '{info.name}' holds NaN or Inf: replace the model"
                for info in self.infos(model).values()
                if info.is_mergeable and not is_finite(self.get(model, info.name))
            ]
            problems += capped(lines, f"model '{model}'")
            if not lines:
                self._scanned.add(model)
        if problems:
            raise InvalidInput(problems)
