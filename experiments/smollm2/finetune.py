"""How the merge base and the specialists are trained: from what, on which form, how long.

Usage: python experiments/smollm2/finetune.py {base,read,write} [--parents FOLDER] [--seed N]

`base` starts from PARENTS/converted, `read` and `write` start from PARENTS/base. All are saved in
fp32: a specialist differs from the base by less than bfloat16 resolves, so a 16-bit copy would
lose part of what was learned.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from make_data import DIGITS, READ, SEED, WRITE, Form, Question, deal
from torch.nn import functional
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

PARENTS = Path(__file__).parent / "parents"
IGNORED = -100
"""The label that cross entropy skips."""


@dataclass(frozen=True)
class Plan:
    """The numbers of one fine-tune."""

    start: str
    form: Form
    steps: int
    batch: int = 16
    rate: float = 2e-4
    warm_up: int = 20
    floor: float = 0.1


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "base": Plan("converted", DIGITS, steps=80),
        "read": Plan("base", READ, steps=120),
        "write": Plan("base", WRITE, steps=160),
    }
)


@dataclass(frozen=True)
class Batch:
    """Token ids, attention mask and labels; each (questions, tokens), padded on the right."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def encode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[Question, Form]]) -> Batch:
    """Tokens of prompt, space, answer, line end; only the answer and line end carry labels."""
    encoded = []
    for question, form in rows:
        prompt = tokenizer(question.prompt(form)).input_ids
        answer = tokenizer(f" {question.answer(form)}\n").input_ids
        encoded.append((prompt + answer, [IGNORED] * len(prompt) + answer))
    width = max(len(ids) for ids, _ in encoded)
    ids = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    labels = torch.full((len(rows), width), IGNORED)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for row, (tokens, targets) in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(targets)] = torch.tensor(targets)
        mask[row, : len(tokens)] = 1
    return Batch(ids, mask, labels)


def answer_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross entropy of the labelled tokens.

    The head runs on those positions only: it holds a fifth of the weights.
    """
    hidden = model.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    expected = batch.labels[:, 1:]
    chosen = expected != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[:, :-1][chosen]), expected[chosen])


def rate_at(step: int, plan: Plan) -> float:
    """Linear warm-up, then a cosine down to `floor` times the full rate."""
    if step < plan.warm_up:
        return plan.rate * (step + 1) / plan.warm_up
    done = (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)
    return plan.rate * (plan.floor + (1 - plan.floor) * (1 + math.cos(math.pi * done)) / 2)


def epochs(questions: Sequence[Question], size: int, seed: int) -> Iterator[list[Question]]:
    """Endless batches; every question comes once before any comes twice."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(questions))
        for start in range(0, len(order) - size + 1, size):
            yield [questions[index] for index in order[start : start + size]]


def trainable(model: LlamaForCausalLM) -> list[torch.nn.Parameter]:
    """All layers; the embeddings, which are also the head, stay those of the converted model."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    chosen = [p for layer in model.model.layers for p in layer.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    batches: Iterator[list[Question]],
    plan: Plan,
) -> None:
    """Fine-tune `model` in place; reports the mean answer loss every 20 steps on stderr.

    Matrix products run in bfloat16 (twice as fast on a CPU), weights and their updates stay fp32.
    """
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(
        parameters, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    model.train()
    began, recent = time.perf_counter(), []
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, plan)
        batch = encode(tokenizer, [(question, plan.form) for question in next(batches)])
        with torch.autocast("cpu", torch.bfloat16):
            loss = answer_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 20 == 0:
            seconds = (time.perf_counter() - began) / (step + 1)
            sys.stderr.write(f"step {step + 1}: loss {np.mean(recent):.3f}, {seconds:.2f} s/step\n")
            recent.clear()
    model.eval()


def main() -> None:
    """Train the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=tuple(PLANS))
    parser.add_argument("--parents", type=Path, default=PARENTS)
    parser.add_argument("--seed", type=int, default=SEED, help="order of the training questions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = PLANS[arguments.model]
    start, out = arguments.parents / plan.start, arguments.parents / arguments.model
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    train(model, tokenizer, epochs(deal(SEED).train, plan.batch, arguments.seed), plan)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
