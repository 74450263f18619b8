from __future__ import annotations

import json
import shutil
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.errors import BuildFailed, DiskFull, InvalidInput
from evomerge.recipe import Clause, Parameters, Recipe, Setting, Slice, Source
from evomerge.weights.checkpoint import Checkpoint
from evomerge.weights.resident import ResidentModel
from evomerge.weights.writer import write_model
from tests import models
from tests.weights.merging import linear, materializer, merged, source

TOKENS = torch.arange(4, 20)[None]


def _config(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return content


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS).logits
    return logits


def _reloaded(directory: Path) -> Any:
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype="auto", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def _ties(parameters: Parameters = Parameters()) -> Recipe:  # noqa: B008 - frozen
    sources = tuple(source(name, weight=0.6, density=0.4) for name in ("math", "code"))
    return Recipe("ties", sources, base_model="base", parameters=parameters)


@pytest.mark.parametrize("shard_bytes", [5e9, 30_000])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_what_is_written_is_what_was_resident(
    llamas: Path, tmp_path: Path, shard_bytes: float, dtype: str | None
) -> None:
    engine = materializer(llamas, "base", "math", "code")
    recipe = Recipe(
        "ties",
        tuple(source(name, weight=0.6, density=0.4) for name in ("math", "code")),
        base_model="base",
        dtype=dtype,
    )
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    out = tmp_path / "out"
    write_model(recipe, engine, out, max_shard_bytes=shard_bytes)
    assert (len(list(out.glob("*.safetensors"))) > 1) == (shard_bytes < 5e9)
    model = _reloaded(out)
    assert model.dtype == getattr(torch, dtype or "float32")
    assert torch.equal(_logits(model), _logits(resident.model))
    tensors = merged(engine, recipe)
    stored = Checkpoint.open(out)
    assert set(stored.infos()) == set(tensors)
    assert all(torch.equal(stored.get(name), tensor) for name, tensor in tensors.items())


