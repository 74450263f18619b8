from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, Gemma2Config

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe, Slice, Source
from evomerge.stack import Segment, recipe_of
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from evomerge.weights.stack_compatibility import stack_problems
from evomerge.weights.stack_plan import check_models
from evomerge.weights.writer import write_model
from tests import stacks
from tests.families import SEEING


def _problems(root: Path) -> list[str]:
    return stack_problems(ParentPool.open(["a", "b"], root), "a", ("a", "b"))


def _edit(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, **changes}))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        stacks.write(stacks.FAMILIES["llama"](2 + seed), tmp_path / name, seed=seed)
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"rms_norm_eps": 1e-5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {"num_attention_heads": 8, "head_dim": 4},
    ],
)
def test_settings_that_one_config_cannot_hold_twice(pair: Path, changes: dict[str, Any]) -> None:
    _edit(pair / "b", **changes)
    lines = _problems(pair)
    for key in changes:
        (line,) = (line for line in lines if line.startswith(f"model 'b': {key} "))
        assert ", but 'a' has " in line
        assert line.endswith("holds for all layers of a stack: choose models that agree")
    assert len(lines) == len(changes)


def test_old_and_new_ways_to_say_the_same_agree(pair: Path) -> None:
    _edit(pair / "b", rope_parameters=None, rope_theta=10000.0, torch_dtype="float32")
    assert _problems(pair) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"eos_token_id": 7, "max_position_embeddings": 128},
        {"transformers_version": "4.0.0", "use_cache": False, "attention_dropout": 0.1},
        {"unknown_to_the_family": 3},
    ],
)
def test_settings_that_layers_do_not_see_may_differ(pair: Path, changes: dict[str, Any]) -> None:
    _edit(pair / "b", **changes)
    assert _problems(pair) == []


def test_the_longest_text_matters_to_some_rotations(pair: Path) -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    for name in "ab":
        _edit(pair / name, rope_parameters=dynamic)
    _edit(pair / "b", max_position_embeddings=128)
    (line,) = _problems(pair)
    assert "model 'b': max_position_embeddings 128, but 'a' has 64" in line


def test_families_and_widths_come_first(tmp_path: Path) -> None:
    stacks.write(stacks.FAMILIES["llama"](2), tmp_path / "a", seed=0)
    stacks.write(stacks.FAMILIES["mistral"](2), tmp_path / "b", seed=1)
    (line,) = _problems(tmp_path)
    assert "model 'b': model_type mistral, but 'a' has llama" in line


def test_hidden_sizes_must_agree(tmp_path: Path) -> None:
    wide = stacks.FAMILIES["llama"](2)
    wide.hidden_size = 64
    stacks.write(stacks.FAMILIES["llama"](2), tmp_path / "a", seed=0)
    stacks.write(wide, tmp_path / "b", seed=1)
    (line,) = _problems(tmp_path)
    assert "model 'b': hidden size 64, but 'a' has 32" in line


def test_layers_that_depend_on_their_number_cannot_move(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        stacks.write(stacks.FAMILIES["gpt2"](2), tmp_path / name, seed=seed)
    _edit(tmp_path / "a", scale_attn_by_inverse_layer_idx=True)
    _edit(tmp_path / "b", scale_attn_by_inverse_layer_idx=True)
    lines = _problems(tmp_path)
    assert len(lines) == 2
    assert "model 'a': scale_attn_by_inverse_layer_idx True makes layers depend" in lines[0]


def test_seeing_models_are_refused(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        SEEING["llava"].write(tmp_path / name, seed)
    assert "model 'a': stacks are made of text models" in _problems(tmp_path)[0]


def test_other_numbers_of_experts_are_refused(tmp_path: Path) -> None:
    stacks.write(stacks.FAMILIES["mixtral"](2), tmp_path / "a", seed=0)
    more = stacks.FAMILIES["mixtral"](2)
    more.num_local_experts = 4
    stacks.write(more, tmp_path / "b", seed=1)
    (line,) = _problems(tmp_path)
    assert "model 'b': num_local_experts 4, but 'a' has 3" in line


def test_plans_and_resident_stacks_refuse_alike(pair: Path) -> None:
    _edit(pair / "b", rms_norm_eps=1e-5)
    pool = ParentPool.open(["a", "b"], pair)
    recipe = recipe_of(
        (Segment("a", 0, 2), Segment("b", 1, 3)), donor="a", scale_mode="stream", dtype=None
    )
    attempts: tuple[Callable[[Recipe], object], ...] = (
        partial(check_models, pool=pool),
        Materializer(pool).plan,
        ResidentStack(pool).become,
    )
    for attempt in attempts:
        with pytest.raises(PreflightFailed, match="'b': rms_norm_eps 1e-05, but 'a' has"):
            attempt(recipe)


def test_plans_name_the_slice_that_is_too_long(pair: Path) -> None:
    pool = ParentPool.open(["a", "b"], pair)
    recipe = recipe_of(
        (Segment("b", 0, 2), Segment("a", 1, 3)), donor="a", scale_mode="stream", dtype=None
    )
    with pytest.raises(PreflightFailed, match=r"slices\[1\]: layer_range \[1, 3\] of 'a', which"):
        Materializer(pool).plan(recipe)


def test_layers_keep_their_kind_where_old_files_do_not_name_it(tmp_path: Path) -> None:
    config = Gemma2Config(
        **{**stacks.FAMILIES["gemma2"](4).to_dict(), "layer_types": None, "sliding_window": 3}
    )
    stacks.write(config, tmp_path / "a", seed=1)
    file = tmp_path / "a" / "config.json"
    settings = json.loads(file.read_text())
    kinds = settings.pop("layer_types")
    assert kinds[:2] == ["sliding_attention", "full_attention"]
    file.write_text(json.dumps(settings))
    pool = ParentPool.open(["a"], tmp_path)
    stack = recipe_of(
        (Segment("a", 0, 2), Segment("a", 1, 4)), donor="a", scale_mode="stream", dtype=None
    )
    slices = Recipe("passthrough", slices=tuple(Slice((Source("a", r),)) for r in ((0, 2), (1, 4))))
    resident = ResidentStack(pool)
    resident.become(stack)
    for recipe, out in ((stack, "stack"), (slices, "slices")):
        write_model(recipe, Materializer(pool), tmp_path / out)
        written = AutoModelForCausalLM.from_pretrained(tmp_path / out).eval()
        assert written.config.layer_types == [kinds[i] for i in (0, 1, 1, 2, 3)]
        difference = stacks.logits(written) - stacks.logits(resident.model)
        assert difference.abs().max() <= 1e-5
