"""Models with different vocabularies, merged to disk and in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PhiConfig

from evomerge.errors import PreflightFailed
from evomerge.recipe import Parameters, Recipe, Slice, Source
from evomerge.tokenizer_policy import ModelRow, TokenizerPolicy, TokenRule
from evomerge.weights.expansion import expand
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel
from evomerge.weights.writer import write_model
from tests import models
from tests.weights import vocabularies
from tests.weights.merging import assert_same, materializer, merged, source
from tests.weights.vocabularies import EMBEDDING, HEAD, SPECIAL, tokens, words

BOTH = (EMBEDDING, HEAD)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base: w0-w9; other: w5-w14 with moved special tokens and <|im|>; padded: w0-w4, 40 rows."""
    root = tmp_path_factory.mktemp("vocabularies")
    moved = tuple(reversed(SPECIAL)) + words(*range(5, 15))[4:]
    vocabularies.model(root / "base", words(*range(10)), seed=1)
    vocabularies.model(root / "other", moved, seed=2, added=("<|im|>",))
    vocabularies.model(root / "padded", words(*range(5)), seed=3, rows=40)
    vocabularies.model(root / "tied", words(*range(12)), seed=4, tied=True)
    return root


def task(policy: TokenizerPolicy | str | None, *names: str, base: str = "base") -> Recipe:
    policy = TokenizerPolicy(policy) if isinstance(policy, str) else policy
    sources = tuple(source(name, weight=0.5) for name in names)
    return Recipe("task_arithmetic", sources, base_model=base, tokenizer=policy)


def rows_by_token(directory: Path, tensor: str) -> dict[str, torch.Tensor]:
    matrix = models.read_tensors(directory)[tensor]
    return {token: matrix[number] for token, number in tokens(directory).items()}


@pytest.mark.parametrize("policy", ["base", "union", "other"])
def test_a_merge_on_disk(root: Path, tmp_path: Path, policy: str) -> None:
    engine = materializer(root, "base", "other")
    out = tmp_path / "out"
    write_model(task(policy, "other"), engine, out)
    config = json.loads((out / "config.json").read_text())
    ids = tokens(out)
    assert config["vocab_size"] == len(ids)
    expected = {"base": 14, "union": 20, "other": 15}
    assert len(ids) == expected[policy]
    for name in BOTH:
        base, other = rows_by_token(root / "base", name), rows_by_token(root / "other", name)
        for token, row in rows_by_token(out, name).items():
            first = base.get(token, other.get(token))
            second = other.get(token, base.get(token))
            assert first is not None
            assert second is not None
            torch.testing.assert_close(row, first + 0.5 * (second - first))
    roles = {f"{role}_token_id": ids[f"<{role}>"] for role in ("pad", "bos", "eos")}
    settings = json.loads((out / "generation_config.json").read_text())
    assert {key: config[key] for key in roles} == roles
    assert {key: settings[key] for key in roles} == roles
    assert AutoTokenizer.from_pretrained(out).get_vocab() == ids
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.generation_config.eos_token_id == ids["<eos>"]


@pytest.mark.parametrize("policy", ["base", "union", "other", "padded"])
def test_memory_and_disk_agree(root: Path, tmp_path: Path, policy: str) -> None:
    names = ("base", "other", "padded")
    engine = materializer(root, *names)
    recipe = task(policy, "other", "padded")
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    write_model(recipe, engine, tmp_path / "out")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert resident.tokenizer.get_vocab() == tokenizer.get_vocab()
    text = "w1 w7 <|im|> w12 w3"
    inputs = tokenizer(text, return_tensors="pt").input_ids
    assert torch.equal(resident.tokenizer(text, return_tensors="pt").input_ids, inputs)
    assert torch.equal(resident.model(inputs).logits, saved(inputs).logits)
    assert resident.model.config.to_dict() | {"_name_or_path": ""} == (
        saved.config.to_dict() | {"_name_or_path": ""}
    )
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ours, theirs = resident.model.generation_config, saved.generation_config
        assert getattr(ours, key) == getattr(theirs, key)


def test_a_padded_embedding_keeps_its_rows(root: Path) -> None:
    engine = materializer(root, "padded", "base")
    got = merged(engine, task("base", "base", base="padded"))
    assert got[EMBEDDING].shape == got[HEAD].shape == (40, 32)
    for name in BOTH:
        assert torch.equal(got[name][9:], models.read_tensors(root / "padded")[name][9:])
    other = merged(engine, task(TokenizerPolicy("base", (), 32), "base", base="padded"))
    assert other[EMBEDDING].shape == (64, 32)


def test_a_tied_model_takes_part_with_its_embedding(root: Path) -> None:
    got = merged(materializer(root, "base", "tied"), task("base", "tied"))
    base, tied = rows_by_token(root / "base", HEAD), rows_by_token(root / "tied", EMBEDDING)
    for token, row in base.items():
        number = tokens(root / "base")[token]
        torch.testing.assert_close(got[HEAD][number], row + 0.5 * (tied[token] - row))
    got = merged(materializer(root, "base", "tied"), task("base", "base", base="tied"))
    assert got[HEAD].shape == (16, 32)
    got = merged(materializer(root, "tied"), task("base", "tied", base="tied"))
    assert HEAD not in got


def test_equal_vocabularies_are_borrowed_as_before(llamas: Path) -> None:
    pool = ParentPool.open(["base", "math", "code"], llamas)
    plain = task(None, "math", "code")
    with_policy = task("base", "math", "code")
    for target in expand(with_policy, pool):
        assert all(item.alignment is None for item in target.inputs)
    engine = materializer(llamas, "base", "math", "code")
    assert_same(merged(engine, with_policy), merged(engine, plain))


