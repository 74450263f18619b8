from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe, Source
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel
from evomerge.weights.writer import write_model
from tests import models
from tests.families import FAMILIES, SEEING, outputs
from tests.weights.merging import linear, materializer, merged, source


@pytest.mark.parametrize("name", FAMILIES)
def test_a_merged_model_computes_what_the_average_of_its_parents_does(
    tmp_path: Path, name: str
) -> None:
    family = FAMILIES[name]
    for seed, parent in enumerate(("a", "b")):
        family.write(tmp_path / parent, seed)
    engine = materializer(tmp_path, "a", "b")
    engine.pool.check()
    recipe = linear(source("a", weight=3.0), source("b", weight=1.0), normalize=True)
    write_model(recipe, engine, tmp_path / "out")
    first, second = (family.load(tmp_path / parent) for parent in ("a", "b"))
    alone = outputs(first)
    with torch.no_grad():
        for mine, other in zip(first.parameters(), second.parameters(), strict=True):
            mine.copy_(0.75 * mine + 0.25 * other)
    found = family.load(tmp_path / "out")
    assert type(found) is type(first)
    torch.testing.assert_close(outputs(found), outputs(first))
    assert not torch.allclose(alone, outputs(first), atol=1e-3)


def test_encoders_need_no_head_and_keep_their_flag(tmp_path: Path) -> None:
    for name in ("llama-classifier", "t5"):
        FAMILIES[name].write(tmp_path / name, 1)
        pool = ParentPool.open([name], tmp_path)
        assert pool.problems([name], name) == []
        recipe = Recipe("passthrough", (Source(name),))
        write_model(recipe, materializer(tmp_path, name), tmp_path / f"{name}-out")
        kept = (tmp_path / f"{name}-out" / "config.json").read_text()
        original = FAMILIES[name].load(tmp_path / name).config
        assert f'"tie_word_embeddings": {str(original.tie_word_embeddings).lower()}' in kept


@pytest.mark.parametrize("name", ["bert-masked", "t5", "llava"])
def test_lm_eval_is_offered_causal_models_only(tmp_path: Path, name: str) -> None:
    (FAMILIES | SEEING)[name].write(tmp_path / "a", 1)
    recipe = Recipe("passthrough", (Source("a"),))
    with pytest.raises(PreflightFailed, match=r"'a': lm-eval scores causal language models, got"):
        ResidentModel(materializer(tmp_path, "a"), recipe)


def test_files_with_and_without_the_prefix_of_the_base_model_are_one_family(
    tmp_path: Path,
) -> None:
    for seed, parent in enumerate(("a", "b")):
        FAMILIES["gpt2"].write(tmp_path / parent, seed)
    first, second = (models.read_tensors(tmp_path / parent) for parent in ("a", "b"))
    short = {name.removeprefix("transformer."): tensor for name, tensor in second.items()}
    models.rewrite(tmp_path / "b", {**dict.fromkeys(second), **short})
    engine = materializer(tmp_path, "a", "b")
    engine.pool.check()
    got = merged(engine, linear(source("a", weight=1.0), source("b", weight=2.0)))
    assert got.keys() == first.keys()
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, first[name] + 2 * second[name])
    write_model(linear(source("b", weight=2.0), source("a", weight=1.0)), engine, tmp_path / "out")
    assert models.read_tensors(tmp_path / "out").keys() == short.keys()
    torch.testing.assert_close(
        models.read_tensors(tmp_path / "out")["wte.weight"], got["transformer.wte.weight"]
    )


def test_copies_of_a_tied_embedding_may_be_stored_or_not(tmp_path: Path) -> None:
    for seed, parent in enumerate(("a", "b")):
        FAMILIES["t5"].write(tmp_path / parent, seed)
    shared = models.read_tensors(tmp_path / "b")["shared.weight"]
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    models.rewrite(tmp_path / "b", {name: shared.clone() for name in copies})
    engine = materializer(tmp_path, "a", "b")
    engine.pool.check()
    got = merged(engine, linear(source("a", weight=1.0), source("b", weight=1.0)))
    own = models.read_tensors(tmp_path / "a")["shared.weight"]
    for name in ("shared.weight", *copies):
        torch.testing.assert_close(got[name], own + shared)


def test_a_second_name_of_a_head_bias_is_found(tmp_path: Path) -> None:
    for seed, parent in enumerate(("a", "b")):
        FAMILIES["bert-masked"].write(tmp_path / parent, seed)
    bias = models.read_tensors(tmp_path / "b")["cls.predictions.bias"]
    models.rewrite(tmp_path / "b", {"cls.predictions.decoder.bias": bias.clone()})
    engine = materializer(tmp_path, "a", "b")
    engine.pool.check()
    got = merged(engine, linear(source("a", weight=1.0), source("b", weight=1.0)))
    own = models.read_tensors(tmp_path / "a")["cls.predictions.bias"]
    torch.testing.assert_close(got["cls.predictions.decoder.bias"], own + bias)


def test_buffers_of_integers_that_some_models_lack_are_copied(tmp_path: Path) -> None:
    for seed, parent in enumerate(("a", "b", "c")):
        FAMILIES["bert"].write(tmp_path / parent, seed)
    ids = torch.arange(34)[None]
    for parent in ("b", "c"):
        models.rewrite(tmp_path / parent, {"embeddings.position_ids": ids})
    engine = materializer(tmp_path, "a", "b", "c")
    engine.pool.check()
    recipe = linear(*(source(parent, weight=1.0) for parent in ("a", "b", "c")))
    assert torch.equal(merged(engine, recipe)["embeddings.position_ids"], ids)
    models.rewrite(tmp_path / "c", {"embeddings.position_ids": ids + 1})
    with pytest.raises(PreflightFailed, match=r"'embeddings\.position_ids' of type int64 differs"):
        materializer(tmp_path, "a", "b", "c").plan(recipe)


def test_layers_beyond_the_promise_predict_further_tokens(tmp_path: Path) -> None:
    models.llama(tmp_path / "a", layers=3)
    config = tmp_path / "a" / "config.json"
    text = config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 2')
    config.write_text(text)
    (line,) = ParentPool.open(["a"], tmp_path).problems([], "a")
    assert "config.json promises 2 layers, the weights have 3 in model.layers" in line
    config.write_text(text.replace("{", '{"num_nextn_predict_layers": 1,', 1))
    assert ParentPool.open(["a"], tmp_path).problems([], "a") == []


def test_a_causal_model_without_head_is_incomplete(tmp_path: Path) -> None:
    models.llama(tmp_path / "a")
    models.rewrite(tmp_path / "a", {"lm_head.weight": None})
    (line,) = ParentPool.open(["a"], tmp_path).problems([], "a")
    assert "no lm_head.weight and a config that does not tie embeddings: download" in line
    models.rewrite(tmp_path / "a", {"scores.weight": torch.zeros(64, 32)})
    assert ParentPool.open(["a"], tmp_path).problems([], "a") == []
