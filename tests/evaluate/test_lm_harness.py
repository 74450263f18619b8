from __future__ import annotations

import copy
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.candidate import ItemSelection
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.catalog import load_catalog
from evomerge.evaluate.evaluator import Evaluator, EvaluatorSpec, TaskSpec
from evomerge.evaluate.lm_harness import LmHarness, full_results
from evomerge.evaluate.prompts import Prompts
from evomerge.evaluate.splits import minibatch
from evomerge.score import PROBABILITY, Objective

BATCH = 4
TASKS = (
    TaskSpec("example_choice", "acc"),
    TaskSpec("example_last_word", "perplexity"),
    TaskSpec("example_extract", "exact_match"),
    TaskSpec("rolling", "word_perplexity"),
    TaskSpec("letter", "acc_norm"),
)


def spec_of(folder: Path, *tasks: TaskSpec, shots: int = 0, chat: bool = False) -> EvaluatorSpec:
    return EvaluatorSpec(
        tasks or TASKS,
        (str(folder),),
        batch_size=BATCH,
        num_fewshot=shots,
        apply_chat_template=chat,
    )


def everything(harness: LmHarness) -> ItemSelection:
    return ItemSelection(tuple(harness.items().items()))


def values(results: dict[str, Any]) -> dict[str, float]:
    """lm-eval's results as {"task metric,filter": value}, without names and standard errors."""
    return {
        f"{task} {key}": value
        for task, found in results.items()
        for key, value in found.items()
        if "," in key and "_stderr" not in key
    }


def ours(full: dict[str, Any]) -> dict[str, float]:
    return {
        f"{task} {metric if ',' in metric else metric + ',none'}": found["value"]
        for task, metrics in full["tasks"].items()
        for metric, found in metrics.items()
    }


@pytest.mark.parametrize(("shots", "chat"), [(0, False), (2, False), (2, True)])
def test_numbers_are_those_of_simple_evaluate(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    shots: int,
    chat: bool,
) -> None:
    spec = spec_of(folder, shots=shots, chat=chat)
    harness = LmHarness(model, tokenizer, spec)
    outcomes = harness.evaluate(everything(harness))
    full = harness.full_results()

    monkeypatch.chdir(folder)  # lm-eval looks for data files where it was started
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    stock = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH),
        tasks=[task.task for task in TASKS],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        num_fewshot=shots,
        apply_chat_template=chat,
        bootstrap_iters=2,
    )
    assert ours(full) == values(stock["results"])
    assert 0 < ours(full)["example_extract exact_match,job"] < 1, "nothing was extracted"
    accuracy = full["tasks"]["example_choice"]["acc"]
    expected = stock["results"]["example_choice"]["acc_stderr,none"]
    assert (accuracy["n"], accuracy["stderr"]) == (24, pytest.approx(expected, rel=1e-9))
    scores = {s.task: s for s in Objective(harness.goals()).scores(outcomes)}
    for goal in harness.goals():
        expected = stock["results"][goal.task][goal.metric]
        assert scores[goal.task].value == pytest.approx(expected, rel=1e-12)
    perplexity = {s["doc_id"]: s["perplexity"] for s in stock["samples"]["example_last_word"]}
    mine = {o.item: o.value for o in outcomes[1].outcomes}
    by_doc = harness._loaded["example_last_word"].items
    assert {by_doc[doc]: value for doc, value in perplexity.items()} == mine