def test_a_model_that_keeps_its_rows_is_borrowed(root: Path) -> None:
    pool = ParentPool.open(["base", "other"], root)
    found = {
        item.model: item.alignment is not None
        for target in expand(task("base", "other"), pool)
        if target.name in BOTH
        for item in target.inputs
    }
    assert found == {"base": False, "other": True}


def test_states_of_two_policies_are_not_mixed_up(root: Path) -> None:
    """Kept statistics depend on the rows."""
    engine = materializer(root, "base", "other")
    for policy in ("base", "union", "other", "base"):
        recipe = Recipe(
            "ties",
            (source("other", weight=1.0, density=0.3),),
            base_model="base",
            tokenizer=TokenizerPolicy(policy),
        )
        assert_same(merged(engine, recipe), merged(materializer(root, "base", "other"), recipe))


def test_a_head_bias_follows_its_rows(tmp_path: Path) -> None:
    numbers = {"a": range(6), "b": range(3, 12)}
    for seed, (name, those) in enumerate(numbers.items()):
        size = 4 + len(those)
        config = PhiConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(tmp_path / name)
        noisy = {
            n: torch.randn(t.shape, generator=generator)
            for n, t in models.read_tensors(tmp_path / name).items()
        }
        save_file(noisy, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        vocabularies.save_tokenizer(tmp_path / name, words(*those))
    recipe = Recipe(
        "task_arithmetic",
        (source("b", weight=1.0),),
        base_model="a",
        tokenizer=TokenizerPolicy("union"),
    )
    out = tmp_path / "out"
    write_model(recipe, materializer(tmp_path, "a", "b"), out)
    a, b = (models.read_tensors(tmp_path / name)["lm_head.bias"] for name in ("a", "b"))
    got = models.read_tensors(out)["lm_head.bias"]
    ids = tokens(out)
    assert got.shape == (16,)
    for token, number in ids.items():
        owner = b if token in tokens(tmp_path / "b") else a
        expected = owner[tokens(tmp_path / ("b" if owner is b else "a"))[token]]
        torch.testing.assert_close(got[number], expected)
    AutoModelForCausalLM.from_pretrained(out)


def test_a_head_of_another_size_than_the_embedding_is_named(root: Path, tmp_path: Path) -> None:
    for name in ("base", "other"):
        shutil.copytree(root / name, tmp_path / name)
    models.rewrite(tmp_path / "other", {HEAD: torch.zeros(9, 32)})
    engine = materializer(tmp_path, "base", "other")
    with pytest.raises(PreflightFailed, match=r"'lm_head\.weight' has 9 rows, its embedding 15"):
        engine.plan(task("base", "other"))


def test_config_ids_without_their_token_follow_the_role(root: Path, tmp_path: Path) -> None:
    """A donor's <eos> that the chosen tokenizer lacks becomes that tokenizer's own."""
    for name in ("base", "other"):
        shutil.copytree(root / name, tmp_path / name)
    file = tmp_path / "other" / "tokenizer.json"
    file.write_text(file.read_text().replace("<eos>", "<end>").replace("<pad>", "<none>"))
    settings = tmp_path / "other" / "tokenizer_config.json"
    content = json.loads(settings.read_text()) | {"eos_token": "<end>"}
    content.pop("pad_token")
    settings.write_text(json.dumps(content))
    config = {"eos_token_id": [2, 3], "text": {"image_token_id": 5, "depth": 2}}
    vocabularies.configure(tmp_path / "base", **config)
    write_model(task("other", "other"), materializer(tmp_path, "base", "other"), tmp_path / "out")
    ids = tokens(tmp_path / "out")
    got = json.loads((tmp_path / "out" / "config.json").read_text())
    assert got["eos_token_id"] == [ids["<end>"], ids["<unk>"]]
    assert got["bos_token_id"] == ids["<bos>"]
    assert got["pad_token_id"] is None
    assert got["text"] == {"image_token_id": None, "depth": 2}


def test_built_tokenizers_leave_old_vocabulary_files_out(root: Path, tmp_path: Path) -> None:
    for name in ("base", "other"):
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / "base" / "vocab.json").write_text("{}")
    (tmp_path / "base" / "tokenizer.model").write_text("")
    settings = tmp_path / "base" / "tokenizer_config.json"
    decoder = {"0": {"content": "<pad>", "special": True}}
    settings.write_text(
        json.dumps(json.loads(settings.read_text()) | {"added_tokens_decoder": decoder})
    )
    engine = materializer(tmp_path, "base", "other")
    rule = TokenizerPolicy("base", (TokenRule("<new>", ModelRow("other", "<|im|>")),))
    for name, policy, own in (("as-is", "base", True), ("new", rule, False)):
        write_model(task(policy, "other"), engine, tmp_path / name)
        for file in ("vocab.json", "tokenizer.model"):
            assert (tmp_path / name / file).exists() == own
    written = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    assert written["added_tokens_decoder"]["14"]["content"] == "<new>"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert tokenizer("w1 <new>").input_ids == [5, 14]


def test_slices_align_embeddings_and_heads(root: Path) -> None:
    parts = (
        Slice((Source("base", (0, 1)), Source("other", (0, 1)))),
        Slice((Source("padded", (1, 2)), Source("base", (1, 2)))),
    )
    recipe = Recipe(
        "linear",
        slices=parts,
        parameters=Parameters.constants({"weight": 1.0}),
        tokenizer=TokenizerPolicy("union"),
    )
    got = merged(materializer(root, "base", "other", "padded"), recipe)
    assert got[EMBEDDING].shape == got[HEAD].shape == (20, 32)
    number = tokens(root / "other")["w13"]  # no model of the last slice has it
    for name in BOTH:
        row = models.read_tensors(root / "other")[name][number]
        torch.testing.assert_close(got[name][17], row)
