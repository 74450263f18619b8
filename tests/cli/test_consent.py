"""What runs code is refused, runs when a flag names it, and never runs when it has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomerge import yaml12
from tests.cli.conftest import TASK, Run
from tests.models import llama, read_tensors

Space = Callable[..., Path]


class Evil:
    """A pickle that creates a file when it is read without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def pickled(tmp_path: Path, parents: Path) -> Path:
    """A copy of parent `a` whose weights are a pickle file."""
    folder = shutil.copytree(parents / "a", tmp_path / "pickled")
    torch.save(read_tensors(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def merge_of(folder: Path) -> Path:
    recipe = folder.parent / "recipe.yaml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {folder}}}]\n")
    return recipe


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(evomerge: Run, *arguments: object, code: int, message: str) -> None:
    done = evomerge(*arguments)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_pickle_is_merged_only_when_it_is_named(
    evomerge: Run, tmp_path: Path, parents: Path, pickled: Path
) -> None:
    recipe, out = merge_of(pickled), tmp_path / "out"
    refused(evomerge, "merge", recipe, out, code=2, message=f"--allow-pickle {pickled}")
    done = evomerge("merge", recipe, out, "--allow-pickle", pickled)
    assert done.code == 0, done.err
    file = pickled / "pytorch_model.bin"
    assert f"allowed: {file} sha256 {sha256(file)}" in done.err
    assert load_file(out / "model.safetensors").keys() == read_tensors(parents / "a").keys()
    for name, tensor in read_tensors(parents / "a").items():
        assert torch.equal(load_file(out / "model.safetensors")[name], tensor)
    assert not list(pickled.glob("*.safetensors"))
    assert json.loads((out / "tokenizer.json").read_text())


def test_a_pickle_that_runs_code_is_refused_with_the_flag(
    evomerge: Run, tmp_path: Path, pickled: Path
) -> None:
    marker = tmp_path / "marker"
    file, out = pickled / "pytorch_model.bin", tmp_path / "out"
    torch.save({"model.norm.weight": Evil(marker)}, file)
    arguments = ("merge", merge_of(pickled), out, "--allow-pickle", pickled)
    refused(evomerge, *arguments, code=2, message="refused, get safetensors")
    assert not marker.exists()
    assert not out.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the file is harmless"


def test_flags_must_name_something_that_needs_them(
    evomerge: Run, tmp_path: Path, parents: Path, pickled: Path
) -> None:
    arguments = ("merge", merge_of(pickled), tmp_path / "out")
    plain = parents / "a"
    refused(evomerge, *arguments, "--allow-pickle", "typo", code=2, message="--allow-pickle typo")
    refused(evomerge, *arguments, "--allow-pickle", plain, code=2, message="has safetensors")
    refused(evomerge, *arguments, "--allow-remote-code", plain, code=2, message="no code of its")
    arguments = ("evaluate", plain, "--suite", tmp_path / "none.yaml", "--allow-task-code", plain)
    (tmp_path / "none.yaml").write_text("objective: {tasks: [{task: t, metric: acc}]}\n")
    refused(evomerge, *arguments, code=2, message="no Python file below")


CODE = """
from pathlib import Path
(Path(__file__).parent / "marker").touch()

def asked(doc):
    return doc["question"]

def first_half(dataset):
    return dataset.select(range(len(dataset) // 2))

def shouted(predictions, references, **rest):
    return 1.0
"""


@pytest.fixture
def coded(tmp_path: Path, tasks: Path) -> Path:
    """A folder whose task calls functions of the Python file beside it."""
    folder = tmp_path / "coded"
    folder.mkdir()
    shutil.copy(tasks / "pick.jsonl", folder)
    text = TASK.replace('"{{question}}"', "!function code.asked")
    (folder / "pick.yaml").write_text(text + "process_docs: !function code.first_half\n")
    (folder / "code.py").write_text(CODE)
    return folder


def suite(folder: Path) -> Path:
    path = folder.parent / "suite.yaml"
    objective = {"include": [str(folder)], "tasks": [{"task": "pick", "metric": "acc"}]}
    path.write_text(yaml12.dumps({"objective": objective}))
    return path


def test_task_code_runs_only_in_the_folder_that_is_named(
    evomerge: Run, tmp_path: Path, parents: Path, coded: Path
) -> None:
    arguments = ("evaluate", parents / "a", "--suite", suite(coded))
    refused(evomerge, *arguments, code=2, message=f"--allow-task-code {coded}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.py").touch()
    refused(
        evomerge,
        *(*arguments, "--allow-task-code", tmp_path / "other"),
        code=2,
        message="would run Python code",
    )
    assert not (coded / "marker").exists()
    done = evomerge(*arguments, "--allow-task-code", coded)
    assert done.code == 0, done.err
    assert f"sha256 {sha256(coded / 'code.py')}" in done.err
    assert "n=200" in done.out
    assert (coded / "marker").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("doc_to_image: !function os.system", "is not among the allowed files"),
        ("doc_to_image: !function ../outside.f", "is not among the allowed files"),
        ("doc_to_image: !function code.missing", "has no function 'missing'"),
        ("doc_to_image: !other code.asked", "would run Python code"),
        ("doc_to_image: !!python/name:os.system", "would run Python code"),
        ("class: !function code.asked", "class: loads Python code"),
        ("unsafe_code: true", "executes answers"),
        ("dataset_path: pandas", "can execute code"),
    ],
)
def test_what_stays_refused_in_an_allowed_folder(
    evomerge: Run, parents: Path, coded: Path, line: str, message: str
) -> None:
    (coded.parent / "outside.py").write_text("def f(doc): return 1\n")
    key = line.partition(":")[0]
    kept = [row for row in (coded / "pick.yaml").read_text().splitlines() if row[: len(key)] != key]
    (coded / "pick.yaml").write_text("\n".join([*kept, line, ""]))
    arguments = ("evaluate", parents / "a", "--suite", suite(coded), "--allow-task-code", coded)
    refused(evomerge, *arguments, code=2, message=message)


