from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import InvalidInput
from evomerge.weights.adapter_config import AdapterConfig
from tests import adapters


def _config(tmp_path: Path, **settings: Any) -> AdapterConfig:
    return AdapterConfig.read(adapters.write(tmp_path / "a", {}, settings=settings))


def test_ranks_and_scales_follow_the_patterns(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        r=8,
        lora_alpha=16,
        rank_pattern={"q_proj": 4, r"layers\.1\..*": 2, "q_proj$": 99},
        alpha_pattern={"layers.3.self_attn.v_proj": 5.0},
    )
    ranks = {
        "model.layers.0.self_attn.q_proj": 4,
        "model.layers.1.self_attn.q_proj": 4,  # the first pattern that matches
        "model.layers.1.mlp.up_proj": 2,
        "model.layers.0.self_attn.my_q_proj": 8,
        "q_proj": 4,
    }
    assert {module: config.rank_of(module) for module in ranks} == ranks
    assert config.scale_of("model.layers.0.self_attn.q_proj") == 16 / 4
    assert config.scale_of("model.layers.3.self_attn.v_proj") == 5 / 8
    stable = _config(tmp_path / "stable", r=8, lora_alpha=16, use_rslora=True)
    assert stable.scale_of("x") == 16 / math.sqrt(8)


@pytest.mark.parametrize(
    ("targets", "named", "unnamed"),
    [
        (["q_proj", "layers.0.mlp.up_proj"], ["a.q_proj", "m.layers.0.mlp.up_proj"], ["a.xq_proj"]),
        (r".*\.(q|v)_proj", ["a.v_proj"], ["v_proj", "a.v_proj.b"]),
        ("all-linear", ["anything"], []),
        (None, ["anything"], []),
    ],
)
def test_target_modules(tmp_path: Path, targets: Any, named: list[str], unnamed: list[str]) -> None:
    config = _config(tmp_path, target_modules=targets)
    assert all(config.targets_module(module) for module in named)
    assert not any(config.targets_module(module) for module in unnamed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "expected peft_type LORA, got IA3"),
        ({"peft_type": "LOHA"}, "expected peft_type LORA, got LOHA"),
        ({"peft_type": "ADALORA"}, "expected peft_type LORA, got ADALORA"),
        ({"peft_type": None}, "expected peft_type LORA, got None"),
        ({"lora_bias": True}, "setting 'lora_bias' (True) is not supported"),
        ({"layer_replication": [[0, 2]]}, "setting 'layer_replication' ([[0, 2]])"),
        ({"trainable_token_indices": [3]}, "setting 'trainable_token_indices'"),
        ({"target_parameters": ["experts.w"]}, "setting 'target_parameters'"),
        ({"alora_invocation_tokens": [1]}, "setting 'alora_invocation_tokens'"),
        ({"ensure_weight_tying": True}, "setting 'ensure_weight_tying'"),
        ({"invented_tomorrow": {"x": 1}}, "setting 'invented_tomorrow' ({'x': 1})"),
        ({"init_lora_weights": "pissa_niter_16"}, "'pissa_niter_16' changes the base itself"),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"r": 0}, "r: expected a whole number above 0, got 0"),
        ({"r": None}, "r: expected a whole number above 0, got nothing"),
        ({"lora_alpha": "16"}, "lora_alpha: expected a number, got '16'"),
        ({"rank_pattern": {"q_proj": 1.5}}, "rank_pattern: expected whole numbers by pattern"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: expected numbers by pattern"),
        ({"target_modules": "("}, "target_modules: expected names or a pattern, got '('"),
        ({"modules_to_save": "lm_head"}, "modules_to_save: expected names, got 'lm_head'"),
    ],
)
def test_settings_that_would_change_the_merge_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        _config(tmp_path, **settings)
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/a/adapter_config.json: ")
    assert message in line


def test_settings_without_effect_and_unset_ones_are_fine(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        inference_mode=True,
        layers_to_transform=[1],
        layers_pattern="layers",
        revision="main",
        peft_version="0.21.2",
        future_feature=None,
        another={},
        init_lora_weights="gaussian",
        base_model_name_or_path=None,
    )
    assert config.base_name is None
