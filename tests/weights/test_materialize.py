from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.recipe import Clause, Gradient, Parameters, Recipe, Scalar, Setting, Source
from evomerge.signatures import SIGNATURES
from evomerge.weights.layout import place_of
from evomerge.weights.materialize import Materializer
from tests import models
from tests.weights.merging import assert_same, linear, materializer, merged, source

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def engine(llamas: Path) -> Materializer:
    return materializer(llamas, "base", "math", "code")


@pytest.fixture(scope="module")
def base(llamas: Path) -> Tensors:
    return models.read_tensors(llamas / "base")


@pytest.fixture(scope="module")
def math(llamas: Path) -> Tensors:
    return models.read_tensors(llamas / "math")


@pytest.fixture(scope="module")
def code(llamas: Path) -> Tensors:
    return models.read_tensors(llamas / "code")


def _setting(name: str, *clauses: tuple[Scalar | Gradient, str | None]) -> Parameters:
    return Parameters.of([(name, Setting(tuple(Clause(v, f) for v, f in clauses)))])


def test_a_weighted_sum(engine: Materializer, math: Tensors, code: Tensors) -> None:
    got = merged(engine, linear(source("math", weight=2.0), source("code", weight=-0.5)))
    assert_same(got, {name: 2 * math[name] - 0.5 * code[name] for name in got})
    assert set(got) == set(math)


def test_order_is_embeddings_layers_norm_and_head(engine: Materializer) -> None:
    names = list(merged(engine, linear(source("math", weight=1.0))))
    assert names[0] == "model.embed_tokens.weight"
    assert names[-2:] == ["lm_head.weight", "model.norm.weight"]
    layers = [place_of(name).layer for name in names[1:-2]]
    assert layers == sorted(layers, key=lambda layer: layer or 0)
    assert set(layers) == {0, 1, 2, 3}


def test_the_base_joins_linear_as_last_source(
    engine: Materializer, base: Tensors, math: Tensors
) -> None:
    recipe = Recipe(
        "linear",
        (source("math", weight=3.0),),
        base_model="base",
        parameters=Parameters.constants({"weight": 1.0}),
    )
    got = merged(engine, recipe)
    assert_same(got, {name: (3 * math[name] + base[name]) / 4 for name in got})


@pytest.mark.parametrize("listed", [0, 1, 2, None])
def test_the_base_of_task_vectors_is_separate_wherever_it_is_listed(
    engine: Materializer, base: Tensors, math: Tensors, code: Tensors, listed: int | None
) -> None:
    sources = [source("math", weight=0.5), source("code", weight=0.25)]
    if listed is not None:
        sources.insert(listed, Source("base"))
    got = merged(engine, Recipe("task_arithmetic", tuple(sources), base_model="base"))
    expected = {n: base[n] + 0.5 * (math[n] - base[n]) + 0.25 * (code[n] - base[n]) for n in got}
    assert_same(got, expected)


def test_the_base_is_the_zero_end_of_slerp_in_either_order(
    engine: Materializer, base: Tensors
) -> None:
    for sources in ((Source("base"), Source("math")), (Source("math"), Source("base"))):
        recipe = Recipe("slerp", sources, base_model="base", parameters=_setting("t", (0.0, None)))
        got = merged(engine, recipe)
        assert_same(got, {name: base[name] for name in got})


def test_gradients_run_over_the_layers_and_start_at_the_ends(
    engine: Materializer, math: Tensors
) -> None:
    parameters = _setting("weight", (Gradient((1.0, 4.0)), None))
    got = merged(engine, linear(Source("math", parameters=parameters)))
    by_layer = {None: 1.0, 0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}  # None: embeddings, norm, head
    assert_same(got, {name: by_layer[place_of(name).layer] * math[name] for name in got})


