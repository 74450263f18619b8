from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evomerge.errors import PreflightFailed
from evomerge.recipe import Clause, Module, Parameters, Recipe, Setting, Slice, Source
from evomerge.weights.expansion import expand
from evomerge.weights.pool import ParentPool
from evomerge.weights.rehearsal import notices
from evomerge.weights.writer import write_model
from tests import models
from tests.families import FAMILIES, SEEING, outputs
from tests.weights.merging import linear, materializer, merged, source

Tensors = dict[str, torch.Tensor]
_PLAIN = Parameters.constants({"normalize": False})


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of every vision-language family, and a text model with LLaVA's language tower."""
    root = tmp_path_factory.mktemp("seeing")
    for name, family in SEEING.items():
        for seed in (1, 2):
            family.write(root / f"{name}-{seed}", seed)
    FAMILIES["llama"].write(root / "text", 3)
    return root


def _is_language(name: str) -> bool:
    return name.startswith(("language_model.", "model.", "lm_head."))


@pytest.mark.parametrize("name", SEEING)
def test_listed_models_lend_their_language_towers(seeing: Path, tmp_path: Path, name: str) -> None:
    engine = materializer(seeing, f"{name}-1", f"{name}-2")
    engine.pool.check()
    recipe = linear(source(f"{name}-1", weight=0.5), source(f"{name}-2", weight=0.5))
    got = merged(engine, recipe)
    first, second = (models.read_tensors(seeing / f"{name}-{seed}") for seed in (1, 2))
    assert got.keys() == first.keys()
    assert 0 < sum(_is_language(n) for n in got) < len(got)
    for tensor in got:
        if _is_language(tensor):
            torch.testing.assert_close(got[tensor], (first[tensor] + second[tensor]) / 2)
        else:
            assert torch.equal(got[tensor], first[tensor])
    write_model(recipe, engine, tmp_path / "out")
    family = SEEING[name]
    expected, other, found = (
        family.load(path) for path in (seeing / f"{name}-1", seeing / f"{name}-2", tmp_path / "out")
    )
    with torch.no_grad():
        pairs = zip(expected.named_parameters(), other.parameters(), strict=True)
        for (parameter, mine), theirs in pairs:
            if "language_model" in parameter or "lm_head" in parameter:
                mine.copy_((mine + theirs) / 2)
    torch.testing.assert_close(outputs(found), outputs(expected))


def test_copies_keep_their_type_and_are_announced(seeing: Path) -> None:
    engine = materializer(seeing, "llava-1", "llava-2")
    sources = (source("llava-1", weight=1.0), source("llava-2", weight=1.0))
    recipe = Recipe("linear", sources, dtype="bfloat16")
    got = merged(engine, recipe)
    assert got["language_model.lm_head.weight"].dtype is torch.bfloat16
    assert got["multi_modal_projector.linear_1.weight"].dtype is torch.float32
    assert notices(recipe, engine.pool, expand(recipe, engine.pool)) == [
        "notice: copied unchanged from 'llava-1': multi_modal_projector (4 tensors), vision_tower "
        "(39 tensors)"
    ]


def test_a_text_model_joins_the_language_tower(seeing: Path) -> None:
    engine = materializer(seeing, "llava-1", "llava-2", "text")
    engine.pool.check()
    weight = Setting(
        (Clause(4.0, "language_model.model.norm"), Clause(2.0, "model.norm"), Clause(1.0))
    )
    text = Source("text", parameters=Parameters.of([("weight", weight)]))
    recipe = Recipe("task_arithmetic", (text, source("llava-2", weight=0.5)), base_model="llava-1")
    got = merged(engine, recipe)
    base, other = (models.read_tensors(seeing / f"llava-{seed}") for seed in (1, 2))
    spoken = models.read_tensors(seeing / "text")
    for name, tensor in got.items():
        if not name.startswith("language_model."):
            assert torch.equal(tensor, base[name])
            continue
        own = spoken[name.removeprefix("language_model.")]
        # Filters of per-model parameters see the model's own names.
        factor = 2.0 if name.endswith("model.norm.weight") else 1.0
        expected = base[name] + factor * (own - base[name]) + 0.5 * (other[name] - base[name])
        torch.testing.assert_close(tensor, expected)