def test_shards_keep_to_the_limit_and_the_index_is_complete(llamas: Path, tmp_path: Path) -> None:
    engine = materializer(llamas, "math")
    recipe = linear(source("math", weight=1.0))
    write_model(recipe, engine, tmp_path / "out", max_shard_bytes=9_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert set(index["weight_map"].values()) == {file.name for file in files}
    sizes = [sum(t.nbytes for t in models.read_tensors(file).values()) for file in files]
    assert sum(sizes) == index["metadata"]["total_size"]
    assert max(sizes) <= 9_000
    assert all(a + b > 9_000 for a, b in pairwise(sizes))


def test_the_config_is_the_donors_but_for_the_dtype(llamas: Path, tmp_path: Path) -> None:
    donor = Path(shutil.copytree(llamas / "base", tmp_path / "base"))
    config = _config(donor) | {"torch_dtype": "float16", "custom": {"kept": [1]}}
    (donor / "config.json").write_text(json.dumps(config))
    recipe = Recipe("passthrough", (source("base"),), out_dtype="bfloat16")
    write_model(recipe, materializer(tmp_path, "base"), tmp_path / "out")
    del config["torch_dtype"]
    assert _config(tmp_path / "out") == config | {"dtype": "bfloat16"}


def test_slices_change_layer_count_and_per_layer_lists(tmp_path: Path) -> None:
    models.qwen2(tmp_path / "a", seed=1, layers=4, tied=False)
    models.qwen2(tmp_path / "b", seed=2, layers=4, tied=False)
    ranges = [("a", (0, 3)), ("b", (3, 4)), ("b", (1, 4))]
    recipe = Recipe("passthrough", slices=tuple(Slice((Source(m, r),)) for m, r in ranges))
    engine = materializer(tmp_path, "a", "b")
    write_model(recipe, engine, tmp_path / "out")
    config = _config(tmp_path / "out")
    short, full = "sliding_attention", "full_attention"
    assert config["num_hidden_layers"] == 7
    assert config["layer_types"] == [short, full, short, full, full, short, full]
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    assert torch.equal(_logits(_reloaded(tmp_path / "out")), _logits(resident.model))


def test_gpt2_layers_are_counted_under_their_own_key(tmp_path: Path) -> None:
    models.gpt2(tmp_path / "a", layers=3)
    recipe = Recipe("passthrough", slices=(Slice((Source("a", (1, 3)),)),))
    engine = materializer(tmp_path, "a")
    write_model(recipe, engine, tmp_path / "out")
    assert _config(tmp_path / "out")["n_layer"] == 2
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    assert torch.equal(_logits(_reloaded(tmp_path / "out")), _logits(resident.model))


@pytest.mark.parametrize("donor", ["tied", "untied"])
def test_a_head_of_its_own_unties_the_config(llamas: Path, tmp_path: Path, donor: str) -> None:
    shutil.copytree(llamas / "base", tmp_path / "untied")
    models.llama(tmp_path / "tied", seed=9, layers=4, tied=True)
    recipe = linear(source("tied", weight=0.5), source("untied", weight=0.5))
    recipe = Recipe("linear", recipe.models[:: 1 if donor == "tied" else -1])
    engine = materializer(tmp_path, "tied", "untied")
    write_model(recipe, engine, tmp_path / "out")
    assert recipe.donor == donor
    assert _config(tmp_path / "out")["tie_word_embeddings"] is False
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    assert torch.equal(_logits(_reloaded(tmp_path / "out")), _logits(resident.model))


def test_only_tied_parents_stay_tied(tmp_path: Path) -> None:
    models.qwen2(tmp_path / "a", seed=1)
    models.qwen2(tmp_path / "b", seed=2)
    recipe = linear(source("a", weight=0.5), source("b", weight=0.5))
    engine = materializer(tmp_path, "a", "b")
    write_model(recipe, engine, tmp_path / "out")
    assert _config(tmp_path / "out")["tie_word_embeddings"] is True
    assert "lm_head.weight" not in Checkpoint.open(tmp_path / "out").infos()
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    assert torch.equal(_logits(_reloaded(tmp_path / "out")), _logits(resident.model))


def test_a_stored_head_outweighs_a_config_that_ties(tmp_path: Path) -> None:
    directory = models.llama(tmp_path / "a")
    (directory / "config.json").write_text(
        json.dumps(_config(directory) | {"tie_word_embeddings": True})
    )
    recipe = linear(source("a", weight=1.0))
    engine = materializer(tmp_path, "a")
    write_model(recipe, engine, tmp_path / "out")
    assert _config(tmp_path / "out")["tie_word_embeddings"] is False
    expected = _logits(AutoModelForCausalLM.from_pretrained(models.llama(tmp_path / "same")))
    assert torch.equal(_logits(_reloaded(tmp_path / "out")), expected)


def _leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _late_failure() -> Recipe:
    """Sums to zero only for the last tensor that is written."""
    late = Setting((Clause(-1.0, "model.norm"), Clause(1.0)))
    return Recipe(
        "linear",
        (source("base", weight=1.0), Source("math", None, Parameters.of([("weight", late)]))),
    )


def test_a_failure_in_the_middle_leaves_nothing(llamas: Path, tmp_path: Path) -> None:
    engine = materializer(llamas, "base", "math")
    with pytest.raises(BuildFailed, match=r"'model\.norm\.weight' holds NaN or Inf"):
        write_model(_late_failure(), engine, tmp_path / "out", max_shard_bytes=20_000)
    assert _leftovers(tmp_path) == []


def test_an_interrupt_leaves_nothing(
    llamas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(name: str, tensor: torch.Tensor) -> None:
        assert tensor.numel()
        if name == "lm_head.weight":
            raise KeyboardInterrupt

    monkeypatch.setattr("evomerge.weights.writer.assert_finite", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_model(_ties(), materializer(llamas, "base", "math", "code"), tmp_path / "out")
    assert _leftovers(tmp_path) == []


def test_a_plan_that_fails_leaves_nothing(llamas: Path, tmp_path: Path) -> None:
    engine = materializer(llamas, "base", "math", "code")
    with pytest.raises(InvalidInput, match="did you mean 'lambda'"):
        write_model(_ties(Parameters.constants({"lamda": 1.0})), engine, tmp_path / "deep" / "out")
    assert _leftovers(tmp_path) == []


def test_existing_content_is_never_touched(llamas: Path, tmp_path: Path) -> None:
    engine = materializer(llamas, "base", "math", "code")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(InvalidInput, match="expected a new or empty directory, got"):
        write_model(_ties(), engine, tmp_path / "out")
    with pytest.raises(InvalidInput, match="expected a new or empty directory, got"):
        write_model(_ties(), engine, tmp_path / "out" / "precious")
    assert _leftovers(tmp_path / "out") == ["precious"]
    assert _leftovers(tmp_path) == ["out"]


def test_an_empty_directory_and_missing_parents_are_fine(llamas: Path, tmp_path: Path) -> None:
    engine = materializer(llamas, "base", "math", "code")
    (tmp_path / "empty").mkdir()
    write_model(_ties(), engine, tmp_path / "empty")
    write_model(_ties(), engine, tmp_path / "a" / "b")
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert Checkpoint.open(out).infos()
        assert out.stat().st_mode & 0o077 == (tmp_path / "a").stat().st_mode & 0o077
    assert _leftovers(tmp_path) == ["a", "empty"]
    assert _leftovers(tmp_path / "a") == ["b"]


def test_a_full_disk_is_found_before_writing(
    llamas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(DiskFull, match=r"the model needs .* GB are free: make room"):
        write_model(_ties(), materializer(llamas, "base", "math", "code"), tmp_path / "out")
    assert _leftovers(tmp_path) == []
