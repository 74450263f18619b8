"""How the three small models of the quickstart are built and trained; all on one CPU thread."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from read_write_language import DIGITS, OPERATORS, WORDS, every_question
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from evomerge.seeding import derive

BATCH = 64
WARMUP_STEPS = 40
FINAL_RATE = 0.1  # share of the peak learning rate that the cosine ends at


@dataclass(frozen=True)
class Course:
    """What a model learns: the numerals it is asked in and answers in, how long, how fast.

    Attributes:
        asked: the numerals of the prompts.
        answered: the numerals of the answers.
        steps: optimizer steps of BATCH items.
        rate: peak learning rate.
    """

    asked: tuple[str, ...]
    answered: tuple[str, ...]
    steps: int
    rate: float


COURSES: Mapping[str, Course] = MappingProxyType(
    {
        "base": Course(DIGITS, DIGITS, steps=800, rate=2e-3),
        "read": Course(WORDS, DIGITS, steps=300, rate=5e-4),
        "write": Course(DIGITS, WORDS, steps=300, rate=5e-4),
    }
)


@dataclass(frozen=True)
class Items:
    """Encoded items, int64.

    Attributes:
        prompts: token ids, shape (N, L): N prompts of L tokens.
        answers: token id of each answer, shape (N,).
    """

    prompts: torch.Tensor
    answers: torch.Tensor


def learn_parent(name: str, folder: Path, seed: int) -> str:
    """Trains the model `name`, saves it as `folder/name` and returns one line about it.

    READ and WRITE continue from `folder/base`. The weights depend on `seed` and `name` alone.
    """
    torch.set_num_threads(1)  # sums in a fixed order, so that the same seed gives the same bits
    logging.disable_progress_bar()
    course = COURSES[name]
    started = time.perf_counter()
    tokenizer = build_tokenizer()
    if name == "base":
        model = untrained_model(tokenizer, seed)
    else:
        model = LlamaForCausalLM.from_pretrained(folder / "base")
    items = encode(tokenizer, course)
    train(model, items, course, derive(seed, "quickstart", "batches", name))
    correct = accuracy(model, items)
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    seconds = time.perf_counter() - started
    form = f"{course.asked[7]} -> {course.answered[7]}"
    return (
        f"{name:<5}  {course.steps} steps  {seconds:4.1f} s  "
        f"{correct:6.1%} of its own form ({form})"
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per symbol of the language, split on white space; special tokens come first."""
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    symbols = [*special.values(), "<unk>", "=", *OPERATORS, *DIGITS, *WORDS]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        # Without this list token_type_ids are made too, and a Llama does not take them.
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def untrained_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama of 217,408 parameters in float32, initialised from `seed`."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    # transformers draws from torch's global generator, so its state is borrowed and given back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "quickstart", "initial weights"))
        return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, course: Course) -> Items:
    """All 5000 questions in the numerals of the course."""
    questions = every_question()
    prompts = [question.asked_in(course.asked) for question in questions]
    answers = [question.answered_in(course.answered) for question in questions]
    answers_N1 = torch.tensor(tokenizer(answers)["input_ids"])
    return Items(torch.tensor(tokenizer(prompts)["input_ids"]), answers_N1.squeeze(1))


def train(model: LlamaForCausalLM, items: Items, course: Course, seed: int) -> None:
    """Trains `model` in place on items drawn with replacement; the loss is the answer's alone."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, course.steps)
    )
    model.train()
    for _ in range(course.steps):
        rows_B = torch.randint(len(items.answers), (BATCH,), generator=generator)
        logits_BV = answer_logits(model, items.prompts[rows_B])
        loss = torch.nn.functional.cross_entropy(logits_BV, items.answers[rows_B])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def rate_factor(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`: a linear warm-up, then a cosine to FINAL_RATE."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def answer_logits(model: LlamaForCausalLM, prompts_BL: torch.Tensor) -> torch.Tensor:
    """Logits of the token that follows each prompt, shape (B, vocabulary)."""
    logits_B1V: torch.Tensor = model(input_ids=prompts_BL, use_cache=False, logits_to_keep=1).logits
    return logits_B1V.squeeze(1)


def accuracy(model: LlamaForCausalLM, items: Items) -> float:
    """Share of the items whose most likely next token is the answer."""
    with torch.inference_mode():
        guesses_N = answer_logits(model, items.prompts).argmax(dim=-1)
    return (guesses_N == items.answers).double().mean().item()
