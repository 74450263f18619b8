from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge.errors import InvalidInput
from evomerge.recipe import Recipe, Source
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights.companion_files import copy_companions
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel
from evomerge.weights.writer import write_model
from tests.weights.merging import linear, materializer, source


def test_files_around_the_weights(llamas: Path, tmp_path: Path) -> None:
    donor = Path(shutil.copytree(llamas / "base", tmp_path / "base"))
    shutil.copytree(llamas / "math", tmp_path / "math")
    (donor / "modeling_evil.py").write_text("raise SystemExit")
    (donor / "training_args.bin").write_bytes(b"\0")
    (donor / "README.md").write_text("theirs")
    (donor / "additional_chat_templates").mkdir()
    (donor / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    (donor / "additional_chat_templates" / "evil.py").write_text("raise SystemExit")
    recipe = linear(source("base", weight=1.0), source("math", weight=1.0))
    write_model(recipe, materializer(tmp_path, "base", "math"), tmp_path / "out")
    copied = (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "additional_chat_templates/tools.jinja",
    )
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert files == {"config.json", "model.safetensors", *copied}
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (donor / name).read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("w1 w5").input_ids == [5, 9]


def _with_tokenizer(name: str | None) -> Recipe:
    sources = (source("base", weight=1.0), source("math", weight=1.0))
    return Recipe("linear", sources, tokenizer=None if name is None else TokenizerPolicy(name))


@pytest.mark.parametrize(("name", "expected"), [(None, "base"), ("base", "base"), ("math", "math")])
def test_the_tokenizer_comes_from_the_source(
    llamas: Path, tmp_path: Path, name: str | None, expected: str
) -> None:
    for model in ("base", "math"):
        shutil.copytree(llamas / model, tmp_path / model)
        (tmp_path / model / "chat_template.jinja").write_text(f"{model}: {{{{ messages }}}}")
        (tmp_path / model / "generation_config.json").write_text(f'{{"max_length": {len(model)}}}')
    recipe = _with_tokenizer(name)
    engine = materializer(tmp_path, "base", "math")
    write_model(recipe, engine, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text().startswith(expected)
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["max_length"] == 4
    template = ResidentModel(engine, recipe).tokenizer.chat_template
    assert str(template).startswith(expected)


def test_a_link_to_some_other_file_is_not_published(llamas: Path, tmp_path: Path) -> None:
    parent = shutil.copytree(llamas / "base", tmp_path / "a")
    (tmp_path / "id_rsa").write_text("secret")
    (parent / "tokenizer.model").symlink_to(tmp_path / "id_rsa")
    recipe = Recipe("passthrough", (Source("a"),))
    with pytest.raises(InvalidInput, match=r"tokenizer.model: a link to .*id_rsa, a file of anot"):
        copy_companions(recipe, ParentPool.open(["a"], tmp_path), tmp_path)


def test_links_of_the_hub_cache_and_to_files_of_the_same_name_are_followed(
    llamas: Path, tmp_path: Path
) -> None:
    parent = shutil.copytree(llamas / "base", tmp_path / "a")
    (tmp_path / "blobs").mkdir()
    (parent / "tokenizer.json").rename(tmp_path / "blobs" / "0a1b2c")
    (parent / "tokenizer.json").symlink_to("../blobs/0a1b2c")
    (parent / "tokenizer_config.json").unlink()
    (parent / "tokenizer_config.json").symlink_to(llamas / "base" / "tokenizer_config.json")
    (tmp_path / "out").mkdir()
    recipe = Recipe("passthrough", (Source("a"),))
    copy_companions(recipe, ParentPool.open(["a"], tmp_path), tmp_path / "out")
    assert not (tmp_path / "out" / "tokenizer.json").is_symlink()
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()