COMMAND_LINE = """
import lm_eval.tasks

class TaskManager(lm_eval.tasks.TaskManager):
    # without an index of the 14,000 files that lm-eval brings along, which takes most of the time
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings | {"include_defaults": False})

lm_eval.tasks.TaskManager = TaskManager
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""


def test_numbers_are_those_of_the_command_line(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    own_cache: Path,
) -> None:
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-c", COMMAND_LINE, "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={tmp_path / 'model'}", "--batch_size", str(BATCH)]
    command += ["--include_path", ".", "--num_fewshot", "2", "--output_path", str(tmp_path / "out")]
    command += ["--tasks", ",".join(task.task for task in TASKS)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(own_cache), "OMP_NUM_THREADS": "1"}
    environment = os.environ | offline | {"DISABLE_MULTIPROC": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    stock = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert ours(full_results(spec_of(folder, shots=2), model, tokenizer)) == values(stock)


def test_models_that_share_prompts_answer_as_they_do_alone(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec, other = spec_of(folder, shots=2), copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1.0)
    alone = [LmHarness(each, tokenizer, spec) for each in (model, other)]
    expected = [harness.evaluate(everything(harness)) for harness in alone]
    prompts = Prompts(spec, None)
    one, two = (LmHarness(each, tokenizer, spec, prompts=prompts) for each in (model, other))
    found = [harness.evaluate(everything(harness)) for harness in (one, two, one)]
    assert found == [*expected, expected[0]]
    assert expected[0] != expected[1]
    assert one.full_results() == alone[0].full_results()


@pytest.mark.parametrize("shots", [0, 2])
def test_a_subset_gives_each_item_what_the_full_run_gives(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, shots: int
) -> None:
    harness = LmHarness(model, tokenizer, spec_of(folder, shots=shots))
    whole = everything(harness)
    full = {r.task: {o.item: o for o in r.outcomes} for r in harness.evaluate(whole)}
    for generation in range(2):
        selection = minibatch(whole, 5, generation=generation, seed=3)
        part = harness.evaluate(selection)
        assert tuple((r.task, r.items()) for r in part) == selection.tasks
        for result in part:
            for outcome in result.outcomes:
                expected = full[result.task][outcome.item]
                assert outcome.value == pytest.approx(expected.value, abs=1e-5)
                assert outcome.weight == expected.weight


def test_calls_are_repeatable_and_see_the_weights_of_their_time(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    harness = LmHarness(model, tokenizer, spec_of(folder, shots=2))
    selection = minibatch(everything(harness), 9, generation=0, seed=0)
    first = harness.evaluate(selection)
    weight = model.lm_head.weight.data
    original = weight.clone()
    weight.copy_(original.flip(0))
    changed = harness.evaluate(selection)
    weight.copy_(original)
    assert harness.evaluate(selection) == first != changed


def test_the_number_of_examples_is_the_tasks_unless_it_says_nothing(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tasks = Path(shutil.copytree(folder, tmp_path / "tasks"))
    for name, shots in (("never", 0), ("always", 2)):
        text = f"include: example_last_word.yaml\ntask: {name}\nnum_fewshot: {shots}\n"
        (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")

    def lls(task: str, shots: int | None) -> list[float]:
        spec = EvaluatorSpec(
            (TaskSpec(task, "perplexity"),), (str(tasks),), batch_size=BATCH, num_fewshot=shots
        )
        harness = LmHarness(model, tokenizer, spec)
        return [outcome.value for outcome in harness.evaluate(everything(harness))[0].outcomes]

    none, two = lls("example_last_word", 0), lls("example_last_word", 2)
    assert none != two
    assert lls("never", 2) == lls("example_last_word", None) == none
    assert lls("always", None) == two
    assert lls("always", 0) == none


def test_tasks_follow_the_selection_and_may_be_left_out(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    harness = LmHarness(model, tokenizer, spec_of(folder))
    items = harness.items()
    some = ItemSelection(
        (
            ("rolling", items["rolling"][:2]),
            ("letter", ()),
            ("example_choice", items["example_choice"][3:5]),
        )
    )
    results = harness.evaluate(some)
    assert [result.task for result in results] == ["rolling", "example_choice"]
    assert results[1].items() == items["example_choice"][3:5]


def test_an_outcome_belongs_to_its_item(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The log-likelihood of one text, computed without lm-eval."""
    harness = LmHarness(model, tokenizer, spec_of(folder, TASKS[3]))
    lines = (folder / "rolling.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    (result,) = harness.evaluate(everything(harness))
    found = {outcome.item: outcome for outcome in result.outcomes}
    for item, row in zip(harness._loaded["rolling"].items, rows, strict=True):
        tokens = torch.tensor([0, *tokenizer.encode(row["text"])])
        with torch.no_grad():
            logits = model(tokens[None, :-1]).logits[0].log_softmax(-1)
        expected = float(logits.gather(1, tokens[1:, None]).sum())
        assert found[item].value == pytest.approx(expected, abs=1e-3)
        assert found[item].weight == len(row["text"].split())


def test_the_callers_state_is_untouched(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def state() -> tuple[Any, ...]:
        numpy: Any = np.random.get_state()  # noqa: NPY002
        return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()

    random.random(), np.random.rand(), torch.rand(1)  # not where lm-eval's seeds put them  # noqa: NPY002
    before = state()
    padding = tokenizer.pad_token, tokenizer.padding_side
    harness = LmHarness(model, tokenizer, spec_of(folder, shots=2))
    harness.evaluate(everything(harness))
    assert state() == before
    assert (tokenizer.pad_token, tokenizer.padding_side) == padding
    assert not model._forward_hooks
    assert capfd.readouterr() == ("", "")


def test_items_and_goals_are_the_catalogs(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = pickle.loads(pickle.dumps(spec_of(folder)))
    harness: Evaluator = LmHarness(model, tokenizer, spec)
    catalog = load_catalog(spec)
    assert (harness.items(), harness.goals()) == (catalog.items, catalog.goals)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ((("rolling", ("nope",)),), r"task 'rolling': no item nope \(and 0 more\)"),
        ((("nope", ("x",)),), r"task 'nope': no item x"),
        ((("rolling", ()),), r"the selection holds no item"),
    ],
)
def test_a_selection_from_other_data_is_refused(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    selection: tuple[tuple[str, tuple[str, ...]], ...],
    expected: str,
) -> None:
    harness = LmHarness(model, tokenizer, spec_of(folder, TASKS[3]))
    with pytest.raises(InvalidInput, match=expected):
        harness.evaluate(ItemSelection(selection))


def test_a_template_that_is_not_there_and_a_model_elsewhere(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(PreflightFailed, match=r"the model is on cpu, expected cuda"):
        LmHarness(model, tokenizer, spec_of(folder), device="cuda")
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
    with pytest.raises(PreflightFailed, match=r"apply_chat_template: the tokenizer has no chat"):
        LmHarness(model, bare, spec_of(folder, chat=True))


def learning(folder: Path, task: str, metric: str, learn_from: str | None = None) -> EvaluatorSpec:
    return spec_of(folder, TaskSpec(task, metric, learn_from=learn_from))


def test_the_probability_of_the_right_choice_is_that_of_the_likelihoods(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    harness = LmHarness(model, tokenizer, learning(folder, "example_choice", "acc"))
    (goal,) = harness.goals()
    assert goal.learn_from == PROBABILITY
    (result,) = harness.evaluate(everything(harness))
    loaded = harness._loaded["example_choice"]
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
    for place, outcome in enumerate(result.outcomes[:6]):
        doc = loaded.docs[loaded.items.index(outcome.item)]
        prompt = harness._frozen["example_choice"].text(loaded.items.index(outcome.item))
        choices = loaded.task.doc_to_choice(doc)
        gold = choices[loaded.task.doc_to_target(doc)]
        context = prompt[: -len(gold)].rstrip()
        asked = [SimpleNamespace(args=(context, f" {choice}")) for choice in choices]
        likelihoods = [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]
        expected = np.exp(likelihoods[choices.index(gold)]) / np.exp(likelihoods).sum()
        assert outcome.probability == pytest.approx(expected, rel=1e-4), place


def test_a_generated_answer_has_a_probability_when_asked_for(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    task, metric = "example_extract", "exact_match,job"
    plain = LmHarness(model, tokenizer, learning(folder, task, metric))
    (without,) = plain.evaluate(everything(plain))
    assert {o.probability for o in without.outcomes} == {None}
    harness = LmHarness(model, tokenizer, learning(folder, task, metric, PROBABILITY))
    (result,) = harness.evaluate(everything(harness))
    assert [o.value for o in result.outcomes] == [o.value for o in without.outcomes]
    first = result.outcomes[0]
    doc = harness._loaded[task].items.index(first.item)
    context, answer = harness._frozen[task].answer(doc)
    before = tokenizer(context)["input_ids"]
    tokens = tokenizer(context + answer)["input_ids"]
    with torch.no_grad():
        logs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    spelt = [float(logs[place - 1, tokens[place]]) for place in range(len(before), len(tokens))]
    assert first.probability == pytest.approx(float(np.exp(np.mean(spelt))), rel=1e-4)


def test_what_has_no_right_answer_cannot_be_learnt_from(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(PreflightFailed, match="'rolling': learn_from: probability needs"):
        LmHarness(model, tokenizer, learning(folder, "rolling", "word_perplexity", PROBABILITY))