def test_a_metric_of_the_allowed_folder_counts_and_a_path_does_not(
    evomerge: Run, parents: Path, coded: Path
) -> None:
    file = coded / "pick.yaml"
    entry = "{metric: !function code.shouted, aggregation: mean, higher_is_better: true}"
    own = TASK.replace("multiple_choice", "generate_until").replace("doc_to_choice: choices", "")
    own = own.partition("metric_list")[0].replace(
        "doc_to_target: answer", "doc_to_target: '{{answer}}'"
    )
    file.write_text(f"{own}metric_list: [{entry}]\ngeneration_kwargs: {{max_gen_toks: 1}}\n")
    path = suite(coded)
    path.write_text(path.read_text().replace("acc", "shouted"))
    arguments = ("evaluate", parents / "a", "--suite", path, "--allow-task-code", coded)
    done = evomerge(*arguments)
    assert done.code == 0, done.err
    assert "shouted" in done.out
    file.write_text(file.read_text().replace("!function code.shouted", "./code.py"))
    refused(evomerge, *arguments, code=2, message="is a path to code")


def test_a_run_goes_on_only_with_the_code_that_it_was_started_with(
    evomerge: Run, tmp_path: Path, space: Space, coded: Path
) -> None:
    path = space(
        objective={"include": [str(coded)]}, budget={"candidates": 24}, strategy={"minibatch": 8}
    )
    search = ("search", "--space", path, "--out", tmp_path / "run", "--engine", "inline")
    allow = ("--allow-task-code", coded)
    assert evomerge(*search, *allow).code == 0
    recorded = yaml12.load(tmp_path / "run" / "spec.resolved.yaml")["consent"]
    assert recorded == {"task_code": {str(coded): {"code.py": sha256(coded / "code.py")}}}
    assert evomerge(*search, *allow).code == 0
    refused(evomerge, *search, code=2, message=f"started with --allow-task-code {coded}")
    (coded / "marker").unlink()
    (coded / "code.py").write_text(CODE.replace("// 2", "// 4"))
    refused(evomerge, *search, *allow, code=2, message="allowed with SHA-256")
    (coded / "code.py").write_text(CODE)
    (coded / "more.py").write_text("")
    refused(evomerge, *search, *allow, code=2, message="more.py: was not there when")
    assert not (coded / "marker").exists()


CONFIGURATION = """
from pathlib import Path
from transformers import LlamaConfig
Path("{marker}").touch()

class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
MODELING = """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where transformers copies models' code; one place, as Python remembers packages by name."""
    return tmp_path_factory.mktemp("modules")


@pytest.fixture
def own_code(tmp_path: Path, modules: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models of a class of their own, which writes a marker when it is imported."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    for name, seed in (("own", 1), ("own2", 2)):
        folder = llama(tmp_path / name, seed=seed)
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "model_type": "own_llama",
            "architectures": ["OwnForCausalLM"],
            "auto_map": {
                "AutoConfig": "configuration_own.OwnConfig",
                "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
            },
        }
        (folder / "config.json").write_text(json.dumps(config))
        marker = CONFIGURATION.format(marker=tmp_path / "marker")
        (folder / "configuration_own.py").write_text(marker)
        (folder / "modeling_own.py").write_text(MODELING)
    return tmp_path / "own"


def test_a_model_with_code_of_its_own(
    evomerge: Run, tmp_path: Path, tasks: Path, own_code: Path
) -> None:
    arguments = ("evaluate", own_code, "--suite", suite(tasks.parent / tasks.name))
    refused(evomerge, *arguments, code=3, message=f"--allow-remote-code {own_code}")
    assert not (tmp_path / "marker").exists()
    done = evomerge(*arguments, "--allow-remote-code", own_code)
    assert done.code == 0, done.err
    assert f"sha256 {sha256(own_code / 'modeling_own.py')}" in done.err
    assert (tmp_path / "marker").exists()


def test_code_elsewhere_on_the_hub_cannot_be_allowed(evomerge: Run, own_code: Path) -> None:
    file = own_code / "config.json"
    file.write_text(file.read_text().replace("modeling_own.Own", "org/repo--modeling_own.Own"))
    recipe, out = merge_of(own_code), own_code.parent / "out"
    arguments = ("merge", recipe, out, "--allow-remote-code", own_code)
    refused(evomerge, *arguments, code=2, message="is in another repository")


def test_a_search_over_models_with_code_of_their_own(
    evomerge: Run, tmp_path: Path, space: Space, own_code: Path
) -> None:
    models = {"base_model": str(own_code), "models": [{"model": str(tmp_path / "own2")}]}
    path = space(space=models, budget={"candidates": 20}, strategy={"minibatch": 8})
    search = ("search", "--space", path, "--out", tmp_path / "run", "--engine", "inline")
    refused(evomerge, *search, code=3, message=f"--allow-remote-code {own_code}")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "marker").exists()
    done = evomerge(*search, "--allow-remote-code", own_code)
    assert done.code == 0, done.err
    saved = tmp_path / "run" / "best" / "model" / "modeling_own.py"
    assert saved.read_text() == MODELING
