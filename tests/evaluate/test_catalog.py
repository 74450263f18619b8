from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lm_eval.tasks import TaskManager

from evomerge.errors import EvomergeError, InvalidInput, PreflightFailed
from evomerge.evaluate import task_loading
from evomerge.evaluate.catalog import load_catalog
from evomerge.evaluate.evaluated_split import EvaluatedSplit
from evomerge.evaluate.evaluator import EvaluatorSpec, TaskSpec
from evomerge.evaluate.items import item_ids
from evomerge.evaluate.lm_eval_guest import guest
from evomerge.evaluate.task_loading import load_tasks
from evomerge.score import TaskGoal

CHOICE = TaskSpec("example_choice", "acc")


def spec_of(folder: Path, *tasks: TaskSpec, num_fewshot: int | None = None) -> EvaluatorSpec:
    return EvaluatorSpec(tasks, (str(folder),), num_fewshot=num_fewshot)


@pytest.fixture
def editable(folder: Path, tmp_path: Path) -> Path:
    """A copy of the tasks that a test may break."""
    return Path(shutil.copytree(folder, tmp_path / "tasks"))


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_items_are_named_by_their_content(folder: Path) -> None:
    catalog = load_catalog(spec_of(folder, CHOICE))
    lines = (folder / "choice_validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert catalog.items == {"example_choice": tuple(sorted(item_ids(map(json.loads, lines))))}
    assert catalog.duplicates == {"example_choice": ()}


def test_goals_are_resolved_with_aggregation_and_direction(folder: Path) -> None:
    wanted = (
        TaskSpec("example_extract", "exact_match", weight=2.0),
        TaskSpec("example_last_word", "perplexity"),
        TaskSpec("rolling", "byte_perplexity"),
    )
    assert load_catalog(spec_of(folder, *wanted)).goals == (
        TaskGoal("example_extract", "exact_match,job", 2.0, "mean", True),
        TaskGoal("example_last_word", "perplexity,none", 1.0, "perplexity", False),
        TaskGoal("rolling", "byte_perplexity,none", 1.0, "weighted_perplexity", False),
    )


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec("example_extract", "exact_match,job"),
        TaskSpec("example_extract", "exact_match", filter="job"),
    ],
)
def test_a_filter_can_be_named_in_two_ways(folder: Path, task: TaskSpec) -> None:
    assert load_catalog(spec_of(folder, task)).goals[0].metric == "exact_match,job"


def test_items_with_the_same_question_and_answer_are_listed(editable: Path) -> None:
    path = editable / "extract_validation.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(first) + "\n" + json.dumps(first) + "\n")
    (catalog,) = (load_catalog(spec_of(editable, TaskSpec("example_extract", "exact_match"))),)
    (only,) = item_ids([first])
    assert catalog.duplicates["example_extract"] == ((only, f"{only}-2", f"{only}-3"),)
    asked = f"{first['passage']}\nQuestion: What is the job of {first['name']}?\nAnswer:"
    assert catalog.infos["example_extract"][only].text == f"{asked} {first['job']}"


def test_all_problems_of_all_tasks_are_in_one_report(folder: Path) -> None:
    tasks = (TaskSpec("example_choice", "f1"), TaskSpec("rolling", "acc"))
    with pytest.raises(PreflightFailed) as caught:
        load_catalog(spec_of(folder, *tasks))
    assert caught.value.problems == (
        "task 'example_choice': it does not measure 'f1' but acc, acc_norm; known: acc, acc_norm",
        "task 'rolling': it does not measure 'acc' but bits_per_byte, byte_perplexity, "
        "word_perplexity; known: bits_per_byte, byte_perplexity, word_perplexity",
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "{metric: acc,",
            "{metric: acx,",
            r"metric_list\[0\].metric: 'acx' is unknown; did you mea",
        ),
        ("aggregation: mean", "aggregation: maen", r"'maen' is unknown; did you mean '.*mean'"),
        (
            "metric_list:\n",
            "metric_list:\n  - acc\n",
            r"metric_list\[0\]: expected {metric: ...}, got",
        ),
        ("metadata:", "filter_list: none\nmetadata:", r"filter_list: expected a list, got 'none'"),
        ("doc_to_target:", "doc_to_taget: x\ndoc_to_target:", r"doc_to_taget: not a key of a task"),
        ("multiple_choice", "multichoice", r"output_type: 'multichoice' is unknown; did you mean"),
        ("_split: validation", "_split: dev", r"'dev' is not a split of data_files"),
        (
            "{{name}}",
            "{{nme}}",
            r"a template uses a name that the data do not have \('nme' is unde",
        ),
        ("{{name}}", "{{name", r"a template is not valid Jinja"),
        ("choice_validation", "nowhere", r"the data file .*nowhere.jsonl does not exist"),
        ("doc_to_choice: choices", "doc_to_choice: name", r"task 'example_choice': "),
        (
            "{metric: acc,",
            "{metric: brier_score, aggregation: brier_score, higher_is_better: false}\n"
            "  - {metric: acc,",
            "",
        ),
    ],
)
def test_mistakes_in_a_task_file_are_one_line_each(
    editable: Path, old: str, new: str, expected: str
) -> None:
    edit(editable, "example_choice.yaml", old, new)
    wanted = CHOICE if expected else TaskSpec("example_choice", "brier_score")
    expected = expected or r"metric brier_score is aggregated by brier_score, which has no value"
    (editable / "letter.yaml").unlink()
    with pytest.raises(EvomergeError, match=expected) as caught:
        load_catalog(spec_of(editable, wanted))
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_an_unknown_filter_is_named(editable: Path) -> None:
    edit(editable, "example_extract.yaml", "function: regex", "function: regexx")
    with pytest.raises(InvalidInput, match=r"filter\[0\].function: 'regexx' is unknown; did you"):
        load_catalog(spec_of(editable, TaskSpec("example_extract", "exact_match")))


