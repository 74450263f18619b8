"""How well a model, or a plain sum of task vectors, answers each form; needs transformers only.

Usage: measure.py [NAME ...] [--parents FOLDER] [--items N] [--sums W ...]

NAME is a folder under PARENTS. `--sums` adds base + W * (read - base) + W * (write - base), a
quick check that the specialists can be merged at all; the real numbers come from `evomerge`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from make_data import DIGITS, READ, SEED, TARGET, WRITE, Form, Question, deal
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

PARENTS = Path(__file__).parent / "parents"
FORMS = (DIGITS, READ, WRITE, TARGET)
BATCH = 32
NEW_TOKENS = 4


def answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
) -> Iterator[str]:
    """What the model greedily writes on the line after each prompt, stripped."""
    for start in range(0, len(prompts), BATCH):
        encoded = tokenizer(list(prompts[start : start + BATCH]), return_tensors="pt", padding=True)
        with torch.inference_mode():
            tokens = model.generate(**encoded, max_new_tokens=NEW_TOKENS, do_sample=False)
        for text in tokenizer.batch_decode(tokens[:, encoded.input_ids.shape[1] :]):
            yield text.split("\n")[0].strip()


def report(
    name: str,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    questions: dict[Form, Sequence[Question]],
) -> None:
    """Print the exact match per form in percent, and wrong answers to the target form."""
    began, total, wrong = time.process_time(), 0, []
    line = f"{name:12}"
    for form, asked in questions.items():
        given = list(answers(model, tokenizer, [question.prompt(form) for question in asked]))
        hits = [text == q.answer(form) for text, q in zip(given, asked, strict=True)]
        line += f"  {form.name} {100 * sum(hits) / len(hits):5.1f}"
        total += len(hits)
        if form == TARGET:
            wrong = [text for text, hit in zip(given, hits, strict=True) if not hit]
    seconds = (time.process_time() - began) / total
    sys.stdout.write(f"{line}  ({seconds:.3f} CPU s/item; wrong: {wrong[:6]})\n")
    sys.stdout.flush()


def load(folder: Path) -> LlamaForCausalLM:
    """The model in `folder`, fp32, ready to answer."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def summed(parents: Path, weight_read: float, weight_write: float) -> LlamaForCausalLM:
    """Task arithmetic (Ilharco et al. 2023, section 3): base plus weighted task vectors."""
    merged = load(parents / "base")
    base = {name: value.clone() for name, value in merged.state_dict().items()}
    for folder, weight in (("read", weight_read), ("write", weight_write)):
        specialist = load(parents / folder).state_dict()
        for name, value in merged.model.layers.state_dict().items():
            key = f"model.layers.{name}"
            value.add_(specialist[key] - base[key], alpha=weight)
    return merged


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="folders under PARENTS")
    parser.add_argument("--parents", type=Path, default=PARENTS)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--sums", nargs="*", type=float, default=[], help="weights W")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(arguments.parents / "base", padding_side="left")
    roles = deal(SEED)
    questions: dict[Form, Sequence[Question]] = {
        form: (roles.target if form == TARGET else roles.retention)[: arguments.items]
        for form in FORMS
    }
    for name in arguments.names:
        report(name, load(arguments.parents / name), tokenizer, questions)
    for weight in arguments.sums:
        merged = summed(arguments.parents, weight, weight)
        report(f"sum {weight}", merged, tokenizer, {TARGET: questions[TARGET]})


if __name__ == "__main__":
    main()
