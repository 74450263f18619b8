"""One model in memory that becomes candidate after candidate, its weights overwritten in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from threading import get_ident
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evomerge.errors import BuildFailed, PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.companion_files import generation_settings
from evomerge.weights.finite import assert_finite
from evomerge.weights.foreign import read_by_transformers
from evomerge.weights.layout import is_head, is_token_embedding
from evomerge.weights.materialize import Materializer
from evomerge.weights.model_config import causal_problem
from evomerge.weights.output_config import output_config
from evomerge.weights.planned import PlannedTensor
from evomerge.weights.quiet import quiet_loading
from evomerge.weights.saved import REPAIR, config_of, tokenizer_of

_SHOWN = 5


@final
class ResidentModel:
    """A transformers model that is built once and then takes the weights of any recipe (stateful).

    All recipes it becomes must give tensors of the shapes that `donor_recipe` gives.
    """

    def __init__(
        self, materializer: Materializer, donor_recipe: Recipe, device: str = "cpu"
    ) -> None:
        """Build the model that `donor_recipe` describes; its weights are undefined until `become`.

        Raises:
            InvalidInput: `donor_recipe` is wrong on its own.
            PreflightFailed: `donor_recipe` does not fit its models, or its donor does not predict
                next tokens.
        """
        self._materializer = materializer
        self._donor_recipe = donor_recipe
        self.model = _build(materializer, donor_recipe, device)
        self._slots: dict[str, Tensor] = self.model.state_dict()
        self._staging: dict[tuple[int, torch.dtype], Tensor] = {}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The tensors that `become` writes, by the model's names."""
        return MappingProxyType(self._slots)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the recipe asks for, as a saved model would have it, read once."""
        return tokenizer_of(self._donor_recipe, self._materializer.pool)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._materializer.threads)

    def become(self, recipe: Recipe) -> None:
        """Take the weights of `recipe`; after a BuildFailed the weights are undefined.

        Raises:
            InvalidInput: the recipe is wrong on its own.
            PreflightFailed: the recipe does not fit its models.
            BuildFailed: the recipe's tensors are not exactly the model's, or one is not finite.
        """
        planned = self._materializer.plan(recipe)
        slots = self._assign(planned)
        self._write_all(planned, slots)
        with torch.no_grad():
            self._fill_untied_head(planned)

    def _assign(self, planned: Sequence[PlannedTensor]) -> list[Tensor]:
        """The model's own tensor for every planned one; checks that none is left over."""
        names = {tensor.name: self._slot_name(tensor.name) for tensor in planned}
        unknown = [name for name, slot in names.items() if slot is None]
        covered = {slot for slot in names.values() if slot is not None}
        storages = {self._slots[slot].data_ptr() for slot in covered}
        missing = [
            name
            for name, slot in self._slots.items()
            if name not in covered and slot.data_ptr() not in storages
        ]
        if not any(is_head(name) for name in names):
            missing = [name for name in missing if not is_head(name)]
        problems = [*_listed("the model lacks", unknown), *_listed("the recipe lacks", missing)]
        if len(storages) < len(covered):
            problems.append("the recipe has a head of its own, the resident model ties it")
        slots = [self._slots[slot] for slot in names.values() if slot is not None]
        problems += [
            f"tensor '{tensor.name}' has shape {list(tensor.shape)}, expected {list(slot.shape)}"
            for tensor, slot in zip(planned, slots, strict=False)
            if not unknown and tuple(slot.shape) != tensor.shape
        ]
        if problems:
            fix = "build a resident model from this recipe"
            raise BuildFailed([f"resident model: {problem}: {fix}" for problem in problems])
        return slots

    def _slot_name(self, name: str) -> str | None:
        """The model's name of a stored tensor; old files leave out the prefix of the base model."""
        prefixed = f"{self.model.base_model_prefix}.{name}"
        return next((slot for slot in (name, prefixed) if slot in self._slots), None)

    def _write_all(self, planned: Sequence[PlannedTensor], slots: Sequence[Tensor]) -> None:
        """Write the tensors, the largest first when several threads share the work.

        No write is under way when this returns or raises.
        """
        threads = self._materializer.threads
        pairs = list(zip(planned, slots, strict=True))
        if threads == 1:
            for tensor, slot in pairs:
                self._write(tensor, slot)
            return
        pairs.sort(key=lambda pair: -pair[0].nbytes)
        writes = [self._threads.submit(self._write, tensor, slot) for tensor, slot in pairs]
        try:
            for write in writes:
                write.result()
        finally:
            # After a failure too, none may go on: the next candidate lives in the same memory.
            for write in writes:
                write.cancel()
            wait(writes)

    @torch.no_grad()
    def _write(self, tensor: PlannedTensor, slot: Tensor) -> None:
        direct = slot.dtype == tensor.dtype and slot.device.type == "cpu" and slot.is_contiguous()
        if direct:
            tensor.write(slot)
        else:
            staged = self._staged(tensor)
            tensor.write(staged)
            slot.copy_(staged)
        assert_finite(tensor.name, slot)

    def _staged(self, tensor: PlannedTensor) -> Tensor:
        """Scratch memory of the tensor's shape; one buffer per thread and dtype serves them all."""
        size = torch.Size(tensor.shape).numel()
        key = (get_ident(), tensor.dtype)
        buffer = self._staging.get(key)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=tensor.dtype)
            self._staging[key] = buffer
        return buffer[:size].view(tensor.shape)

    def _fill_untied_head(self, planned: Sequence[PlannedTensor]) -> None:
        """A recipe of tied parents in an untied model: the head repeats the embedding."""
        head = next((name for name in self._slots if is_head(name)), None)
        embedding = next((name for name in self._slots if is_token_embedding(name)), None)
        if head is None or embedding is None or any(is_head(tensor.name) for tensor in planned):
            return
        if self._slots[head].data_ptr() != self._slots[embedding].data_ptr():
            self._slots[head].copy_(self._slots[embedding])


def _build(materializer: Materializer, recipe: Recipe, device: str) -> PreTrainedModel:
    """The donor with the output's config; its dtype is given at load, never cast afterwards.

    Casting a loaded model would also round its rotary frequencies.
    """
    pool = materializer.pool
    problem = causal_problem(recipe.donor, pool.config(recipe.donor))
    if problem is not None:
        raise PreflightFailed(problem)
    directory = pool.directory(recipe.donor)
    wanted = output_config(recipe, pool, materializer.plan(recipe))
    original = config_of(directory, pool.config(recipe.donor), pool.consent)
    config = type(original).from_dict(wanted)
    # Layers that the donor lacks are initialised at random and overwritten: no news for the user,
    # and no reason to disturb the caller's random state.
    reading = read_by_transformers(f"{directory}", REPAIR)
    with quiet_loading(), torch.random.fork_rng(devices=[]), reading:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=getattr(torch, wanted["dtype"]),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=pool.consent.trusts(directory),
            ignore_mismatched_sizes=True,  # another vocabulary; all shapes are checked in `become`
        )
    settings = generation_settings(recipe, pool)
    if settings is not None:
        model.generation_config = GenerationConfig.from_dict(settings)
    return model.to(torch.device(device)).eval()


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what} {', '.join(names[:_SHOWN])}{more}"]