def test_a_seeing_model_lends_its_language_to_a_text_model(seeing: Path) -> None:
    engine = materializer(seeing, "text", "llava-1")
    engine.pool.check()
    recipe = linear(source("text", weight=1.0), source("llava-1", weight=1.0))
    got = merged(engine, recipe)
    assert notices(recipe, engine.pool, expand(recipe, engine.pool)) == [
        "notice: of 'llava-1' only the language tower takes part: the donor has no other"
    ]
    text, seen = models.read_tensors(seeing / "text"), models.read_tensors(seeing / "llava-1")
    assert got.keys() == text.keys()
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, text[name] + seen[f"language_model.{name}"])


def test_a_text_model_that_does_not_fit_is_refused(seeing: Path, tmp_path: Path) -> None:
    models.llama(tmp_path / "wide")
    (tmp_path / "seen").symlink_to(seeing / "llava-1")
    lines = ParentPool.open(["seen", "wide"], tmp_path).problems(["wide"], "seen")
    assert "model 'wide': hidden size 32, but 'seen' has 16: choose parents of one shape" in lines
    assert not any("architecture" in line for line in lines)


def test_a_tied_text_model_gives_its_embedding_for_the_head(seeing: Path, tmp_path: Path) -> None:
    (tmp_path / "seen").symlink_to(seeing / "llava-1")
    (tmp_path / "text").mkdir()
    for file in (seeing / "text").iterdir():
        (tmp_path / "text" / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    (tmp_path / "text" / "config.json").write_text(
        json.dumps(config | {"tie_word_embeddings": True})
    )
    models.rewrite(tmp_path / "text", {"lm_head.weight": None})
    engine = materializer(tmp_path, "seen", "text")
    engine.pool.check()
    got = merged(engine, linear(source("seen", weight=1.0), source("text", weight=1.0)))
    head = "language_model.lm_head.weight"
    stored = models.read_tensors(seeing / "llava-1")[head]
    embedding = models.read_tensors(seeing / "text")["model.embed_tokens.weight"]
    torch.testing.assert_close(got[head], stored + embedding)


def test_slices_are_about_the_language_tower(seeing: Path, tmp_path: Path) -> None:
    engine = materializer(seeing, "gemma3-1")
    slices = tuple(Slice((Source("gemma3-1", part),)) for part in ((0, 2), (1, 2)))
    recipe = Recipe("passthrough", slices=slices)
    write_model(recipe, engine, tmp_path / "out")
    got, first = (models.read_tensors(p) for p in (tmp_path / "out", seeing / "gemma3-1"))
    prefix = "language_model.model.layers"
    assert torch.equal(
        got[f"{prefix}.2.mlp.up_proj.weight"], first[f"{prefix}.1.mlp.up_proj.weight"]
    )
    assert sum("vision_tower" in name for name in got) == sum("vision" in n for n in first)
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert (text["num_hidden_layers"], len(text["layer_types"])) == (3, 3)
    assert outputs(SEEING["gemma3"].load(tmp_path / "out")).isfinite().all()


def _module(name: str, *sources: Source, **parameters: float) -> Module:
    return Module(name, sources, parameters=Parameters.constants(dict(parameters)))


@pytest.mark.parametrize(
    ("module", "mark"),
    [
        ("text_decoder", "language_model."),
        ("vision_tower", "vision_tower."),
        ("visual", "vision_tower."),
        ("multi_modal_projector", "multi_modal_projector."),
        ("projector", "multi_modal_projector."),
        ("vision_tower.encoder", "vision_tower.encoder."),
    ],
)
def test_named_modules_are_merged_and_the_others_are_the_donors(
    seeing: Path, module: str, mark: str
) -> None:
    engine = materializer(seeing, "llava-1", "llava-2")
    sources = (source("llava-1", weight=1.0), source("llava-2", weight=2.0))
    recipe = Recipe("linear", modules=(_module(module, *sources),), parameters=_PLAIN)
    engine.pool.check_recipe(recipe)
    got = merged(engine, recipe)
    first, second = (models.read_tensors(seeing / f"llava-{seed}") for seed in (1, 2))
    assert got.keys() == first.keys()
    assert any(name.startswith(mark) for name in got)
    for name, tensor in got.items():
        expected = first[name] + 2 * second[name] if name.startswith(mark) else first[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_every_module_has_its_own_models_and_parameters(seeing: Path) -> None:
    engine = materializer(seeing, "llava-1", "llava-2", "text")
    recipe = Recipe(
        "linear",
        modules=(
            _module("text_decoder", Source("llava-1"), source("text", weight=3.0), weight=1.0),
            _module("vision_tower", Source("llava-2")),
        ),
        parameters=Parameters.of([*_PLAIN, ("weight", Setting.constant(0.5))]),
    )
    engine.pool.check_recipe(recipe)
    got = merged(engine, recipe)
    first, second = (models.read_tensors(seeing / f"llava-{seed}") for seed in (1, 2))
    text = models.read_tensors(seeing / "text")
    for name, tensor in got.items():
        if name.startswith("language_model."):
            expected = first[name] + 3 * text[name.removeprefix("language_model.")]
        else:
            expected = 0.5 * second[name] if name.startswith("vision_tower.") else first[name]
        torch.testing.assert_close(tensor, expected)
    assert notices(recipe, engine.pool, expand(recipe, engine.pool)) == [
        "notice: copied unchanged from 'llava-1': multi_modal_projector (4 tensors)"
    ]


def test_an_encoder_decoder_has_modules_and_a_plain_model_one(seeing: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        FAMILIES["t5"].write(tmp_path / f"t5-{seed}", seed)
    engine = materializer(tmp_path, "t5-1", "t5-2")
    slices = tuple(Slice((Source("t5-2", part),)) for part in ((1, 3), (0, 1)))
    recipe = Recipe(
        "passthrough",
        modules=(Module("encoder", (Source("t5-2"),)), Module("decoder", slices=slices)),
        base_model=None,
    )
    got = merged(engine, recipe)
    second = models.read_tensors(tmp_path / "t5-2")
    assert torch.equal(got["shared.weight"], second["shared.weight"])
    moved = "decoder.block.{}.layer.1.EncDecAttention.q.weight"
    assert torch.equal(got[moved.format(0)], second[moved.format(1)])
    assert torch.equal(got[moved.format(2)], second[moved.format(0)])
    sources = (source("text", weight=2.0),)
    whole = Recipe("linear", modules=(_module("default", *sources),), parameters=_PLAIN)
    plain = materializer(seeing, "text")
    listed = merged(plain, linear(*sources))
    assert all(torch.equal(t, listed[n]) for n, t in merged(plain, whole).items())


@pytest.mark.parametrize(
    ("modules", "line"),
    [
        (
            (_module("vision", Source("llava-1")),),
            "modules: model 'llava-1' has no module 'vision': use text_decoder or "
            "multi_modal_projector or vision_tower, or the beginning of tensor names",
        ),
        (
            (_module("default", Source("llava-1")),),
            "modules: model 'llava-1' has no module 'default': use text_decoder or "
            "multi_modal_projector or vision_tower, or the beginning of tensor names",
        ),
        (
            (_module("text_decoder", Source("llava-1")), _module("language_model", Source("text"))),
            "modules: 'text_decoder' and 'language_model' overlap: name one of them",
        ),
        (
            (_module("text_decoder", Source("llava-1")), _module("vision_tower", Source("text"))),
            "modules: model 'text' has no module 'vision_tower': use default, or the beginning of "
            "tensor names",
        ),
        (
            (Module("vision_tower", slices=(Slice((Source("llava-1", (0, 1)),)),)),),
            "modules.vision_tower: slices of 1 layers in total, but 'llava-1' has 2: only a "
            "language model's depth can change",
        ),
    ],
)
def test_modules_that_are_not_there(seeing: Path, modules: tuple[Module, ...], line: str) -> None:
    engine = materializer(seeing, "llava-1", "text")
    with pytest.raises(PreflightFailed) as caught:
        engine.plan(Recipe("passthrough", modules=modules))
    assert caught.value.problems == (line,)


def test_processor_settings_are_copied(seeing: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for file in (seeing / "llava-1").iterdir():
        (tmp_path / "a" / file.name).write_bytes(file.read_bytes())
    settings = (
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
    )
    for name in settings:
        (tmp_path / "a" / name).write_text(json.dumps({"of": name}))
    write_model(
        Recipe("passthrough", (Source("a"),)), materializer(tmp_path, "a"), tmp_path / "out"
    )
    for name in settings:
        assert json.loads((tmp_path / "out" / name).read_text()) == {"of": name}
