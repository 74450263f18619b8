"""Two halves of a skill: a base that adds, and two experts that each learnt half of a new form.

    python experiments/search/halves.py [--seed 0]

Items are `FORM a + b =` with a, b from 0 to 99 and three symbols as the answer. The base learns
`plain` (digits in, digits out) and `spell` (`spell x y z =`: the letters of three digits). The
composite task is `letters`: add, and answer in letters. Expert 1 practises it where the first digit
of a is below 5, expert 2 where it is not, both without any plain addition: they forget some.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.seeding import derive, generator

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
FORMS = ("plain", "letters", "spell")
DIGITS = tuple("0123456789")
LETTERS = tuple("ABCDEFGHIJ")
VOCABULARY = (*SPECIAL, "+", "=", *FORMS, *DIGITS, *LETTERS)
IDS: Mapping[str, int] = MappingProxyType({word: index for index, word in enumerate(VOCABULARY)})
ANSWER = 3
BATCH = 128
WARMUP = 50


@dataclass(frozen=True)
class Course:
    """Optimizer steps, peak learning rate, and which forms a batch mixes."""

    steps: int
    rate: float
    forms: tuple[str, ...]


COURSES: Mapping[str, Course] = MappingProxyType(
    {
        "base": Course(1600, 3e-3, ("plain", "plain", "spell")),
        "expert_1": Course(260, 3e-4, ("letters low", "letters low", "letters low", "plain")),
        "expert_2": Course(260, 3e-4, ("letters high", "letters high", "letters high", "plain")),
    }
)


def words(form: str, a: int, b: int) -> list[str]:
    """The whole sequence of an item, question and answer."""
    symbols = LETTERS if form in ("letters", "spell") else DIGITS
    if form == "spell":
        shown = f"{a:02d}{b % 10}"
        return [form, *shown, "=", *(symbols[int(digit)] for digit in shown)]
    answer = [symbols[int(digit)] for digit in f"{a + b:03d}"]
    return [form, *f"{a:02d}", "+", *f"{b:02d}", "=", *answer]


def encoded(form: str, pairs: list[tuple[int, int]]) -> torch.Tensor:
    """Token ids of items, shape (N, length), int64."""
    return torch.tensor([[IDS[word] for word in words(form, a, b)] for a, b in pairs])


def pairs_of(course_form: str) -> tuple[str, list[tuple[int, int]]]:
    """The form of a part of a course, and the numbers that it practises."""
    form, _, half = course_form.partition(" ")
    tens = {"": range(10), "low": range(5), "high": range(5, 10)}[half]
    return form, [(a, b) for a in range(100) for b in range(100) if a // 10 in tens]


def train(model: LlamaForCausalLM, course: Course, seed: int) -> None:
    """Train in place; the loss is the answer's alone."""
    draws = torch.Generator().manual_seed(seed)
    sets = [encoded(*pairs_of(form)) for form in course.forms]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / WARMUP) * (1.0 - 0.9 * step / course.steps),
    )
    model.train()
    for step in range(course.steps):
        items = sets[step % len(sets)]
        batch = items[torch.randint(len(items), (BATCH,), generator=draws)]
        logits = answer_logits(model, batch)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, -ANSWER:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def answer_logits(model: LlamaForCausalLM, items_BL: torch.Tensor) -> torch.Tensor:
    """Logits of the answer's tokens given a right beginning, shape (B, ANSWER, vocabulary)."""
    found: torch.Tensor = model(
        input_ids=items_BL[:, :-1], use_cache=False, logits_to_keep=ANSWER
    ).logits
    return found


def exact(model: LlamaForCausalLM, items: torch.Tensor) -> float:
    """Share of items with a right answer."""
    with torch.inference_mode():
        guesses = answer_logits(model, items).argmax(-1)
    return float((guesses == items[:, -ANSWER:]).all(1).double().mean())


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    words_only = Tokenizer(WordLevel(dict(IDS), unk_token="<unk>"))
    words_only.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words_only,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


def untrained(seed: int) -> LlamaForCausalLM:
    """A Llama of 0.45 M parameters in float32."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        pad_token_id=IDS["<pad>"],
        bos_token_id=IDS["<bos>"],
        eos_token_id=IDS["<eos>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "halves", "initial weights"))
        return LlamaForCausalLM(config)


def make(folder: Path, seed: int) -> None:
    """Train base and experts into `folder`, unless they are there; facts.json is written last."""
    if (folder / "facts.json").exists():
        return
    torch.set_num_threads(1)
    facts: dict[str, object] = {"seed": seed}
    for name, course in COURSES.items():
        began = time.perf_counter()
        if name == "base":
            model = untrained(seed)
        else:
            model = LlamaForCausalLM.from_pretrained(folder / "base")
        train(model, course, derive(seed, "halves", "batches", name))
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
        facts[name] = {"seconds": round(time.perf_counter() - began, 1), **scores(model)}
        print(name, facts[name], flush=True)
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def scores(model: LlamaForCausalLM) -> dict[str, float]:
    """Exact match on 2000 items of each task."""
    drawn = generator(0, "halves", "check").integers(0, 100, (2000, 2))
    pairs = [(int(a), int(b)) for a, b in drawn]
    return {form: round(exact(model, encoded(form, pairs)), 3) for form in ("plain", "letters")}


def main() -> None:
    """Train one set of parents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    make(ROOT / "runs" / "search" / f"halves-{seed}", seed)


if __name__ == "__main__":
    main()
