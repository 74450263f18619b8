from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from evomerge.errors import InvalidInput
from evomerge.evaluate.lm_eval_guest import prepare
from evomerge.evaluate.task_files import find_tasks

BASE = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: data/a.jsonl, validation: [data/a.jsonl]}}}}
output_type: generate_until
validation_split: validation
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
"""


def write(folder: Path, name: str, more: str = "", *, file: str | None = None) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "a.jsonl").write_text('{"q": "x", "a": "y"}\n', encoding="utf-8")
    path = folder / (file or f"{name}.yaml")
    path.write_text(BASE.format(name=name) + more, encoding="utf-8")
    return path


def problems_of(folder: Path) -> tuple[str, ...]:
    with pytest.raises(InvalidInput) as caught:
        find_tasks([folder])
    return caught.value.problems


def test_paths_start_at_the_task_file(tmp_path: Path) -> None:
    write(tmp_path, "one")
    fields = find_tasks([tmp_path]).config("one")
    expected = str(tmp_path / "data" / "a.jsonl")
    assert fields["dataset_kwargs"] == {"data_files": {"train": expected, "validation": [expected]}}


def test_a_configuration_is_a_copy(tmp_path: Path) -> None:
    write(tmp_path, "one")
    index = find_tasks([tmp_path])
    index.config("one")["dataset_kwargs"]["data_files"]["train"] = "elsewhere"
    assert index.config("one")["dataset_kwargs"]["data_files"]["train"].endswith("a.jsonl")


def test_included_fields_keep_their_own_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, "one")
    (tmp_path / "deep" / "two.yaml").write_text(
        'include: ../one.yaml\ntask: two\ndoc_to_text: "other"\n', encoding="utf-8"
    )
    index = find_tasks([tmp_path / "deep"])
    assert set(index.files) == {"two"}
    fields = index.config("two")
    assert (fields["doc_to_text"], fields["doc_to_target"]) == ("other", "{{a}}")
    assert fields["dataset_kwargs"]["data_files"]["train"] == str(tmp_path / "data" / "a.jsonl")
    assert "include" not in fields


def test_a_file_without_a_task_is_only_a_template(tmp_path: Path) -> None:
    write(tmp_path, "one")
    (tmp_path / "template.yaml").write_text("num_fewshot: 2\n", encoding="utf-8")
    (tmp_path / "two.yaml").write_text(
        "include: [one.yaml, template.yaml]\ntask: two\n", encoding="utf-8"
    )
    index = find_tasks([tmp_path])
    assert set(index.files) == {"one", "two"}
    assert index.config("two")["num_fewshot"] == 2


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("process_docs: !function utils.load\n", r"process_docs: '!function utils.load' would run"),
        ("metadata: {a: [!function utils.b]}\n", r"metadata\.a\[0\]: '!function utils.b'"),
        ("class: tasks.Mine\n", r"class: loads Python code"),
        ("custom_dataset: utils.load\n", r"custom_dataset: loads Python code"),
        ("fewshot_config: {process_docs: x}\n", r"fewshot_config\.process_docs: loads Python"),
        ("unsafe_code: true\n", r"unsafe_code: a task that executes answers"),
        (
            "metric_list: [{metric: ./evil.py}]\n",
            r"metric_list\[0\]\.metric: './evil.py' is a path",
        ),
        ("metric_list: [{metric: acc, hf_evaluate: true}]\n", r"hf_evaluate: runs foreign code"),
        (
            "filter_list: [{name: x, filter: [{function: custom, filter_fn: f}]}]\n",
            r"filter_list\[0\]\.filter\[0\]: a custom filter is Python",
        ),
        (
            'description: !!python/object/apply:os.system ["true"]\n',
            r"description: '!!python/object/apply:os.system",
        ),
        ("description: [a, b\n", r"not readable as YAML"),
        ("task: two\n", r"line \d+: the key 'task' appears twice"),
        ("include: nowhere.yaml\n", r"include: .*nowhere.yaml does not exist"),
        ("include: bad.yaml\n", r"include: .*bad.yaml includes itself"),
    ],
)
def test_code_and_broken_files_are_refused_by_name(
    tmp_path: Path, more: str, expected: str
) -> None:
    path = write(tmp_path, "bad", more)
    with pytest.raises(InvalidInput, match=expected) as caught:
        find_tasks([tmp_path])
    assert all(line.startswith(str(path)) for line in caught.value.problems)


def test_data_that_would_be_unpickled_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("task: bad\ndataset_path: pandas\nvalidation_split: v\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"dataset_path: 'pandas' can execute code"):
        find_tasks([tmp_path])


def test_all_problems_of_all_files_are_reported_once(tmp_path: Path) -> None:
    write(tmp_path, "a", "class: x\nunsafe_code: true\n")
    write(tmp_path, "b", "process_results: !function u.f\n")
    (tmp_path / "c.yaml").write_text("include: a.yaml\ntask: c\n", encoding="utf-8")
    assert len(problems_of(tmp_path)) == 3


def test_two_files_with_one_task_name(tmp_path: Path) -> None:
    write(tmp_path, "one")
    write(tmp_path, "one", file="other.yaml")
    with pytest.raises(
        InvalidInput, match=r"other.yaml: task: 'one' is also defined in .*one.yaml"
    ):
        find_tasks([tmp_path])


def test_a_name_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("task: 12\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"one.yaml: task: expected a name, got 12"):
        find_tasks([tmp_path])


def test_one_file_below_two_folders_is_one_task(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", "one")
    assert set(find_tasks([tmp_path, tmp_path / "deep"]).files) == {"one"}


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere: not a folder"):
        find_tasks([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exampel", r"task 'exampel' is in none .* did you mean 'example'\?"),
        ("both", r"task 'both' is a group; list its tasks instead: example, second"),
    ],
)
def test_unknown_names(tmp_path: Path, name: str, expected: str) -> None:
    write(tmp_path, "example")
    (tmp_path / "group.yaml").write_text(
        "group: both\ntask: [example, {task: second}]\n", encoding="utf-8"
    )
    index = find_tasks([tmp_path])
    with pytest.raises(InvalidInput, match=expected):
        index.config(name)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "data/a.jsonl,",
            "data/b.jsonl,",
            r"data_files\.train: the data file .*b.jsonl does not ex",
        ),
        ("dataset_kwargs: ", "dataset_kwargs: [x]\nmetadata: ", r"dataset_kwargs: expected a mapp"),
        ("data/a.jsonl,", "data/*.csv,", r"data_files\.train: no file matches .*\*.csv"),
        ("data/a.jsonl,", "http://x.org/a.jsonl,", r"http://x.org/a.jsonl is not a local file"),
        (
            "_split: validation",
            "_split: dev",
            r"'dev' is not a split of data_files; known: train, v",
        ),
        ("validation_split: validation", "training_split: train", r"neither test_split nor valid"),
        ("doc_to_text", "doc_to_choice: [no]\ndoc_to_text", r"doc_to_choice\[0\]: .* got False"),
    ],
)
def test_data_are_checked_when_the_task_is_used(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = write(tmp_path, "one")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    index = find_tasks([tmp_path])
    with pytest.raises(InvalidInput, match=expected) as caught:
        index.config("one")
    assert all(line.startswith(str(path)) for line in caught.value.problems)


def test_a_pattern_finds_local_files(tmp_path: Path) -> None:
    path = write(tmp_path, "one")
    path.write_text(
        path.read_text(encoding="utf-8").replace("a.jsonl", "*.jsonl"), encoding="utf-8"
    )
    assert find_tasks([tmp_path]).config("one")["task"] == "one"


def test_reading_task_files_does_not_import_lm_eval() -> None:
    code = (
        "import sys; import evomerge.evaluate.task_files, evomerge.evaluate.evaluator; "
        "import evomerge.evaluate.splits; sys.exit(bool({'lm_eval', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_remote_files_cannot_be_opened_by_data_sets() -> None:
    prepare()
    with pytest.raises(PermissionError, match="nothing is fetched"):
        fsspec.open("http://127.0.0.1:9/data.jsonl").open()
