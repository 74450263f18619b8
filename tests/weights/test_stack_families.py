from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from evomerge.weights.stack_rules import FOLD_RULES
from evomerge.weights.writer import write_model
from tests import stacks

_PARALLEL = ("gpt_neox", "phi")
_CASES = [
    pytest.param(family, mode, donor, id=f"{family}-{mode}")
    for family in stacks.FAMILIES
    for mode, donor in (("stream", "a"), ("mlp_delta", "b"))
    if mode == "stream" or family not in _PARALLEL
]


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: tmp_path_factory.mktemp(family) for family in stacks.FAMILIES}


def _reloaded(path: Path) -> PreTrainedModel:
    model, report = AutoModelForCausalLM.from_pretrained(
        path, dtype="auto", output_loading_info=True
    )
    assert not any(report.values()), "weights are missing or left over"
    loaded: PreTrainedModel = model.eval()
    return loaded


def _continued(model: PreTrainedModel, *, cached: bool) -> torch.Tensor:
    texts = stacks.texts()
    found: torch.Tensor = model.generate(
        texts,
        attention_mask=torch.ones_like(texts),
        max_new_tokens=10,
        min_new_tokens=10,
        do_sample=False,
        use_cache=cached,
    )
    return found


@pytest.mark.parametrize(("family", "mode", "donor"), _CASES)
def test_the_written_model_computes_what_scaled_layers_do(
    roots: dict[str, Path], tmp_path: Path, family: str, mode: str, donor: str
) -> None:
    root = roots[family]
    if not (root / "a").exists():
        stacks.parents(family, root)
    pool = ParentPool.open(["a", "b"], root)
    recipe = stacks.tangled(mode, donor=donor)
    resident = ResidentStack(pool)
    resident.become(recipe)
    expected = stacks.logits(resident.model)
    write_model(recipe, Materializer(pool), tmp_path / "out")
    written = _reloaded(tmp_path / "out")
    found = stacks.logits(written)
    assert (found - expected).abs().max() <= 1e-3
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    texts = _continued(resident.model, cached=True)
    assert torch.equal(texts, _continued(resident.model, cached=False))
    assert torch.equal(texts, _continued(written, cached=True))
    assert written.config.num_hidden_layers == 11
    assert written.config.use_cache
    # the scales are not too small to be noticed
    resident.become(stacks.tangled(mode, donor=donor, scaled=False))
    assert (stacks.logits(resident.model) - expected).abs().max() > 0.2


def test_every_rule_is_proven() -> None:
    assert {family.removesuffix("-biases") for family in stacks.FAMILIES} == FOLD_RULES.keys()
