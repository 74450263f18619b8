from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore
from time import sleep
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import BuildFailed, InvalidInput
from evomerge.merge.compiled.kernels import COMPILED
from evomerge.recipe import Recipe, Slice, Source
from evomerge.weights import materialize
from evomerge.weights import resident as resident_module
from evomerge.weights.materialize import Materializer
from evomerge.weights.resident import ResidentModel
from tests import models
from tests.weights.merging import linear, materializer, merged, source

TOKENS = torch.arange(4, 20)[None]


@pytest.fixture(scope="module")
def engine(llamas: Path) -> Materializer:
    return materializer(llamas, "base", "math", "code")


def _only(model: str) -> Recipe:
    return linear(source(model, weight=1.0))


def _task(weight: float) -> Recipe:
    return Recipe("task_arithmetic", (source("math", weight=weight),), base_model="base")


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS).logits
    return logits


def _loaded(directory: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory).eval()
    return model


def test_it_becomes_every_parent(engine: Materializer, llamas: Path) -> None:
    resident = ResidentModel(engine, _task(1.0))
    assert not resident.model.training
    for name in ("base", "math", "code", "base"):
        resident.become(_only(name))
        assert torch.equal(_logits(resident.model), _logits(_loaded(llamas / name)))


def test_becoming_twice_returns_to_the_same_bits_in_the_same_memory(engine: Materializer) -> None:
    resident = ResidentModel(engine, _task(1.0))
    resident.become(_task(0.3))
    places = {n: p.data_ptr() for n, p in resident.model.named_parameters()}
    before = {n: p.clone() for n, p in resident.model.state_dict().items()}
    logits = _logits(resident.model)
    resident.become(_task(1.7))
    assert not torch.equal(_logits(resident.model), logits)
    resident.become(_task(0.3))
    assert {n: p.data_ptr() for n, p in resident.model.named_parameters()} == places
    assert all(torch.equal(p, before[n]) for n, p in resident.model.state_dict().items())
    assert torch.equal(_logits(resident.model), logits)


def test_generation_after_a_change_uses_the_new_weights(engine: Materializer, llamas: Path) -> None:
    resident = ResidentModel(engine, _task(1.0))
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    answers = []
    for name in ("base", "code"):
        resident.become(_only(name))
        for cache in ("dynamic", "static"):
            got = resident.model.generate(TOKENS, cache_implementation=cache, **settings)
            assert torch.equal(got, _loaded(llamas / name).generate(TOKENS, **settings))
        answers.append(got)
    assert not torch.equal(*answers)


def test_files_of_the_parents_stay_as_they_are(engine: Materializer, llamas: Path) -> None:
    before = (llamas / "base" / "model.safetensors").read_bytes()
    resident = ResidentModel(engine, _only("base"))
    resident.become(_only("math"))
    assert (llamas / "base" / "model.safetensors").read_bytes() == before
    got = merged(engine, _only("base"))
    assert torch.equal(got["lm_head.weight"], engine.pool.get("base", "lm_head.weight"))


def test_building_leaves_random_state_and_logging_alone(engine: Materializer) -> None:
    state = torch.get_rng_state()
    deeper = Recipe("passthrough", slices=tuple(Slice((Source("math", (0, 4)),)) for _ in "ab"))
    resident = ResidentModel(engine, deeper)
    assert torch.equal(torch.get_rng_state(), state)
    resident.become(deeper)
    assert len(resident.model.model.layers) == 8


def test_half_precision_keeps_rotary_frequencies_exact(engine: Materializer, llamas: Path) -> None:
    recipe = Recipe("linear", _only("math").models, dtype="bfloat16")
    resident = ResidentModel(engine, recipe)
    resident.become(recipe)
    frequencies = resident.model.model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32
    assert torch.equal(frequencies, _loaded(llamas / "math").model.rotary_emb.inv_freq)
    assert {p.dtype for p in resident.model.parameters()} == {torch.bfloat16}
    expected = AutoModelForCausalLM.from_pretrained(llamas / "math", dtype=torch.bfloat16)
    assert torch.equal(_logits(resident.model), _logits(expected))


def test_recipes_of_another_dtype_pass_through_staging(engine: Materializer) -> None:
    resident = ResidentModel(engine, _only("math"))
    rounded = Recipe("linear", _only("math").models, dtype="bfloat16")
    resident.become(rounded)
    expected = merged(engine, rounded)
    for name, value in resident.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name].float())


def test_overflow_in_the_model_is_found(engine: Materializer) -> None:
    resident = ResidentModel(engine, Recipe("linear", _only("math").models, dtype="float16"))
    with pytest.raises(BuildFailed, match=r"'model\.embed_tokens\.weight' holds NaN or Inf"):
        resident.become(Recipe("passthrough", (source("math", scale=1e6),)))


def test_after_a_failed_build_the_next_one_is_whole(engine: Materializer, llamas: Path) -> None:
    resident = ResidentModel(engine, _only("math"))
    zero = Recipe("linear", (source("math", weight=1.0), source("code", weight=-1.0)))
    with pytest.raises(BuildFailed, match="holds NaN or Inf"):
        resident.become(zero)
    resident.become(_only("math"))
    assert torch.equal(_logits(resident.model), _logits(_loaded(llamas / "math")))


def test_invalid_recipes_change_nothing(engine: Materializer) -> None:
    resident = ResidentModel(engine, _only("math"))
    resident.become(_only("math"))
    logits = _logits(resident.model)
    with pytest.raises(InvalidInput, match="ties needs a base_model"):
        resident.become(Recipe("ties", (source("math", weight=1.0),)))
    assert torch.equal(_logits(resident.model), logits)


