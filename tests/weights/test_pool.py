from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights.pool import ParentPool
from tests import models


@pytest.fixture
def parents(llamas: Path, tmp_path: Path) -> Path:
    """Private copies of base and math, to be spoiled."""
    for name in ("base", "math"):
        shutil.copytree(llamas / name, tmp_path / name)
    return tmp_path


def _configure(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _problems(root: Path, *names: str) -> list[str]:
    return ParentPool.open(["base", *names], root).problems(names, "base")


def test_parents_of_one_family_fit(llamas: Path) -> None:
    pool = ParentPool.open(["base", "math", "code", "base"], llamas)
    assert pool.models == ("base", "math", "code")
    pool.check()
    pool.check_finite(pool.models)


def test_opening_reports_every_model_that_fails(llamas: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        ParentPool.open(["base", "typo", "/nowhere/at/all"], llamas)
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "model 'typo'",
        "model '/nowhere/at/all'",
    ]


def test_an_unknown_parent_gets_a_suggestion(llamas: Path) -> None:
    pool = ParentPool.open(["base", "math"], llamas)
    with pytest.raises(InvalidInput, match="'maht' is not an opened parent: did you mean 'math'"):
        pool.infos("maht")


def test_another_shape_and_family_gives_all_problems_at_once(parents: Path) -> None:
    models.qwen2(parents / "qwen", layers=2, tied=False)
    models.llama(parents / "wide", layers=4, hidden=64)
    with pytest.raises(PreflightFailed) as caught:
        ParentPool.open(["base", "qwen", "wide"], parents).check()
    lines = caught.value.problems
    for expected in (
        "model 'qwen': architecture Qwen2ForCausalLM, but 'base' has LlamaForCausalLM",
        "model 'qwen': layer count 2, but 'base' has 4",
        "model 'qwen': tensor 'model.layers.0.self_attn.q_proj.bias' has no counterpart in 'base'",
        "model 'wide': hidden size 64, but 'base' has 32",
        "model 'wide': tensor 'model.embed_tokens.weight' has shape [64, 64], expected [64, 32]",
        "model 'wide': tensor 'lm_head.weight' has shape [64, 64], expected [64, 32]",
    ):
        assert sum(line.startswith(expected) for line in lines) == 1, (expected, lines)
    # Layers that only the deeper model has follow from the layer count.
    assert not any("layers.2" in line and "qwen" in line for line in lines)


def test_at_most_five_tensors_of_a_kind_are_listed(parents: Path) -> None:
    names = [f"model.layers.{i}.mlp.{n}_proj.weight" for i in range(4) for n in ("up", "down")]
    models.rewrite(parents / "math", dict.fromkeys(names))
    lines = _problems(parents, "math")
    assert sum("is missing, 'base' has it" in line for line in lines) == 5
    assert lines[-1] == "model 'math': ... and 3 more"
    assert len(lines) == 6


def test_missing_extra_and_misshapen_tensors_are_separate_kinds(parents: Path) -> None:
    models.rewrite(
        parents / "math",
        {
            "model.norm.weight": None,
            "model.layers.1.self_attn.q_proj.bias": torch.zeros(32),
            "model.layers.0.mlp.up_proj.weight": torch.zeros(3, 32),
        },
    )
    assert _problems(parents, "math") == [
        "model 'math': tensor 'model.norm.weight' is missing, 'base' has it: replace the model",
        "model 'math': tensor 'model.layers.1.self_attn.q_proj.bias' has no counterpart in "
        "'base': replace the model",
        "model 'math': tensor 'model.layers.0.mlp.up_proj.weight' has shape [3, 32], "
        "expected [64, 32]: replace the model",
    ]


def test_vocabularies_are_compared_in_config_embedding_and_tokenizer(parents: Path) -> None:
    models.rewrite(parents / "math", {"model.embed_tokens.weight": torch.zeros(65, 32)})
    _configure(parents / "math", vocab_size=65)
    models.save_tokenizer(parents / "math", (*models.WORDS, "extra"))
    assert _problems(parents, "math") == [
        "model 'math': its vocabulary is not that of 'base' (vocabulary size 65, not 64; embedding "
        "rows 65, not 64; other tokens in tokenizer.json): add tokenizer_source: base or union to "
        "the recipe"
    ]
    pool = ParentPool.open(["base", "math"], parents)
    assert pool.problems(["math"], "base", TokenizerPolicy("union")) == []


def test_the_order_of_tokens_matters_and_an_absent_tokenizer_does_not(parents: Path) -> None:
    models.save_tokenizer(parents / "math", (*models.WORDS[:-2], *reversed(models.WORDS[-2:])))
    assert ["other tokens in" in line for line in _problems(parents, "math")] == [True]
    (parents / "math" / "tokenizer.json").unlink()
    assert _problems(parents, "math") == []


def test_other_float_types_fit_and_integers_must_be_equal(parents: Path) -> None:
    half = models.read_tensors(parents / "math")
    counter = {"model.counter": torch.arange(3)}
    models.rewrite(parents / "math", {n: t.bfloat16() for n, t in half.items()} | counter)
    models.rewrite(parents / "base", dict(counter))
    assert _problems(parents, "math") == []
    models.rewrite(parents / "math", {"model.counter": torch.arange(1, 4)})
    (line,) = _problems(parents, "math")
    assert "tensor 'model.counter' of type int64 differs" in line
    models.rewrite(parents / "math", {"model.counter": torch.arange(3).float()})
    (line,) = _problems(parents, "math")
    assert "tensor 'model.counter' of type float32 differs from that of 'base' (int64)" in line


def test_quantised_and_incomplete_models_are_refused_alone(parents: Path) -> None:
    _configure(parents / "base", quantization_config={"quant_method": "gptq"}, num_hidden_layers=9)
    models.rewrite(parents / "base", {"lm_head.weight": None})
    lines = ParentPool.open(["base"], parents).problems([], "base")
    assert len(lines) == 3
    assert "quantised weights (gptq): use the full-precision model" in lines[0]
    assert "config.json promises 9 layers, the weights have 4 in model.layers" in lines[1]
    assert "no lm_head.weight and a config that does not tie embeddings" in lines[2]


def test_a_tied_parent_fits_an_untied_one(parents: Path) -> None:
    models.llama(parents / "tied", layers=4, tied=True)
    assert _problems(parents, "tied") == []
    assert ParentPool.open(["base", "tied"], parents).problems(["base"], "tied") == []


def test_nan_and_inf_are_found_in_every_parent(parents: Path) -> None:
    tensors = models.read_tensors(parents / "math")
    tensors["model.norm.weight"][5] = float("nan")
    tensors["lm_head.weight"][63, 31] = float("-inf")
    models.rewrite(parents / "math", dict(tensors))
    models.rewrite(parents / "base", {"model.norm.weight": torch.full((32,), float("inf"))})
    pool = ParentPool.open(["base", "math"], parents)
    pool.check()
    with pytest.raises(InvalidInput) as caught:
        pool.check_finite(["base", "math"])
    assert sorted(caught.value.problems) == [
        "model 'base': tensor 'model.norm.weight' holds NaN or Inf: replace the model",
        "model 'math': tensor 'lm_head.weight' holds NaN or Inf: replace the model",
        "model 'math': tensor 'model.norm.weight' holds NaN or Inf: replace the model",
    ]
