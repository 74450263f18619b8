"""Stacks in memory: layers of models that are loaded once, put together by reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import final

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.recipe import Recipe, Source
from evomerge.stack import Hop, hops, path_of
from evomerge.weights.borrowed import (
    Kinds,
    assert_complete,
    borrowed_model,
    kinds_in,
    read_config,
    replace_layers,
    with_layers,
)
from evomerge.weights.layout import place_of
from evomerge.weights.module_twins import scale_input, scale_output, twin
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.saved import tokenizer_of
from evomerge.weights.stack_compatibility import models_of, range_problems, stack_problems
from evomerge.weights.stack_plan import dtype_of_stack
from evomerge.weights.stack_rules import STREAM, fold_rule


@final
class ResidentStack:
    """One transformers model that becomes stack after stack (stateful).

    Parents are loaded when a stack first uses them. On the CPU, weights that have the stack's type
    already are their mapped files; others, and all on a GPU, are copied once per parent.
    """

    def __init__(self, pool: ParentPool, device: str = "cpu") -> None:
        """Borrow `pool`; nothing is loaded yet."""
        self._pool = pool
        self._device = torch.device(device)
        self._config = cache(lambda model: read_config(pool.directory(model)))
        self._dtypes: dict[tuple[str, ...], str] = {}
        self._layers: dict[tuple[str, str], torch.nn.ModuleList] = {}
        self._shells: dict[tuple[str, str, Kinds], PreTrainedModel] = {}
        self._model: PreTrainedModel | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model in evaluation mode, always the same object; `become` comes first."""
        assert self._model is not None, "the model becomes a recipe first"
        return self._model

    def tokenizer(self, donor: str) -> PreTrainedTokenizerBase:
        """The tokenizer of the stacks with this donor."""
        return tokenizer_of(Recipe("passthrough", (Source(donor),)), self._pool)

    def become(self, recipe: Recipe) -> None:
        """Put together the layers of a stack: milliseconds once its parents are loaded.

        Raises:
            InvalidInput: the recipe is wrong on its own.
            PreflightFailed: its models do not fit into one stack, lack some of its layers, or are
                of a family without a rule for its scales.
            BuildFailed: the weights of a model are not those that its config promises.
        """
        dtype, path = self._checked(recipe), hops(path_of(recipe))
        layers = [twin(self._layer(hop, dtype), number) for number, hop in enumerate(path)]
        family = str(self._pool.config(recipe.donor).get("model_type"))
        _scale(layers, path, family, str(recipe.scale_mode))
        kinds = tuple(kinds_in(self._config(hop.model))[hop.layer] for hop in path)
        shell = twin(self._shell(recipe.donor, dtype, tuple(dict.fromkeys(kinds))))
        assert isinstance(shell, PreTrainedModel), "a twin is of its original's class"
        config = with_layers(shell.config, kinds)
        for part in shell.modules():
            if isinstance(part, PreTrainedModel):
                part.config = config
        replace_layers(shell, self._stack(recipe.donor), layers)
        if self._model is None:
            self._model = shell
        state = dict(shell.__dict__)
        self._model.__dict__.clear()
        self._model.__dict__.update(state)

    def _checked(self, recipe: Recipe) -> str:
        """The type of a stack's weights; its models are compared when they first meet."""
        problems = validate_recipe(recipe)
        if problems:
            raise InvalidInput(problems)
        models = (recipe.donor, *models_of(recipe), str(recipe.storage_dtype))
        if models not in self._dtypes:
            problems = stack_problems(self._pool, recipe.donor, models_of(recipe))
        problems = problems or range_problems(recipe, self._pool)
        if problems:
            raise PreflightFailed(problems)
        if models not in self._dtypes:
            self._dtypes[models] = dtype_of_stack(recipe, self._pool)
        return self._dtypes[models]

    def _layer(self, hop: Hop, dtype: str) -> torch.nn.Module:
        """A layer of a parent, which all its hops share."""
        key = (hop.model, dtype)
        if key not in self._layers:
            names, config = self._pool.infos(hop.model), self._config(hop.model)
            loaded, missing = borrowed_model(self._pool, hop.model, names, config, dtype)
            assert_complete(hop.model, missing)
            self._layers[key] = replace_layers(loaded, self._stack(hop.model), ()).to(self._device)
        return self._layers[key][hop.layer]

    def _shell(self, donor: str, dtype: str, kinds: Kinds) -> PreTrainedModel:
        """The donor without layers; what depends on their kinds is as for layers of these."""
        key = (donor, dtype, tuple(sorted(kinds, key=str)))
        if key not in self._shells:
            config: PreTrainedConfig = with_layers(self._config(donor), key[2])
            # One layer for each kind, only to be thrown away: one of the donor's, if it fits.
            names = (n for n in self._pool.infos(donor) if (place_of(n).layer or 0) < len(kinds))
            shell, _ = borrowed_model(self._pool, donor, names, config, dtype)
            replace_layers(shell, self._stack(donor), ())
            self._shells[key] = shell.to(self._device)
        return self._shells[key]

    def _stack(self, model: str) -> str:
        parent = self._pool.parent(model)
        stack = parent.main_stack(parent.towers.main)
        assert stack is not None, "stacks are made of models with one stack of layers"
        return stack


def _scale(
    layers: Sequence[torch.nn.Module], path: Sequence[Hop], family: str, scale_mode: str
) -> None:
    """Make the hops' own modules do what the scales say; weights stay as they are."""
    for number, hop in enumerate(path):
        if hop.gain == 1.0:
            continue
        rule = fold_rule(family, scale_mode)
        if scale_mode == STREAM:
            scale_input(layers[number], hop.gain)
        else:
            assert rule.mlp_module is not None, "the rule is for this mode"
            scale_output(layers[number - 1].get_submodule(rule.mlp_module), hop.gain)