def test_recipes_of_another_depth_are_named_and_change_nothing(engine: Materializer) -> None:
    resident = ResidentModel(engine, _only("math"))
    resident.become(_only("math"))
    logits = _logits(resident.model)
    for layers, message in ((5, "the model lacks model.layers.4."), (3, "the recipe lacks model")):
        slices = tuple(Slice((Source("math", (0, 1)),)) for _ in range(layers))
        with pytest.raises(BuildFailed, match=rf"{message}.* and 4 more: build a resident"):
            resident.become(Recipe("passthrough", slices=slices))
    assert torch.equal(_logits(resident.model), logits)


def test_other_shapes_are_named(tmp_path: Path) -> None:
    models.llama(tmp_path / "a", layers=2)
    models.llama(tmp_path / "wide", layers=2, hidden=64)
    engine = materializer(tmp_path, "a", "wide")
    resident = ResidentModel(engine, _only("a"))
    with pytest.raises(
        BuildFailed, match=r"'lm_head.weight' has shape \[64, 64\], expected \[64, 32"
    ):
        resident.become(_only("wide"))


@pytest.fixture
def mixed(tmp_path: Path, llamas: Path) -> tuple[Path, Materializer]:
    shutil.copytree(llamas / "base", tmp_path / "untied")
    models.llama(tmp_path / "tied", seed=9, layers=4, tied=True)
    return tmp_path, materializer(tmp_path, "tied", "untied")


def test_a_tied_recipe_in_an_untied_model(mixed: tuple[Path, Materializer]) -> None:
    root, engine = mixed
    resident = ResidentModel(engine, _only("untied"))
    for name in ("tied", "untied", "tied"):
        resident.become(_only(name))
        assert torch.equal(_logits(resident.model), _logits(_loaded(root / name)))


def test_an_untied_recipe_in_a_tied_model_is_refused(mixed: tuple[Path, Materializer]) -> None:
    root, engine = mixed
    resident = ResidentModel(engine, _only("tied"))
    resident.become(_only("tied"))
    assert torch.equal(_logits(resident.model), _logits(_loaded(root / "tied")))
    with pytest.raises(BuildFailed, match="has a head of its own, the resident model ties it"):
        resident.become(_only("untied"))
    assert torch.equal(_logits(resident.model), _logits(_loaded(root / "tied")))


@pytest.mark.parametrize("make", [models.qwen2, models.gpt2])
def test_other_architectures(tmp_path: Path, make: Any) -> None:
    for seed, name in enumerate(("a", "b")):
        make(tmp_path / name, seed=seed)
    engine = materializer(tmp_path, "a", "b")
    resident = ResidentModel(engine, _only("a"))
    resident.become(_only("b"))
    assert torch.equal(_logits(resident.model), _logits(_loaded(tmp_path / "b")))


def test_old_files_without_the_base_prefix_and_with_masks(tmp_path: Path) -> None:
    directory = models.gpt2(tmp_path / "a")
    expected = _logits(_loaded(directory))
    tensors = models.read_tensors(directory)
    changes: dict[str, torch.Tensor | None] = dict.fromkeys(tensors)
    changes |= {name.removeprefix("transformer."): value for name, value in tensors.items()}
    changes |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(2)}
    models.rewrite(directory, changes)
    resident = ResidentModel(materializer(tmp_path, "a"), _only("a"))
    resident.become(_only("a"))
    assert torch.equal(_logits(resident.model), expected)


def test_the_tokenizer_is_the_donors(engine: Materializer) -> None:
    resident = ResidentModel(engine, _task(1.0))
    assert resident.tokenizer("w0 nonsense w59").input_ids == [4, 3, 63]
    assert resident.tokenizer is resident.tokenizer


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_compiled_kernels_on_several_threads_give_the_same_model(
    llamas: Path, monkeypatch: pytest.MonkeyPatch, dtype: str | None
) -> None:
    trimmed = Recipe(
        "ties",
        (source("math", weight=0.7, density=0.4), source("code", weight=0.5, density=0.6)),
        base_model="base",
        dtype=dtype,
    )
    # The resident model holds float32 in both cases: the second one is staged.
    expected = ResidentModel(materializer(llamas, "base", "math", "code"), _task(1.0))
    expected.become(trimmed)
    with _three_threads(llamas, monkeypatch) as engine:
        resident = ResidentModel(engine, _task(1.0))
        resident.become(trimmed)
        opposite = source("math", weight=1.0), source("code", weight=-1.0)
        with pytest.raises(BuildFailed, match="holds NaN or Inf"):
            resident.become(linear(*opposite, normalize=True))
        resident.become(trimmed)
    for name, value in expected.model.state_dict().items():
        assert torch.equal(resident.model.state_dict()[name], value), name


def test_no_thread_writes_on_after_a_failure(llamas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, others, written = Semaphore(), Semaphore(0), list[str]()

    def check(name: str, value: torch.Tensor) -> None:
        del value
        if first.acquire(blocking=False):
            others.acquire(timeout=10)  # fails while another write is under way
            raise BuildFailed([name])
        others.release()
        sleep(0.2)
        written.append(name)

    monkeypatch.setattr(resident_module, "assert_finite", check)
    with _three_threads(llamas, monkeypatch) as engine:
        resident = ResidentModel(engine, _task(1.0))
        with pytest.raises(BuildFailed):
            resident.become(_task(1.0))
        before = list(written)
        sleep(0.5)
    assert before
    assert written == before


@contextmanager
def _three_threads(llamas: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Materializer]:
    monkeypatch.setattr(materialize, "choose_kernels", lambda _elements: COMPILED)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        engine = materializer(llamas, "base", "math", "code")
        assert engine.threads == 3
        yield engine
    finally:
        torch.set_num_threads(threads)
