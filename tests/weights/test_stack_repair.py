from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.stack import Segment, recipe_of
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from evomerge.weights.stack_compatibility import stack_problems
from evomerge.weights.writer import write_model
from tests import stacks
from tests.models import read_tensors

_CASES: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
    ("llama", {"intermediate_size": 40}, {"intermediate_size": 56}),
    ("llama", {"num_key_value_heads": 1}, {"num_key_value_heads": 4}),
    ("llama", {"num_key_value_heads": 2, "attention_bias": True}, {"num_key_value_heads": 4}),
    ("llama", {"mlp_bias": True, "intermediate_size": 40}, {"attention_bias": True}),
    ("qwen2", {"intermediate_size": 40, "num_key_value_heads": 4}, {}),
    ("qwen3", {"attention_bias": True}, {"num_key_value_heads": 1}),
    ("mixtral", {"intermediate_size": 40}, {"num_key_value_heads": 4}),
    ("gemma2", {"attention_bias": True, "num_key_value_heads": 1}, {"intermediate_size": 56}),
    ("gemma3_text", {"intermediate_size": 40}, {"num_key_value_heads": 4}),
    ("olmo2", {"attention_bias": False, "num_key_value_heads": 4}, {"intermediate_size": 40}),
    ("gpt_neox", {"intermediate_size": 40}, {"attention_bias": False}),
    ("phi", {"intermediate_size": 40, "num_key_value_heads": 2}, {"num_key_value_heads": 4}),
    ("gpt2", {"n_inner": 40}, {}),
)


@pytest.mark.parametrize("donor", ["a", "b"])
@pytest.mark.parametrize(("family", "first", "second"), _CASES)
def test_layers_of_other_sizes_compute_the_same_in_one_model(
    tmp_path: Path, family: str, first: Mapping[str, Any], second: Mapping[str, Any], donor: str
) -> None:
    for seed, (name, changes) in enumerate((("a", first), ("b", second))):
        config = stacks.FAMILIES[family](3)
        for key, value in changes.items():
            setattr(config, key, value)
        stacks.write(config, tmp_path / name, seed=seed)
    pool = ParentPool.open(["a", "b"], tmp_path)
    assert stack_problems(pool, donor, ("a", "b")) == []
    segments = Segment("a", 0, 2), Segment("b", 0, 3), Segment("a", 1, 3)
    recipe = recipe_of(segments, donor=donor, scale_mode="stream", dtype=None)
    resident = ResidentStack(pool)
    resident.become(recipe)
    write_model(recipe, Materializer(pool), tmp_path / "out")
    written, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values())
    difference = stacks.logits(written.eval()) - stacks.logits(resident.model)
    assert difference.abs().max() <= 1e-5


def test_what_is_added_is_zero_or_a_repetition(tmp_path: Path) -> None:
    config = stacks.FAMILIES["llama"](2)
    stacks.write(config, tmp_path / "a", seed=0)
    wide = stacks.FAMILIES["llama"](2)
    wide.intermediate_size, wide.num_key_value_heads, wide.attention_bias = 64, 4, True
    stacks.write(wide, tmp_path / "b", seed=1)
    pool = ParentPool.open(["a", "b"], tmp_path)
    segments = Segment("a", 0, 2), Segment("b", 0, 2)
    recipe = recipe_of(segments, donor="a", scale_mode="stream", dtype=None)
    write_model(recipe, Materializer(pool), tmp_path / "out")
    found, own = read_tensors(tmp_path / "out"), read_tensors(tmp_path / "a")
    layer = "model.layers.1"
    down = found[f"{layer}.mlp.down_proj.weight"]
    assert torch.equal(down[:, :48], own[f"{layer}.mlp.down_proj.weight"])
    assert not down[:, 48:].any()
    keys = found[f"{layer}.self_attn.k_proj.weight"].view(4, 8, 32)
    stored = own[f"{layer}.self_attn.k_proj.weight"].view(2, 8, 32)
    assert torch.equal(keys, stored[[0, 0, 1, 1]])
    assert not found[f"{layer}.self_attn.k_proj.bias"].any()
    assert found["model.layers.2.self_attn.k_proj.bias"].any()
    assert found.keys() == read_tensors(tmp_path / "out").keys()
