from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import PreflightFailed
from evomerge.recipe import Clause, Gradient, Parameters, Recipe, Scalar, Setting, Slice, Source
from evomerge.weights.layout import at_layer, place_of
from evomerge.weights.materialize import Materializer
from tests import models
from tests.families import FAMILIES
from tests.weights.merging import assert_same, linear, materializer, merged, source

Tensors = dict[str, torch.Tensor]
_PLAIN = Parameters.constants({"normalize": False})


@pytest.fixture(scope="module")
def engine(llamas: Path) -> Materializer:
    return materializer(llamas, "base", "math", "code")


@pytest.fixture(scope="module")
def stored(llamas: Path) -> Callable[[str], Tensors]:
    tensors = {name: models.read_tensors(llamas / name) for name in ("base", "math", "code")}
    return tensors.__getitem__


def _sliced(*slices: Slice, parameters: Parameters = _PLAIN) -> Recipe:
    return Recipe("linear", slices=slices, parameters=parameters)


def _slice(*sources: Source, **parameters: Scalar) -> Slice:
    return Slice(sources, Parameters.constants(parameters))


def _layer(tensors: Tensors, layer: int) -> Tensors:
    """The tensors of one layer, numbered 0."""
    return {at_layer(n, 0): t for n, t in tensors.items() if place_of(n).layer == layer}


def test_layers_are_renumbered_and_repeated(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    recipe = Recipe(
        "passthrough",
        slices=(
            _slice(source("math", (0, 3))),
            _slice(source("code", (1, 2), scale=0.5)),
            _slice(source("math", (2, 4))),
        ),
    )
    got = merged(engine, recipe)
    origins = [("math", 0), ("math", 1), ("math", 2), ("code", 1), ("math", 2), ("math", 3)]
    for layer, (model, input_layer) in enumerate(origins):
        scale = 0.5 if model == "code" else 1.0
        expected = _layer(stored(model), input_layer)
        found = _layer(got, layer)
        assert set(found) == set(expected)
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, scale * expected[name])
    assert not _layer(got, 6)
    assert torch.equal(got["lm_head.weight"], stored("math")["lm_head.weight"])