def test_boolean_gradients_step(engine: Materializer, math: Tensors, code: Tensors) -> None:
    recipe = Recipe(
        "linear",
        (source("math", weight=1.0), source("code", weight=1.0)),
        parameters=_setting("normalize", (Gradient((False, True)), None)),
    )
    got = merged(engine, recipe)
    half = {name: 0.5 if place_of(name).layer == 3 else 1.0 for name in got}
    assert_same(got, {name: half[name] * (math[name] + code[name]) for name in got})


def test_the_first_matching_filter_wins(engine: Materializer, math: Tensors) -> None:
    parameters = _setting("weight", (2.0, "mlp.up"), (3.0, "mlp"), (5.0, "*"), (7.0, "head"))
    got = merged(engine, linear(Source("math", parameters=parameters)))

    def weight(name: str) -> float:
        return 2.0 if "mlp.up" in name else 3.0 if "mlp" in name else 5.0

    assert_same(got, {name: weight(name) * math[name] for name in got})


def test_a_scope_without_a_match_falls_through(
    engine: Materializer, base: Tensors, math: Tensors
) -> None:
    recipe = Recipe(
        "task_arithmetic",
        (Source("math", parameters=_setting("weight", (2.0, "self_attn"))),),
        base_model="base",
        parameters=_setting("weight", (0.5, None)),
    )
    got = merged(engine, recipe)
    factor = {name: 2.0 if "self_attn" in name else 0.5 for name in got}
    assert_same(got, {n: base[n] + factor[n] * (math[n] - base[n]) for n in got})


def test_missing_values_are_reported_together_before_any_tensor(engine: Materializer) -> None:
    recipe = linear(
        Source("math", parameters=_setting("weight", (1.0, "mlp"))),
        Source("code", parameters=_setting("weight", (1.0, "norm"))),
    )
    with pytest.raises(InvalidInput) as caught:
        engine.plan(recipe)
    first, second = caught.value.problems
    assert "'weight' of 'math': has no value for tensor 'model.embed_tokens.weight'" in first
    # Four attention matrices and two norms in four layers, embedding, norm and head; minus one.
    assert "(and 26 more): add an entry without a filter after the filtered ones" in first
    assert "'weight' of 'code': has no value" in second


def test_whole_numbers_must_stay_whole_along_a_gradient(engine: Materializer) -> None:
    recipe = Recipe(
        "dare_linear",
        (source("math", weight=1.0),),
        base_model="base",
        parameters=_setting("seed", (Gradient((0, 1)), None)),
    )
    with pytest.raises(InvalidInput, match=r"expected a whole number, got 0\.33.* the gradient"):
        engine.plan(recipe)


def test_symbolic_problems_come_first(engine: Materializer) -> None:
    with pytest.raises(InvalidInput, match="unknown method 'soup'"):
        engine.plan(Recipe("soup", (source("absent"),)))


def test_models_outside_the_pool_are_named(engine: Materializer) -> None:
    with pytest.raises(InvalidInput, match="model 'absent' is not an opened parent"):
        engine.plan(linear(source("absent", weight=1.0)))


@pytest.mark.parametrize(
    ("dtypes", "recipe_dtypes", "result"),
    [
        (("float32", "float32"), (None, None), torch.float32),
        (("bfloat16", "bfloat16"), (None, None), torch.bfloat16),
        (("bfloat16", "float32"), (None, None), torch.float32),
        (("bfloat16", "float16"), (None, None), torch.float32),
        (("float32", "float32"), ("bfloat16", None), torch.bfloat16),
        (("bfloat16", "bfloat16"), ("float32", "float16"), torch.float16),
    ],
)
def test_result_types(
    llamas: Path,
    tmp_path: Path,
    dtypes: tuple[str, str],
    recipe_dtypes: tuple[str | None, str | None],
    result: torch.dtype,
) -> None:
    parents: list[Tensors] = []
    for name, dtype in zip(("base", "math"), dtypes, strict=True):
        directory = Path(shutil.copytree(llamas / name, tmp_path / name))
        tensors = models.read_tensors(directory)
        models.rewrite(directory, {n: t.to(getattr(torch, dtype)) for n, t in tensors.items()})
        parents.append(models.read_tensors(directory))
    recipe = Recipe(
        "linear",
        (source("base", weight=0.3), source("math", weight=0.7)),
        parameters=Parameters.constants({"normalize": False}),
        dtype=recipe_dtypes[0],
        out_dtype=recipe_dtypes[1],
    )
    got = merged(materializer(tmp_path, "base", "math"), recipe)
    for name, tensor in got.items():
        assert tensor.dtype == result
        exact = 0.3 * parents[0][name].double() + 0.7 * parents[1][name].double()
        # One rounding: half a unit in the last place of the result type.
        step = torch.finfo(result).eps * 0.51
        assert bool(((tensor.double() - exact).abs() <= step * exact.abs() + 1e-7).all()), name