def test_several_filters_must_be_told_apart(editable: Path) -> None:
    more = "filter_list:\n  - {name: raw, filter: [{function: take_first}]}\n"
    edit(editable, "example_extract.yaml", "filter_list:\n", more)
    task = TaskSpec("example_extract", "exact_match")
    with pytest.raises(PreflightFailed, match=r"write one of 'exact_match,job', 'exact_match,raw'"):
        load_catalog(spec_of(editable, task))
    with pytest.raises(PreflightFailed, match=r"it has no 'exact_match,rew'; write one of"):
        load_catalog(spec_of(editable, TaskSpec("example_extract", "exact_match,rew")))


def test_broken_data_are_named(editable: Path) -> None:
    (editable / "choice_validation.jsonl").write_text('{"passage": \n', encoding="utf-8")
    with pytest.raises(
        PreflightFailed, match=r"task 'example_choice': its data files cannot be re"
    ):
        load_catalog(spec_of(editable, CHOICE))


def test_an_answer_outside_the_choices_is_found_in_any_item(editable: Path) -> None:
    path = editable / "choice_validation.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[17]["answer"] = 4
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(PreflightFailed, match=r"1 of 24 items is not among .*answer 4\)"):
        load_catalog(spec_of(editable, CHOICE))


def test_a_data_set_that_is_not_here(editable: Path) -> None:
    edit(editable, "example_choice.yaml", "dataset_path: json", "dataset_path: some/where")
    with pytest.raises(PreflightFailed, match=r"its data set is not on this machine"):
        load_catalog(spec_of(editable, CHOICE))