def test_sources_may_start_at_different_layers(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    got = merged(
        engine, _sliced(_slice(source("math", (0, 2), weight=1), source("code", (2, 4), weight=2)))
    )
    for layer in (0, 1):
        math, code = _layer(stored("math"), layer), _layer(stored("code"), layer + 2)
        found = _layer(got, layer)
        assert_same(found, {name: math[name] + 2 * code[name] for name in found})


def test_embeddings_come_from_the_first_slice_and_the_end_from_all_of_the_last(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    recipe = _sliced(
        _slice(source("base", (0, 2), weight=2)),
        _slice(source("math", (2, 4), weight=3), source("code", (2, 4), weight=5)),
    )
    got = merged(engine, recipe)
    base, math, code = stored("base"), stored("math"), stored("code")
    torch.testing.assert_close(
        got["model.embed_tokens.weight"], 2 * base["model.embed_tokens.weight"]
    )
    for name in ("model.norm.weight", "lm_head.weight"):
        torch.testing.assert_close(got[name], 3 * math[name] + 5 * code[name])


def test_empty_slices_choose_the_ends(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    recipe = Recipe(
        "passthrough",
        slices=(
            _slice(source("math", (0, 0))),
            _slice(source("base", (0, 4))),
            _slice(source("code", (4, 4), scale=2.0)),
        ),
    )
    got = merged(engine, recipe)
    expected = {
        name: stored("base")[name]
        if place_of(name).layer is not None
        else stored("math")[name]
        if "embed" in name
        else 2 * stored("code")[name]
        for name in got
    }
    assert_same(got, expected)
    assert set(got) == set(stored("base"))


def test_gradients_run_per_slice_and_a_single_layer_takes_the_last_value(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    setting = Setting((Clause(Gradient((1.0, 3.0))),))
    parameters = Parameters.of([*_PLAIN, ("weight", setting)])
    recipe = _sliced(
        _slice(source("math", (0, 3))), _slice(source("math", (3, 4))), parameters=parameters
    )
    got = merged(engine, recipe)
    weights = {None: 1.0, 0: 1.0, 1: 2.0, 2: 3.0, 3: 3.0}
    math = stored("math")
    assert_same(got, {name: weights[place_of(name).layer] * math[name] for name in got})


def test_source_beats_slice_beats_recipe(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    recipe = _sliced(
        _slice(source("math", (0, 1), weight=2.0), weight=3.0),
        _slice(source("math", (1, 2)), weight=3.0),
        _slice(source("math", (2, 3))),
        parameters=Parameters.of([*_PLAIN, ("weight", Setting.constant(5.0))]),
    )
    got = merged(engine, recipe)
    math = stored("math")
    for layer, weight in enumerate((2.0, 3.0, 5.0)):
        expected = _layer(math, layer)
        found = _layer(got, layer)
        assert_same(found, {name: weight * expected[name] for name in found})
    torch.testing.assert_close(
        got["model.embed_tokens.weight"], 2 * math["model.embed_tokens.weight"]
    )
    torch.testing.assert_close(got["model.norm.weight"], 5 * math["model.norm.weight"])


def test_filters_see_input_numbers_per_model_and_output_numbers_when_shared(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    weight = Setting((Clause(2.0, "layers.3."), Clause(1.0)))
    normalize = Setting((Clause(True, "layers.1."), Clause(False)))
    recipe = _sliced(
        Slice((Source("math", (2, 4)), Source("code", (0, 2)))),
        parameters=Parameters.of([("weight", weight), ("normalize", normalize)]),
    )
    got = merged(engine, recipe)
    math, code = stored("math"), stored("code")
    first, second = _layer(got, 0), _layer(got, 1)
    assert_same(first, {n: _layer(math, 2)[n] + _layer(code, 0)[n] for n in first})
    assert_same(second, {n: (2 * _layer(math, 3)[n] + _layer(code, 1)[n]) / 3 for n in second})


def test_a_slice_may_have_its_own_base(
    engine: Materializer, stored: Callable[[str], Tensors]
) -> None:
    part = _slice(source("math", (0, 2), weight=0.5), source("code", (0, 2), weight=9.0))
    recipe = Recipe("task_arithmetic", slices=(Slice(part.sources, base_model="code"),))
    got = merged(engine, recipe)
    math, code = stored("math"), stored("code")
    assert_same(got, {n: code[n] + 0.5 * (math[n] - code[n]) for n in got})


@given(st.lists(st.integers(0, 4), max_size=3), st.floats(-1, 1, width=32))
@settings(max_examples=15, deadline=None)
def test_cutting_a_merge_into_slices_changes_nothing(
    engine: Materializer, cuts: list[int], weight: float
) -> None:
    edges = sorted({0, 4, *cuts})
    slices = [
        _slice(source("math", part, weight=weight), source("code", part, weight=1.0))
        for part in pairwise(edges)
    ]
    whole = linear(source("math", weight=weight), source("code", weight=1.0))
    cut, uncut = merged(engine, _sliced(*slices)), merged(engine, whole)
    assert list(cut) == list(uncut)
    assert all(torch.equal(cut[name], uncut[name]) for name in uncut)


def test_ranges_beyond_the_model_are_all_reported(engine: Materializer) -> None:
    recipe = Recipe(
        "passthrough", slices=(_slice(source("math", (0, 5))), _slice(source("code", (3, 9))))
    )
    with pytest.raises(PreflightFailed) as caught:
        engine.plan(recipe)
    assert caught.value.problems == (
        "slices[0]: layer_range [0, 5] of 'math', which has 4 layers: end the range at 4 or before",
        "slices[1]: layer_range [3, 9] of 'code', which has 4 layers: end the range at 4 or before",
    )


def test_two_stacks_cannot_be_sliced(tmp_path: Path) -> None:
    FAMILIES["t5"].write(tmp_path / "a", 1)
    engine = materializer(tmp_path, "a")
    recipe = Recipe("passthrough", slices=(_slice(source("a", (0, 1))),))
    with pytest.raises(PreflightFailed) as caught:
        engine.plan(recipe)
    assert caught.value.problems == (
        "slices[0]: model 'a' has 2 stacks of layers (decoder.block, encoder.block), expected one: "
        "list models instead of slices or use modules",
    )


def test_numbered_tensors_beside_the_layers_are_no_layers(tmp_path: Path) -> None:
    models.llama(tmp_path / "a", layers=3)
    models.rewrite(tmp_path / "a", {"classifier.0.w": torch.ones(2), "embedder.0.w": torch.ones(2)})
    slices = (_slice(source("a", (0, 1), scale=2.0)), _slice(source("a", (2, 3), scale=3.0)))
    got = merged(materializer(tmp_path, "a"), Recipe("passthrough", slices=slices))
    assert got["classifier.0.w"].tolist() == [3.0, 3.0]
    assert got["embedder.0.w"].tolist() == [2.0, 2.0]
    assert "model.layers.1.mlp.up_proj.weight" in got
    assert "model.layers.2.mlp.up_proj.weight" not in got
