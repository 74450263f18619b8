"""The parents of a recipe: opened once, found compatible once, then only borrowed from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from evomerge.consent import NOTHING, Consent
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.model_reference import ModelReference
from evomerge.recipe import Recipe
from evomerge.signatures import did_you_mean
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights.adapted_checkpoint import AdaptedCheckpoint
from evomerge.weights.adapters import Adapter
from evomerge.weights.checkpoint import Checkpoint, StoredModel
from evomerge.weights.compatibility import (
    Parent,
    capped,
    depth_problem,
    incompatibilities,
    own_problems,
    vocabulary_problems,
)
from evomerge.weights.disk_cache import DiskCache
from evomerge.weights.finite import is_finite
from evomerge.weights.headers import TensorInfo
from evomerge.weights.layout import Layout
from evomerge.weights.parts import parts_of
from evomerge.weights.pickled import converted
from evomerge.weights.references import locate
from evomerge.weights.vocabulary import Alignment, Words, align
from evomerge.weights.vocabulary_file import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)


@final
class ParentPool:
    """Opened parents by the names that recipes use for them. No torch until data is read."""

    def __init__(self, parents: Mapping[str, Parent], consent: Consent = NOTHING) -> None:
        """Use `open`."""
        self._parents = dict(parents)
        self.consent = consent
        self._scanned: set[str] = set()
        self._vocabularies: dict[str, Vocabulary] = {}
        self._alignments: dict[object, Alignment] = {}

    @staticmethod
    def open(recipe_models: Sequence[str], root: Path, consent: Consent = NOTHING) -> ParentPool:
        """Open every model that recipes may refer to; paths are relative to `root`.

        Adapters of one base share its open files; tensors that they change come from the user's
        disk cache, and so do weights in pickle files, where `consent` allows these.

        Raises:
            InvalidInput: with the problems of all models that cannot be found or read.
            PreflightFailed: the same, when the only problems are adapters that do not fit.
        """
        opening = _Opening(root, consent)
        failures: list[InvalidInput | PreflightFailed] = []
        parents: dict[str, Parent] = {}
        for model in dict.fromkeys(recipe_models):
            try:
                stored = opening.open(model)
                parents[model] = Parent(model, stored, Layout.of(stored.infos()))
            except (InvalidInput, PreflightFailed) as error:
                failures.append(error)
        # The base of several adapters has its problems once.
        lines = list(dict.fromkeys(line for error in failures for line in error.problems))
        if any(isinstance(error, InvalidInput) for error in failures):
            raise InvalidInput(lines)
        if failures:
            raise PreflightFailed(lines)
        return ParentPool(parents, opening.consent)

    def only(self, models: Iterable[str]) -> ParentPool:
        """A pool of these of the parents.

        Raises:
            InvalidInput: one of them was not opened.
        """
        return ParentPool({model: self.parent(model) for model in models}, self.consent)

    def extended(self, folders: Mapping[str, Path]) -> ParentPool:
        """A pool with the models in `folders`, too, under these names; raises like `open`."""
        opened = {name: Checkpoint.open(folder) for name, folder in folders.items()}
        more = {name: Parent(name, c, Layout.of(c.infos())) for name, c in opened.items()}
        return ParentPool({**self._parents, **more}, self.consent)

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
        """A digest of a parent's files, with those of its adapter; 16 hex digits."""
        return self.parent(model).checkpoint.fingerprint()

    def contents(self, model: str) -> str:
        """A digest of every byte of a parent's files, with those of its adapter."""
        return self.parent(model).checkpoint.contents()

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

    def alignment(self, recipe: Recipe) -> Alignment | None:
        """How the vocabularies of a recipe become one; None when it does not say whose tokens.

        Raises:
            InvalidInput, PreflightFailed: a tokenizer file is damaged or missing, a model has no
                embedding that we know, or a rule takes a row that its model lacks.
        """
        if recipe.tokenizer is None:
            return None
        models = recipe.referenced_models()
        key = (recipe.tokenizer, recipe.base_model, models)
        if key not in self._alignments:
            words = {model: self._words(model) for model in models}
            self._alignments[key] = align(recipe.tokenizer, words, recipe.base_model)
        return self._alignments[key]

    def _words(self, model: str) -> Words:
        rows = self.parent(model).embedding_rows
        if rows is None:
            raise PreflightFailed(
                f"model '{model}': expected a token embedding, found none by its name: remove the "
                "recipe's tokenizer"
            )
        return Words(self.vocabulary(model), rows)

    def problems(
        self,
        models: Iterable[str],
        donor: str,
        tokenizer: TokenizerPolicy | None = None,
        *,
        sliced: bool = False,
    ) -> list[str]:
        """Why `donor` and `models` cannot be merged, one line per cause; empty when they can.

        Without a `tokenizer` policy their vocabularies must be one; only slices (`sliced`), which
        say what layers they mean, can merge models of different depths.
        """
        reference = self.parent(donor)
        others = [self.parent(model) for model in dict.fromkeys(models) if model != donor]
        alone = [line for parent in (reference, *others) for line in own_problems(parent)]
        found = alone + [line for other in others for line in incompatibilities(other, reference)]
        if not sliced:
            depths = [depth_problem(other, reference) for other in others]
            found += [line for line in depths if line is not None]
        if tokenizer is None:
            found += [line for other in others for line in vocabulary_problems(other, reference)]
        return found

    def check(self, tokenizer: TokenizerPolicy | None = None, *, sliced: bool = False) -> None:
        """Compare all parents with the first; what a person should know of them is logged.

        With a recipe's `tokenizer` their vocabularies may differ, with slices (`sliced`) their
        depths.

        Raises:
            PreflightFailed: with one line per incompatibility.
        """
        models = self.models
        problems = self.problems(models, models[0], tokenizer, sliced=sliced) if models else []
        if problems:
            raise PreflightFailed(problems)
        self.log_notices()

    def log_notices(self) -> None:
        """Log what a person should know of the parents."""
        for parent in self._parents.values():
            for line in parent.checkpoint.notices:
                _LOG.warning("%s", line)

    def check_recipe(self, recipe: Recipe) -> None:
        """Compare with the donor every parent that lends its main tower to the same of the donor's.

        Not for stacks, whose models need less in common: see `check_stack`. What other modules lend
        is compared tensor by tensor when the recipe is expanded.

        Raises:
            PreflightFailed: with one line per incompatibility.
            InvalidInput: a tokenizer file is damaged.
        """
        if not recipe.modules:
            self.check(recipe.tokenizer, sliced=bool(recipe.slices))
            self.alignment(recipe)
            return
        towers = self.parent(recipe.donor).towers
        main = [part for part in parts_of(recipe) if towers.tower(part.module) is towers.main]
        lent = {source.model for part in main for source in part.sources}
        alone = [line for model in self.models for line in own_problems(self.parent(model))]
        problems = [
            line
            for line in self.problems(lent, recipe.donor, recipe.tokenizer)
            if line not in alone
        ]
        if alone or problems:
            raise PreflightFailed([*alone, *problems])
        self.alignment(recipe)

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


@final
class _Opening:
    """Opens models and keeps the full ones, since several adapters may share one (stateful)."""

    def __init__(self, root: Path, consent: Consent) -> None:
        self.consent = consent
        self._root = root
        self._bases: dict[Path, Checkpoint] = {}
        self._cache: DiskCache | None = None

    def open(self, model: str) -> StoredModel:
        reference = ModelReference.parse(model)
        base = self._base(reference.base)
        if reference.adapter is None:
            return base
        adapter = Adapter.open(self._readable(reference.adapter, "adapter"))
        self._cache = self._cache or DiskCache.default()
        return AdaptedCheckpoint(model, base, adapter, self._cache)

    def _base(self, name: str) -> Checkpoint:
        folder = self._readable(name, "model")
        if folder not in self._bases:
            self._bases[folder] = Checkpoint.open(folder)
        return self._bases[folder]

    def _readable(self, name: str, kind: str) -> Path:
        """The folder of a model or an adapter; if it may be a pickle, that of its safetensors."""
        folder = locate(name, self._root, kind=kind)
        allowed = self.consent.pickle_of(folder)
        if allowed is None:
            return folder
        made = converted(folder, allowed)
        self.consent = self.consent.with_copy(folder, made)
        return made
