"""A base with an adapter is the model that PEFT runs, whatever the adapter changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from evomerge.recipe import Recipe, Source
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel
from evomerge.weights.writer import write_model
from tests import models

IDS = torch.arange(4, 24).unsqueeze(0)
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llama": models.llama,
    "tied": lambda path: models.llama(path, tied=True),
    "gpt2": models.gpt2,
    "qwen2": models.qwen2,
}
PROJECTIONS = ["q_proj", "c_proj"]
EMBEDDINGS = ["embed_tokens", "wte"]
SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {"target_modules": "all-linear"},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "biases and a trained head": {
        "target_modules": "all-linear",
        "modules_to_save": ["lm_head"],
        "bias": "all",
    },
    "embedding and head": {
        "target_modules": [*PROJECTIONS, *EMBEDDINGS, "lm_head"],
        "bias": "lora_only",
    },
    "dora of the embedding": {"target_modules": EMBEDDINGS, "use_dora": True},
    "only the head": {"target_modules": ["lm_head"]},
    "a trained embedding": {"target_modules": PROJECTIONS, "modules_to_save": EMBEDDINGS},
    "both trained": {"target_modules": PROJECTIONS, "modules_to_save": [*EMBEDDINGS, "lm_head"]},
    "patterns": {
        "target_modules": r".*\.1\..*(q_proj|c_proj|up_proj)",
        "use_rslora": True,
        "rank_pattern": {"q_proj": 3, "attn.c_proj": 2},
        "alpha_pattern": {"up_proj": 11, ".*mlp.c_proj": 7},
    },
    "some layers": {"target_modules": PROJECTIONS, "layers_to_transform": [1]},
}

CASES = [
    *((family, settings) for family in ("tied", "gpt2") for settings in SETTINGS),
    *(("llama", settings) for settings in ("dora", "embedding and head", "patterns")),
    *(("qwen2", settings) for settings in ("biases and a trained head", "embedding and head")),
]

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:peft", "ignore::RuntimeWarning:peft", "ignore::FutureWarning"
)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("families")
    for name, build in FAMILIES.items():
        build(root / name)
    return root


def _trained(base: Path, out: Path, settings: dict[str, Any]) -> PeftModel:
    """What PEFT makes of `base` after some steps into random directions, saved in `out`."""
    generator = torch.Generator().manual_seed(7)
    config = LoraConfig(r=4, lora_alpha=6, **settings)
    with torch.random.fork_rng(devices=[]):
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.eval().save_pretrained(str(out))
    return model


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


@pytest.mark.parametrize(("family", "settings"), CASES)
def test_the_merged_model_computes_what_peft_computes(
    families: Path, tmp_path: Path, family: str, settings: str
) -> None:
    """Also where PEFT's own merge would not: an adapter on one of two tied matrices."""
    base, adapter = families / family, tmp_path / "adapter"
    live = _logits(_trained(base, adapter, SETTINGS[settings]))
    name = f"{family}+{adapter}"
    recipe = Recipe("passthrough", (Source(name),))
    pool = ParentPool.open([name], families)
    write_model(recipe, Materializer(pool), tmp_path / "out")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(_logits(saved), live, rtol=0.0, atol=2e-5)
    assert (_logits(AutoModelForCausalLM.from_pretrained(base).eval()) - live).abs().max() > 0.1
    resident = ResidentModel(Materializer(pool), recipe)
    resident.become(recipe)
    assert torch.equal(_logits(resident.model), _logits(saved))
