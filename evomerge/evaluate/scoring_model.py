"""lm-eval's Hugging Face model around a live model: tokenises once, refuses NaN and Inf."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from lm_eval.models.huggingface import HFLM

from evomerge.errors import BuildFailed
from evomerge.evaluate.limits import limited
from evomerge.evaluate.sandbox import MEMORY_MIB, SECONDS
from evomerge.evaluate.truncations import Truncations

TokenRequest = tuple[Any, list[int], list[int]]
"""A key, the tokens of the context, and those of the continuation."""


@final
class ScoringModel(HFLM):  # type: ignore[misc]
    """HFLM for a model whose weights change between calls and whose prompts do not.

    The model is borrowed and put into evaluation mode; the tokenizer is copied, since lm-eval
    sets its padding. Batches and numbers are those of HFLM.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: Any, batch_size: int) -> None:
        self._encoded: dict[tuple[str, bool | None, int | None], list[int]] = {}
        self._pairs: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        self._truncations = Truncations()
        super().__init__(
            pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size
        )
        self.set_cache_hook(self._truncations)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
    ) -> list[int]:
        """The tokens of `string` [token], from memory when it was seen before."""
        key = (string, add_special_tokens, left_truncate_len)
        if key not in self._encoded:
            self._encoded[key] = super().tok_encode(string, add_special_tokens, left_truncate_len)
        return self._encoded[key]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        key = (context, continuation)
        if key not in self._pairs:
            self._pairs[key] = super()._encode_pair(context, continuation)
        return self._pairs[key]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """HFLM's, in the sandbox of transformers; raises Exhausted."""
        with limited(SECONDS, MEMORY_MIB):
            return str(super().apply_chat_template(chat_history, add_generation_prompt))

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """HFLM's, without a progress bar."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """HFLM's, without a progress bar."""
        return list(super().loglikelihood_rolling(requests, disable_tqdm=True))

    def loss_per_token(self, texts: Sequence[str]) -> float:
        """The mean negative log-likelihood, in nats, of all tokens but the first of each text.

        Raises:
            BuildFailed: it is NaN or Inf.
        """
        rows = [self.tok_encode(text)[: self.max_length] for text in texts]
        rows = sorted((row for row in rows if len(row) > 1), key=len)
        total, count = 0.0, sum(len(row) - 1 for row in rows)
        for start in range(0, len(rows), int(self.batch_size)):
            batch = rows[start : start + int(self.batch_size)]
            # Padding on the right: no token sees what comes after it.
            width = len(batch[-1])
            tokens = torch.tensor([row + [0] * (width - len(row)) for row in batch])
            tokens = tokens.to(self.device)
            losses = torch.nn.functional.cross_entropy(
                self._model_call(tokens)[:, :-1].transpose(1, 2).float(),
                tokens[:, 1:],
                reduction="none",
            )
            total += sum(float(losses[i, : len(row) - 1].sum()) for i, row in enumerate(batch))
        loss = total / max(count, 1)
        if not math.isfinite(loss):
            raise BuildFailed(f"the loss of the prompts is {loss}; the model computes NaN or Inf")
        return loss

    def token_probability(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely each answer is after its prompt: the geometric mean over its tokens."""
        encoded = [(pair, *self._encode_pair(*pair)) for pair in pairs]
        scored = self._loglikelihood_tokens(encoded)
        return [
            math.exp(value / len(answer))
            for (value, _), (_, _, answer) in zip(scored, encoded, strict=True)
        ]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """HFLM's, without a progress bar; `truncated` says which of the answers were cut off."""
        self._truncations.clear()
        return list(super().generate_until(requests, disable_tqdm=True))

    def truncated(self, request: Any) -> bool:
        """Whether the answer to this request of the last `generate_until` was cut off.

        It has as many tokens as it may, and neither a stop string nor the end of the text is among
        them. A task that asks for one token gets one: its answers are not counted.
        """
        return self._truncations.has(request.args)

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        rows: torch.Tensor = super()._model_generate(context, max_length, stop, **settings)
        room = max_length - context.shape[1]
        answers = rows[:, context.shape[1] :].tolist()
        full = room > 1 and rows.shape[1] == max_length
        self._truncations.generated(full and self._goes_on(tokens, stop) for tokens in answers)
        return rows

    def _goes_on(self, tokens: list[int], stop: list[str]) -> bool:
        """Whether nothing among these tokens ends the answer."""
        configured = self.model.generation_config.eos_token_id
        ends = configured if isinstance(configured, list) else [configured]
        if not {*ends, self.eot_token_id}.isdisjoint(tokens):
            return False
        text = self.tok_decode(tokens)
        return not any(text_end in text for text_end in stop)

    def _loglikelihood_tokens(
        self,
        requests: list[TokenRequest],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        del disable_tqdm  # the rolling log-likelihood insists on a bar per batch
        self.logits_cache = not _mixed_splits(requests)
        scored = list(
            super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)
        )
        wrong = [value for value, _ in scored if not math.isfinite(value)]
        if wrong:
            raise BuildFailed(
                f"the log-likelihood of {len(wrong)} of {len(scored)} answers is {wrong[0]}; the "
                "model computes NaN or Inf"
            )
        return scored


def _mixed_splits(requests: Sequence[TokenRequest]) -> bool:
    """Whether two requests have the same tokens but divide them differently.

    HFLM computes requests that agree in all but the last token once. Its version 0.4.13 then
    reads the shorter continuation of such a pair from the wrong positions.
    """
    lengths: dict[tuple[int, ...], int] = {}
    for _, context, continuation in requests:
        key = (*context, *continuation[:-1])
        if lengths.setdefault(key, len(continuation)) != len(continuation):
            return True
    return False


@contextlib.contextmanager
def finite_logits(model: torch.nn.Module) -> Iterator[None]:
    """Check the last position's logits of every forward pass; a generated text cannot show NaN.

    Raises:
        BuildFailed: from within the forward pass that computed NaN or Inf.
    """

    def check(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        # -inf alone is legitimate: some models mask tokens that way
        largest = output.logits[:, -1].amax(dim=-1)
        if not bool(torch.isfinite(largest).all()):
            raise BuildFailed("the model's logits are NaN or Inf, so its answers mean nothing")

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()