def test_templates_cannot_reach_the_machine(editable: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    attack = "{{ cycler.__init__.__globals__.os.popen('touch %s').read() }}" % proof  # noqa: UP031
    edit(editable, "example_choice.yaml", "{{passage}}", attack)
    with pytest.raises(PreflightFailed, match=r"a template reaches for Python's internals"):
        load_catalog(spec_of(editable, CHOICE))
    assert not proof.exists()


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target", "doc_to_choice", "description"])
def test_every_template_is_in_the_sandbox(editable: Path, key: str) -> None:
    file = editable / "example_choice.yaml"
    rows = [line for line in file.read_text().splitlines() if not line.startswith(f"{key}:")]
    rows.append(f'{key}: "{{{{ cycler.__init__.__globals__ }}}}"')
    file.write_text("\n".join(rows) + "\n")
    with pytest.raises(PreflightFailed, match=r"a template reaches for Python's internals"):
        load_catalog(spec_of(editable, CHOICE))


def test_templates_cannot_stop_the_machine(editable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.evaluate.sandbox.SECONDS", 0.2)
    loops = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
    edit(editable, "example_choice.yaml", "{{passage}}", loops)
    with pytest.raises(PreflightFailed, match=r"takes more processor time than it may; simplify"):
        load_catalog(spec_of(editable, CHOICE))


def test_function_tags_are_refused_and_not_run(editable: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (editable / "code.py").write_text(f"open({str(proof)!r}, 'w')\nf = str\n", encoding="utf-8")
    edit(
        editable, "example_choice.yaml", "doc_to_choice: choices", "doc_to_choice: !function code.f"
    )
    with pytest.raises(InvalidInput, match=r"doc_to_choice: '!function code.f' would run Python"):
        load_catalog(spec_of(editable, CHOICE))
    assert not proof.exists()


def test_an_items_own_answer_cannot_be_its_example(editable: Path) -> None:
    edit(editable, "example_choice.yaml", "fewshot_split: train", "fewshot_split: validation")
    load_catalog(spec_of(editable, CHOICE))
    with pytest.raises(
        PreflightFailed, match=r"few-shot examples come from the evaluated split 'v"
    ):
        load_catalog(spec_of(editable, CHOICE, num_fewshot=2))
    edit(editable, "example_choice.yaml", "validation_split", "test_split")
    load_catalog(spec_of(editable, CHOICE, num_fewshot=2))


def test_which_split_is_evaluated(editable: Path) -> None:
    def split_of(split: str | None, num_fewshot: int | None = None) -> EvaluatedSplit:
        spec = spec_of(editable, replace(CHOICE, split=split), num_fewshot=num_fewshot)
        catalog = load_catalog(spec)
        assert len(catalog.items["example_choice"]) == sizes[catalog.splits["example_choice"].name]
        assert bool(catalog.test_splits) == catalog.splits["example_choice"].is_test
        return catalog.splits["example_choice"]

    sizes = {"train": 10, "validation": 24, "test": 3, "test[:2]": 2}
    assert split_of(None) == EvaluatedSplit("validation", "validation", ("training",))
    assert split_of("training", 2) == EvaluatedSplit("training", "train", ("validation",))
    with pytest.raises(InvalidInput, match=r"split: it has no test split but validation and train"):
        split_of("test")

    rows = (editable / "choice_validation.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    (editable / "choice_test.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    edit(editable, "example_choice.yaml", "{train:", "{test: choice_test.jsonl, train:")
    edit(
        editable,
        "example_choice.yaml",
        "\nvalidation_split",
        "\ntest_split: test\nvalidation_split",
    )
    assert split_of(None) == EvaluatedSplit("test", "test", ("validation", "training"))
    assert split_of(None).is_test
    assert split_of("validation", 2) == EvaluatedSplit("validation", "validation", ("training",))
    assert not split_of("validation").is_test


def test_test_data_are_known_by_their_name_too(editable: Path) -> None:
    path = editable / "example_choice.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("validation: choice", "test: choice").replace(": validation", ": test")
    )
    (editable / "letter.yaml").unlink()
    catalog = load_catalog(spec_of(editable, CHOICE))
    assert catalog.splits["example_choice"] == EvaluatedSplit("validation", "test", ("training",))
    assert catalog.test_splits == {"example_choice": "test"}


def test_an_item_of_another_split_is_never_its_own_example(editable: Path) -> None:
    task = replace(CHOICE, split="training")
    edit(editable, "example_choice.yaml", "fewshot_split: train\n", "")
    with guest(0):
        (loaded,) = load_tasks(spec_of(editable, task, num_fewshot=9))
    loaded.task.set_fewshot_seed(seed=0)
    loaded.task.build_all_requests(rank=0, world_size=1)
    assert len(loaded.docs) == 10
    for request in loaded.task.instances:
        *examples, asked = request.args[0].split("\n\n")
        assert len(examples) == 9
        assert not any(example.startswith(asked) for example in examples)


@pytest.mark.parametrize("tasks", [(), (CHOICE, CHOICE)])
def test_each_task_once(folder: Path, tasks: tuple[TaskSpec, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"objective.tasks: expected each task once"):
        load_catalog(spec_of(folder, *tasks))


def test_lm_evals_own_tasks_need_permission(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed: list[bool] = []

    def index(include_defaults: bool = True) -> TaskManager:
        indexed.append(include_defaults)
        return TaskManager(include_path=str(folder), include_defaults=False)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(task_loading, "TaskManager", index)
    with pytest.raises(InvalidInput, match=r"the included folders contain no task file"):
        load_catalog(spec_of(tmp_path, CHOICE))
    assert indexed == []
    catalog = load_catalog(EvaluatorSpec((CHOICE,), builtin=True))
    assert indexed == [True]
    assert catalog.items == load_catalog(spec_of(folder, CHOICE)).items
    with pytest.raises(InvalidInput, match=r"none of lm-eval's own; did you mean 'example_choice'"):
        load_catalog(EvaluatorSpec((TaskSpec("exmple_choice", "acc"),), builtin=True))


def test_the_callers_random_streams_stay_where_they_are(folder: Path) -> None:
    random.random(), np.random.rand()  # not where lm-eval's seeds put them  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    load_catalog(spec_of(folder, CHOICE, num_fewshot=2))
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]  # noqa: NPY002


def test_nothing_is_printed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_catalog(spec_of(folder, CHOICE, TaskSpec("rolling", "word_perplexity")))
    sys.stdout.flush()
    assert capfd.readouterr() == ("", "")
