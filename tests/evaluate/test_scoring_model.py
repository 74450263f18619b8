from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.candidate import ItemSelection
from evomerge.errors import BuildFailed
from evomerge.evaluate.evaluator import EvaluatorSpec, TaskSpec
from evomerge.evaluate.items import item_ids
from evomerge.evaluate.lm_harness import LmHarness
from evomerge.score import TaskOutcomes

TASKS = (
    TaskSpec("example_choice", "acc"),
    TaskSpec("example_last_word", "perplexity"),
    TaskSpec("example_extract", "exact_match"),
    TaskSpec("rolling", "word_perplexity"),
)


def spec_of(folder: Path, task: TaskSpec) -> EvaluatorSpec:
    return EvaluatorSpec((task,), (str(folder),), batch_size=4)


def everything(harness: LmHarness) -> ItemSelection:
    return ItemSelection(tuple(harness.items().items()))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task)
def test_a_model_of_nan_has_no_score(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, task: TaskSpec
) -> None:
    harness = LmHarness(model, tokenizer, spec_of(folder, task))
    good = harness.evaluate(everything(harness))
    layer = model.model.layers[1].mlp.down_proj.weight.data
    original = layer.clone()
    layer[0, 0] = torch.nan
    with pytest.raises(BuildFailed, match=r"NaN or Inf"):
        harness.evaluate(everything(harness))
    layer.copy_(original)
    assert harness.evaluate(everything(harness)) == good


def test_one_item_that_overflows_is_noticed(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The last position of every row is fine, an earlier one is not."""
    harness = LmHarness(model, tokenizer, spec_of(folder, TASKS[3]))
    (full_stop,) = tokenizer.encode(".")
    seen: list[torch.Tensor] = []

    def remember(_module: torch.nn.Module, inputs: tuple[torch.Tensor], _output: Any) -> None:
        seen.append(inputs[0])

    def overflow(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        after_stop = seen[-1] == full_stop
        after_stop[:, -1] = False
        assert after_stop.any()
        output.logits[after_stop] = torch.inf

    hooks = (
        model.model.embed_tokens.register_forward_hook(remember),
        model.register_forward_hook(overflow),
    )
    with pytest.raises(BuildFailed, match=r"the log-likelihood of \d+ of \d+ answers is nan"):
        harness.evaluate(everything(harness))
    for hook in hooks:
        hook.remove()


def test_the_same_tokens_divided_differently_score_right(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """HFLM alone reads the shorter of two such answers from the wrong positions."""
    rows = [
        {"context": "Ana is a baker. Ben is", "last": "a pilot"},
        {"context": "Ana is a baker. Ben is a", "last": "pilot"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "t.yaml").write_text(
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {validation: rows.jsonl}}\n"
        "output_type: loglikelihood\nvalidation_split: validation\n"
        'doc_to_text: "{{context}}"\ndoc_to_target: "{{\' \' + last}}"\n',
        encoding="utf-8",
    )
    spec = spec_of(tmp_path, TaskSpec("t", "perplexity"))
    harness = LmHarness(model, tokenizer, spec)
    (both,) = harness.evaluate(everything(harness))
    alone: list[TaskOutcomes] = []
    for item in both.items():
        alone += harness.evaluate(ItemSelection((("t", (item,)),)))
    for outcome, single in zip(both.outcomes, alone, strict=True):
        assert outcome.value == pytest.approx(single.outcomes[0].value, abs=1e-5)


def answer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, most: int
) -> list[int]:
    """What the model says to one prompt on its own, at most so many tokens."""
    tokens = torch.tensor([tokenizer.encode(prompt)])
    with torch.inference_mode():
        said = model.generate(tokens, max_new_tokens=most, do_sample=False, pad_token_id=0)
    return [int(token) for token in said[0, tokens.shape[1] :]]


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_answers_that_were_cut_off_are_marked(
    folder: Path,
    tmp_path: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    most: int,
) -> None:
    shutil.copytree(folder, tmp_path / "tasks")
    file = tmp_path / "tasks" / "example_extract.yaml"
    text = file.read_text(encoding="utf-8")
    stop = " sailor"
    changed = text.replace('["\\n"]', f'["{stop}"]').replace(
        "max_gen_toks: 8", f"max_gen_toks: {most}"
    )
    assert changed.count(stop) == changed.count(f"toks: {most}") == 1
    file.write_text(changed, encoding="utf-8")
    with torch.no_grad():
        model.lm_head.weight[0] *= 2.0  # the end of the text
    harness = LmHarness(model, tokenizer, spec_of(tmp_path / "tasks", TASKS[2]))
    (found,) = harness.evaluate(everything(harness))

    rows = (
        (tmp_path / "tasks" / "extract_validation.jsonl").read_text(encoding="utf-8").splitlines()
    )
    docs = [json.loads(row) for row in rows]
    prompts = [f"{d['passage']}\nQuestion: What is the job of {d['name']}?\nAnswer:" for d in docs]
    expected: dict[str, bool] = {}
    ends = set()
    for item, prompt in zip(item_ids(docs), prompts, strict=True):
        said = answer(model, tokenizer, prompt, most)
        ended, stopped = 0 in said, stop in tokenizer.decode(said)
        ends |= {"end"} if ended else {"stop"} if stopped else set()
        expected[item] = most > 1 and not ended and not stopped
    assert {o.item: o.truncated for o in found.outcomes} == expected
    assert (
        found.truncated
        == sum(expected.values())
        == harness.full_results()["truncated"]["example_extract"]
    )
    assert most == 1 or found.truncated > 0
    assert most < 8 or ends == {"end", "stop"}, "both ways to end an answer"


def test_a_selection_that_generates_nothing_has_no_cut_answers(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = EvaluatorSpec((TASKS[0], TASKS[2]), (str(folder),), batch_size=4)
    harness = LmHarness(model, tokenizer, spec)
    choice, extract = harness.evaluate(everything(harness))
    assert extract.truncated > 0
    assert choice.truncated == 0
    (alone,) = harness.evaluate(ItemSelection((("example_choice", choice.items()),)))
    assert alone == choice
