"""Recipes and spaces that cannot be right: one line, the right exit code, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge import yaml12
from tests.cli.conftest import Run
from tests.families import FAMILIES, SEEING

Space = Callable[..., Path]
A, B, BASE = "../parents/a", "../parents/b", "../parents/base"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> Path:
    """A folder of recipes beside `parents`, which has other kinds of models, too."""
    root = tmp_path_factory.mktemp("world")
    (root / "parents").symlink_to(parents)
    FAMILIES["bert-masked"].write(root / "bert", 1)
    FAMILIES["t5"].write(root / "t5", 1)
    for seed in (1, 2):
        SEEING["llava"].write(root / f"llava-{seed}", seed)
    (root / "recipes").mkdir()
    return root


def _recipe(
    method: str, *models: str, base: str | None = None, **parameters: Any
) -> dict[str, Any]:
    recipe: dict[str, Any] = {"merge_method": method, "models": [{"model": m} for m in models]}
    if base is not None:
        recipe["base_model"] = base
    return recipe | {"parameters": parameters}


def _sliced(method: str, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"merge_method": method, "slices": [{"sources": list(sources)}], **more}


def _merge(evomerge: Run, world: Path, recipe: dict[str, Any]) -> tuple[int, list[str], Path]:
    file, out = world / "recipes" / "recipe.yaml", world / "recipes" / "out"
    file.write_text(yaml12.dumps(recipe))
    before = set((world / "recipes").iterdir())
    done = evomerge("merge", file, out)
    left = set((world / "recipes").iterdir()) - before
    assert left == ({out} if done.code == 0 else set())
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith(("evomerge", "warn", "not"))]
    return done.code, [line.replace(f"{file}: ", "") for line in lines], out


WRONG_ALONE = {
    "too few models": (
        _recipe("slerp", BASE, base=BASE, t=0.5),
        "models: slerp takes exactly 1 model(s) besides the base, got 0: add or remove models",
    ),
    "too few without the optional base": (
        _recipe("nuslerp", A, weight=1),
        "models: nuslerp takes exactly 2 model(s), got 1: add or remove models",
    ),
    "too few with the optional base": (
        _recipe("nuslerp", A, base=BASE, weight=1),
        "models: nuslerp takes exactly 2 model(s) besides the base, got 1: add or remove models",
    ),
    "too many models": (
        _recipe("passthrough", A, B),
        "models: passthrough takes exactly 1 model(s), got 2: add or remove models",
    ),
    "unknown parameter": (
        _recipe("ties", A, base=BASE, weight=1, densty=0.5),
        "parameters: unknown parameter 'densty'; did you mean 'density'?",
    ),
    "a parameter of another method": (
        _recipe("arcee_fusion", A, base=BASE, weight=1),
        "parameters: arcee_fusion has no parameter 'weight'; it has none",
    ),
    "no value of a parameter per model": (
        _recipe("ties", A, base=BASE),
        f"models: ties needs a value of 'weight' (how much of the model to add) for '{A}': add it",
    ),
    "no value of a shared parameter": (
        _recipe("slerp", A, base=BASE),
        "parameters: slerp needs a value of 't' (0 is the base, 1 the other model): add it",
    ),
    "a value for some tensors only": (
        _recipe("linear", A, weight=[{"filter": "mlp", "value": 1}]),
        f"parameter 'weight' of '{A}': has no value for tensor 'model.embed_tokens.weight' "
        "(and 26 more): add an entry without a filter after the filtered ones",
    ),
    "no base": (
        _recipe("ties", A, weight=1),
        "models: ties needs a base_model, got none: add base_model",
    ),
    "slices without the optional base": (
        _sliced(
            "multislerp",
            {"model": A, "layer_range": [0, 4]},
            base_model=BASE,
            parameters={"weight": 1},
        ),
        f"slices[0]: multislerp needs the base '{BASE}' among the sources of every slice: add it "
        "with its layer_range",
    ),
    "not a number": (
        _recipe("linear", A, weight=float("nan")),
        "parameters: weight: expected a finite number, got nan: correct the value",
    ),
    "not a whole number": (
        _recipe("karcher", A, max_iter=float("inf")),
        "parameters: max_iter: expected a number in [0, inf], got inf: correct the value",
    ),
    "survival chances above 1": (
        _recipe("della", A, base=BASE, weight=1, density=0.9),
        f"parameters of '{A}': density 0.9 and epsilon 0.15 give survival chances from 0.75 to "
        "1.05 for tensor 'model.embed_tokens.weight' (and 38 more): keep density - epsilon above "
        "0 and density + epsilon below 1",
    ),
    "survival chances of exactly 1": (
        _recipe("della", A, base=BASE, weight=1, density=0.85),
        f"parameters of '{A}': density 0.85 and epsilon 0.15 give survival chances from 0.7 to 1 "
        "for tensor 'model.embed_tokens.weight' (and 38 more): keep density - epsilon above 0 and "
        "density + epsilon below 1",
    ),
    "survival chances below 0 along a gradient": (
        _recipe("della_linear", A, base=BASE, weight=1, density=[0.5, 0.2, 0.1], epsilon=0.25),
        f"parameters of '{A}': density 0.1667 and epsilon 0.25 give survival chances from "
        "-0.08333 to 0.4167",
    ),
    "texts in a gradient": (
        _recipe("linear", A, weight=["much", "less"]),
        "parameters.weight: expected a number or true/false, got 'much'",
    ),
    "switches in a gradient": (
        _recipe("linear", A, weight=[True, False]),
        "parameters.weight: expected a number, got true",
    ),
    "numbers in a gradient of switches": (
        _recipe("linear", A, weight=1, normalize=[0.2, 0.7]),
        "parameters: normalize: expected true or false, got 0.2: correct the value",
    ),
    "an empty gradient": (
        _recipe("linear", A, weight=[]),
        "parameters.weight: expected at least one value in the gradient",
    ),
    "a nested gradient": (
        _recipe("linear", A, weight=[[1, 2], 3]),
        "parameters.weight: expected a number or true/false, got [1, 2]",
    ),
    "fractions between whole numbers": (
        _recipe("dare_ties", A, base=BASE, weight=1, seed=[0, 1]),
        "parameter 'seed': expected a whole number, got 0.3333333333333333 for tensor "
        "'model.layers.1.input_layernorm.weight' (and 17 more): correct the gradient",
    ),
    "a layer range backwards": (
        _sliced("passthrough", {"model": A, "layer_range": [3, 1]}),
        "slices[0].sources[0].layer_range: expected [start, end], start <= end, got [3, 1]",
    ),
    "layer ranges of two lengths": (
        _sliced(
            "linear",
            {"model": A, "layer_range": [0, 2]},
            {"model": B, "layer_range": [0, 3]},
            parameters={"weight": 1},
        ),
        "slices[0]: expected layer ranges of one length, got [2, 3]: make them equally long",
    ),
    "one model twice": (
        _recipe("linear", A, A, weight=1),
        f"models: model '{A}' occurs 2 times: list it once",
    ),
    "a module without models": (
        {"merge_method": "passthrough", "modules": {"text_decoder": {"parameters": {}}}},
        "modules.text_decoder: expected one of 'models' and 'slices', with an entry in it",
    ),
    "a list of modules": (
        {"merge_method": "passthrough", "modules": ["text_decoder"]},
        "modules: expected a mapping from names to modules, got ['text_decoder']",
    ),
    "a module's parameter": (
        {
            "merge_method": "linear",
            "modules": {"default": {"models": [{"model": A}], "parameters": {"weight": "x"}}},
        },
        "modules.default.parameters.weight: expected a number or true/false, got 'x'",
    ),
    "a module's missing parameter": (
        {"merge_method": "linear", "modules": {"default": {"models": [{"model": A}]}}},
        "modules.default.models: linear needs a value of 'weight' (how much of the model to add) "
        f"for '{A}': add it",
    ),
}


@pytest.mark.parametrize("case", WRONG_ALONE)
def test_recipes_that_are_wrong_alone(evomerge: Run, world: Path, case: str) -> None:
    recipe, message = WRONG_ALONE[case]
    code, lines, _ = _merge(evomerge, world, recipe)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"evomerge: {message}")


MISFITS = {
    "layers beyond the model": (
        _sliced("passthrough", {"model": A, "layer_range": [0, 9]}),
        f"slices[0]: layer_range [0, 9] of '{A}', which has 4 layers: end the range at 4 or before",
    ),
    "slices of an encoder-decoder": (
        _sliced("passthrough", {"model": "../t5", "layer_range": [0, 1]}),
        "slices[0]: model '../t5' has 2 stacks of layers (decoder.block, encoder.block), expected "
        "one: list models instead of slices or use modules",
    ),
    "models of two kinds": (
        _recipe("linear", A, "../bert", weight=1),
        f"model '../bert': architecture BertForMaskedLM, but '{A}' has LlamaForCausalLM: choose "
        "parents of one shape",
    ),
    "a module that is not there": (
        {"merge_method": "passthrough", "modules": {"eyes": {"models": [{"model": "../llava-1"}]}}},
        "modules: model '../llava-1' has no module 'eyes': use text_decoder or "
        "multi_modal_projector or vision_tower, or the beginning of tensor names",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_recipes_that_do_not_fit_their_models(evomerge: Run, world: Path, case: str) -> None:
    recipe, message = MISFITS[case]
    code, lines, _ = _merge(evomerge, world, recipe)
    assert code == 3
    assert f"evomerge: {message}" in lines


def test_a_sum_of_weights_of_zero_names_the_tensor(evomerge: Run, world: Path) -> None:
    recipe = _recipe("linear", A, B)
    for entry, weight in zip(recipe["models"], (1, -1), strict=True):
        entry["parameters"] = {"weight": weight}
    code, lines, _ = _merge(evomerge, world, recipe)
    assert code == 1
    (line,) = lines
    assert "merged tensor 'model.embed_tokens.weight' holds NaN or Inf" in line


def test_idle_filters_and_copied_towers_are_announced(
    evomerge: Run, world: Path, tmp_path: Path
) -> None:
    clauses = [
        {"filter": "self_atn", "value": 1},
        {"filter": "mlp.up_proj", "value": 1},
        {"filter": "layers.7.", "value": 1},
        {"filter": "qqq", "value": 1},
        {"filter": "*", "value": 1},
    ]
    recipe = _recipe("linear", "../llava-1", "../llava-2", weight=clauses)
    file = world / "recipes" / "seeing.yaml"
    file.write_text(yaml12.dumps(recipe))
    done = evomerge("merge", file, tmp_path / "out")
    assert done.code == 0
    said = [line for line in done.err.splitlines() if line.startswith(("warning", "notice"))]
    assert said == [
        "notice: copied unchanged from '../llava-1': multi_modal_projector (4 tensors), "
        "vision_tower (39 tensors)",
        "warning: parameters: weight: filter 'self_atn' matches no tensor; did you mean "
        "'self_attn'?",
        "warning: parameters: weight: filter 'layers.7.' matches no tensor; did you mean "
        "'layers.1'?",
        "warning: parameters: weight: filter 'qqq' matches no tensor: write a part of a tensor's "
        "name",
    ]
    assert done.out.strip() == str(tmp_path / "out")


def _space(method: Any, **parameters: Any) -> dict[str, Any]:
    return {"merge_method": method, "parameters": {"weight": 1.0} | parameters}


@pytest.mark.parametrize("command", ["validate", "search"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            _space("della", density={"float": [0.1, 0.8]}),
            "density 0.1 and epsilon 0.15 give survival chances from -0.05 to 0.25",
        ),
        (
            _space("della", density={"float": [0.5, 1.0]}),
            "density 1 and epsilon 0.15 give survival chances from 0.85 to 1.15",
        ),
        (
            _space("della_linear", density=0.5, epsilon={"float": [0.1, 0.6]}),
            "density 0.5 and epsilon 0.6 give survival chances from -0.1 to 1.1",
        ),
        (
            _space({"choice": ["ties", "della"]}, density={"float": [0.2, 0.9]}),
            "density 0.9 and epsilon 0.15 give survival chances",
        ),
        (
            _space("linear", weight=[{"filter": "mlp", "value": {"float": [0, 1]}}]),
            "has no value for tensor",
        ),
    ],
)
def test_spaces_whose_ranges_leave_a_method(
    evomerge: Run, space: Space, tmp_path: Path, command: str, changes: Any, message: str
) -> None:
    path = space(space=changes)
    options = ("--space", path, "--out", tmp_path / "run") if command == "search" else (path,)
    done = evomerge(command, *options)
    assert done.code == 2, done.err
    assert message in done.err
    assert not (tmp_path / "run").exists()


def test_ranges_within_a_method_are_valid(evomerge: Run, space: Space) -> None:
    inside = _space(
        "della", density={"float": [0.3, 0.7], "per": "model"}, epsilon={"float": [0.05, 0.25]}
    )
    assert evomerge("validate", space(space=inside)).code == 0


@pytest.mark.parametrize("command", ["validate", "search"])
@pytest.mark.parametrize("name", ["bert", "t5", "llava-1"])
def test_a_search_needs_causal_models(
    evomerge: Run, space: Space, world: Path, tmp_path: Path, command: str, name: str
) -> None:
    models = [{"model": str(world / name)}]
    path = space(space={"models": models, "merge_method": "linear", "base_model": None})
    options = ("--space", path, "--out", tmp_path / "run") if command == "search" else (path,)
    done = evomerge(command, *options)
    assert done.code == 3, done.err
    (line,) = done.err.splitlines()
    assert f"model '{world / name}': lm-eval scores causal language models, got" in line
    assert not (tmp_path / "run").exists()


def test_a_space_has_no_modules(evomerge: Run, space: Space, parents: Path) -> None:
    modules = {"default": {"models": [{"model": str(parents / "a")}]}}
    done = evomerge("validate", space(space={"modules": modules}))
    assert done.code == 2
    assert "modules: a search merges one language model; list models or slices" in done.err


def test_validate_warns_of_idle_filters(evomerge: Run, space: Space) -> None:
    weight = {"float": [0, 1], "per": "filter"}
    path = space(space={"filters": ["atention", "mlp"], "parameters": {"weight": weight}})
    done = evomerge("validate", path)
    assert done.code == 0
    assert "warning: parameters: weight: filter 'atention' matches no tensor" in done.err


def test_a_space_may_leave_out_an_optional_base(evomerge: Run, space: Space, parents: Path) -> None:
    for base in (None, str(parents / "base")):
        path = space(space={"merge_method": "multislerp", "base_model": base})
        assert evomerge("validate", path).code == 0


def test_evaluate_needs_a_causal_model(evomerge: Run, space: Space, world: Path) -> None:
    recipe = world / "recipes" / "encoder.yaml"
    recipe.write_text(yaml12.dumps(_recipe("passthrough", "../bert")))
    for model in (world / "bert", recipe):
        done = evomerge("evaluate", model, "--suite", space())
        assert done.code == 3, done.err
        assert "lm-eval scores causal language models, got BertForMaskedLM" in done.err
