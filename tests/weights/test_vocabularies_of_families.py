"""Every architecture: a model whose tokens were renumbered merges as if they were not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from evomerge.errors import PreflightFailed
from evomerge.recipe import Module, Parameters, Recipe
from evomerge.tokenizer_policy import TokenizerPolicy
from tests import families, models
from tests.families import FAMILIES, SEEING
from tests.weights import vocabularies
from tests.weights.merging import materializer, merged, source
from tests.weights.vocabularies import words

WORDS = words(*range(families.VOCABULARY - 4))
MIXED = (*WORDS[:2], *reversed(WORDS[2:]))
ALL = FAMILIES | SEEING


def renumbered(family: families.Family, path: Path, out: Path) -> None:
    """Save a model with its tokens in the order of MIXED, told by transformers what to permute."""
    order = [WORDS.index(word) for word in MIXED]
    model = family.load(path)
    rows = {model.get_input_embeddings().weight}
    head = model.get_output_embeddings()
    if head is not None:
        rows |= {head.weight, *([] if getattr(head, "bias", None) is None else [head.bias])}
    with torch.no_grad():
        for tensor in rows:
            tensor.copy_(tensor[order].clone())
    model.save_pretrained(out)
    vocabularies.save_tokenizer(out, MIXED)


@pytest.fixture
def parents(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """a; b; and mixed, which is b with other token numbers."""
    family = ALL[request.param]
    for seed, name in enumerate(("a", "b")):
        family.write(tmp_path / name, seed)
        vocabularies.save_tokenizer(tmp_path / name, WORDS)
    renumbered(family, tmp_path / "b", tmp_path / "mixed")
    return tmp_path


def _recipe(*names: str, policy: TokenizerPolicy) -> Recipe:
    sources = tuple(source(name, weight=0.25) for name in names)
    return Recipe("task_arithmetic", sources, base_model="a", tokenizer=policy)


@pytest.mark.parametrize("parents", sorted(ALL.keys() - {"bart"}), indirect=True)
def test_the_order_of_tokens_does_not_matter(parents: Path) -> None:
    policy = TokenizerPolicy("base")
    engine = materializer(parents, "a", "b", "mixed")
    expected = merged(engine, _recipe("b", policy=policy))
    got = merged(engine, _recipe("mixed", policy=policy))
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    first, second = (models.read_tensors(parents / name) for name in ("b", "mixed"))
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("parents", ["bart"], indirect=True)
def test_a_vocabulary_along_another_axis_is_refused(parents: Path) -> None:
    engine = materializer(parents, "a", "mixed")
    with pytest.raises(PreflightFailed, match="'final_logits_bias' has its vocabulary along the"):
        engine.plan(_recipe("mixed", policy=TokenizerPolicy("base")))


@pytest.mark.parametrize("parents", ["llava"], indirect=True)
def test_a_module_that_the_donor_keeps_gets_the_new_rows_too(parents: Path) -> None:
    seen = Module("vision_tower", (source("a", weight=1.0), source("mixed", weight=1.0)))
    policy = TokenizerPolicy("mixed", pad_to_multiple_of=32)
    recipe = Recipe("linear", modules=(seen,), base_model="a", tokenizer=policy)
    engine = materializer(parents, "a", "mixed")
    engine.pool.check_recipe(recipe)
    embedding = merged(engine, recipe)["language_model.model.embed_tokens.weight"]
    kept = models.read_tensors(parents / "a")["language_model.model.embed_tokens.weight"]
    assert embedding.shape[0] == 64
    assert torch.equal(embedding[:48], kept[[WORDS.index(word) for word in MIXED]])


@pytest.mark.parametrize("parents", ["llava"], indirect=True)
def test_a_text_model_of_another_vocabulary_joins_a_language_tower(parents: Path) -> None:
    text = FAMILIES["llama"].write(parents / "text", 5)
    vocabularies.save_tokenizer(text, WORDS)
    renumbered(FAMILIES["llama"], text, parents / "text-mixed")
    engine = materializer(parents, "a", "text", "text-mixed")
    policy = TokenizerPolicy("union")
    expected = merged(engine, _recipe("text", policy=policy))
    got = merged(engine, _recipe("text-mixed", policy=policy))
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_a_model_without_a_known_embedding_is_refused(tmp_path: Path, llamas: Path) -> None:
    path = Path(shutil.copytree(llamas / "base", tmp_path / "base"))
    tensors = models.read_tensors(path)
    name = "model.embed_tokens.weight"
    models.rewrite(path, {name: None, "model.token_table": tensors[name]})
    recipe = Recipe(
        "linear",
        (source("base", weight=1.0),),
        parameters=Parameters(),
        tokenizer=TokenizerPolicy("union"),
    )
    with pytest.raises(PreflightFailed, match="expected a token embedding, found none by its name"):
        materializer(tmp_path, "base").plan(recipe)
