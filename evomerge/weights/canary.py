"""Canary: whether the model in memory computes with the weights that were written last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

_TOKENS = 8


class StaleWeights(RuntimeError):
    """The model still computes with weights of an earlier candidate; it must not be used."""


@final
class Canary:
    """Compares the logits of a few fixed tokens from candidate to candidate (stateful)."""

    def __init__(self, model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
        """`weights` are the tensors that candidates are written to, by name."""
        self._model = model
        floating = [tensor for tensor in weights.values() if tensor.is_floating_point()]
        # The last vector of a causal model belongs to its final norm: it moves every logit. Where
        # norms have no weights, the last tensor of all does.
        self._probe = ([tensor for tensor in floating if tensor.dim() == 1] or floating)[-1]
        self._last = ("", self._logits())

    @torch.no_grad()
    def check(self, digest: str) -> None:
        """Call after the weights of the recipe with this digest were written.

        Another recipe usually gives other logits. If not, the recipes may merely be equivalent:
        then a written tensor is moved for a moment, and the logits have to follow.

        Raises:
            StaleWeights: they do not.
        """
        logits = self._logits()
        before, self._last = self._last, (digest, logits)
        if before[0] == digest or not torch.equal(before[1], logits):
            return
        kept = self._probe.clone()
        self._probe.add_(1.0)
        moved = self._logits()
        self._probe.copy_(kept)
        if torch.equal(moved, logits):
            raise StaleWeights(
                "the model computes with the weights of an earlier candidate: "
                "what was written does not reach it"
            )

    @torch.no_grad()
    def _logits(self) -> Tensor:
        device = next(self._model.parameters()).device
        config: Any = self._model.config
        rows = int(config.get_text_config().vocab_size)
        tokens = torch.arange(1, _TOKENS + 1, device=device).remainder(rows)[None]
        output: Any = self._model(tokens, use_cache=False)
        logits: Tensor = output.logits[0, -1].clone()
        return logits