def test_equal_integers_are_copied_whatever_the_dtype(llamas: Path, tmp_path: Path) -> None:
    ids = torch.tensor([3, 1, 2])
    for name in ("base", "math"):
        shutil.copytree(llamas / name, tmp_path / name)
        models.rewrite(tmp_path / name, {"model.position_ids": ids})
    recipe = Recipe(
        "linear", (source("base", weight=2.0), source("math", weight=2.0)), dtype="bfloat16"
    )
    got = merged(materializer(tmp_path, "base", "math"), recipe)
    assert got["model.position_ids"].dtype == torch.int64
    assert torch.equal(got["model.position_ids"], ids)
    models.rewrite(tmp_path / "math", {"model.position_ids": ids + 1})
    with pytest.raises(PreflightFailed, match=r"'model\.position_ids' of type int64 differs"):
        materializer(tmp_path, "base", "math").plan(recipe)


def test_tensors_that_do_not_match_are_reported_together(llamas: Path, tmp_path: Path) -> None:
    for name in ("base", "math"):
        shutil.copytree(llamas / name, tmp_path / name)
    models.rewrite(
        tmp_path / "math", {"model.norm.weight": None, "lm_head.weight": torch.zeros(2, 2)}
    )
    recipe = linear(source("base", weight=1.0), source("math", weight=1.0))
    with pytest.raises(PreflightFailed) as caught:
        materializer(tmp_path, "base", "math").plan(recipe)
    head, norm = caught.value.problems
    assert "tensor 'lm_head.weight': the models disagree: 'base' float32 [64, 32], 'math'" in head
    assert "model 'math': tensor 'model.norm.weight' is missing" in norm


def test_parents_stay_as_they_are(llamas: Path) -> None:
    files = {name: (llamas / name / "model.safetensors").read_bytes() for name in ("base", "math")}
    engine = materializer(llamas, *files)
    before = {name: models.read_tensors(llamas / name) for name in files}
    declared = {s.name for s in SIGNATURES.values() if s.parameter("density") is not None}
    for method in sorted(SIGNATURES.keys() & declared):
        recipe = Recipe(method, (source("math", weight=0.7, density=0.5),), base_model="base")
        merged(engine, recipe)
    for name, content in files.items():
        assert (llamas / name / "model.safetensors").read_bytes() == content
        for tensor, value in before[name].items():
            assert torch.equal(engine.pool.get(name, tensor), value)


@pytest.mark.parametrize("make", [models.qwen2, models.gpt2])
def test_other_architectures(tmp_path: Path, make: object) -> None:
    assert callable(make)
    first = models.read_tensors(make(tmp_path / "a", seed=1))
    second = models.read_tensors(make(tmp_path / "b", seed=2))
    engine = materializer(tmp_path, "a", "b")
    engine.pool.check()
    parameters = _setting("weight", (Gradient((1.0, 2.0)), None))
    got = merged(engine, linear(Source("a", parameters=parameters), source("b", weight=-1.0)))
    assert set(got) == set(first)
    for name, tensor in got.items():
        weight = 2.0 if place_of(name).layer == 1 else 1.0
        torch.testing.assert_close(tensor, weight * first[name] - second[name])
