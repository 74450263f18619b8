from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig

from evomerge.errors import BuildFailed, InvalidInput, PreflightFailed
from evomerge.recipe import Recipe, Source
from evomerge.stack import Segment, hops, path_of, recipe_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from tests import models, stacks


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stacks")
    stacks.parents("llama", root)
    return root


@pytest.fixture(scope="module")
def pool(llamas: Path) -> ParentPool:
    return ParentPool.open(["a", "b"], llamas)


def _recipe(*segments: Segment, donor: str = "a", dtype: str | None = None) -> Recipe:
    return recipe_of(segments, donor=donor, scale_mode="stream", dtype=dtype)


def _reference(root: Path, recipe: Recipe) -> torch.Tensor:
    """A stack of llamas by the book: every hop in turn, without a cache, scales on the stream."""
    parents = {name: LlamaForCausalLM.from_pretrained(root / name).eval() for name in "ab"}
    donor = parents[recipe.donor].model
    with torch.no_grad():
        stream = donor.embed_tokens(stacks.texts())
        count = stream.shape[1]
        rotation = donor.rotary_emb(stream, torch.arange(count)[None])
        unseen = torch.full((count, count), -torch.inf).triu(1)[None, None]
        added = torch.zeros_like(stream)
        for hop in hops(path_of(recipe)):
            layer = parents[hop.model].model.layers[hop.layer]
            if recipe.scale_mode == "stream":
                stream = hop.gain * stream
            else:
                stream = stream - added + hop.gain * added
            attended, _ = layer.self_attn(layer.input_layernorm(stream), rotation, unseen)
            stream = stream + attended
            added = layer.mlp(layer.post_attention_layernorm(stream))
            stream = stream + added
        logits: torch.Tensor = parents[recipe.donor].lm_head(donor.norm(stream))
    return logits


@pytest.mark.parametrize("mode", ["stream", "mlp_delta"])
@pytest.mark.parametrize("donor", ["a", "b"])
def test_scales_act_as_their_mode_says(
    llamas: Path, pool: ParentPool, mode: str, donor: str
) -> None:
    recipe = stacks.tangled(mode, donor=donor)
    resident = ResidentStack(pool)
    resident.become(recipe)
    torch.testing.assert_close(
        stacks.logits(resident.model), _reference(llamas, recipe), atol=2e-5, rtol=0
    )


def test_whole_parents_are_themselves(llamas: Path, pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    for name, depth in zip("ab", stacks.DEPTHS, strict=True):
        resident.become(_recipe(Segment(name, 0, depth), donor=name))
        parent = LlamaForCausalLM.from_pretrained(llamas / name).eval()
        assert torch.equal(stacks.logits(resident.model), stacks.logits(parent))


def test_one_model_object_becomes_stack_after_stack(pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    first, second = stacks.tangled("stream"), stacks.tangled("mlp_delta", seed=1, donor="b")
    resident.become(first)
    model, expected = resident.model, stacks.logits(resident.model)
    resident.become(second)
    other = stacks.logits(resident.model)
    assert not torch.allclose(other, expected, atol=1e-2)
    for _ in range(2):
        resident.become(first)
        assert torch.equal(stacks.logits(resident.model), expected)
    assert resident.model is model
    assert not model.training


def test_hops_share_weights_but_not_their_number(pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    resident.become(_recipe(Segment("a", 0, 4), Segment("a", 2, 5, 1.2), donor="a"))
    layers = resident.model.model.layers
    one, again = layers[2], layers[4]
    assert [layer.self_attn.layer_idx for layer in layers] == list(range(7))
    stored = pool.get("a", "model.layers.2.mlp.up_proj.weight")
    assert one.mlp.up_proj.weight.data_ptr() == stored.data_ptr()
    assert again.mlp.up_proj.weight.data_ptr() == stored.data_ptr()
    assert len(resident.model.model.layers) == resident.model.config.num_hidden_layers == 7
    # a hook of one hop is none of the other's
    assert again._forward_pre_hooks
    assert not one._forward_pre_hooks


def test_weights_of_the_wanted_type_are_the_mapped_files(pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    resident.become(stacks.tangled("stream"))
    mapped = _ranges_of_files(Path("/proc/self/maps").read_text().splitlines())
    state = resident.model.state_dict()
    assert all(any(low <= t.data_ptr() < high for low, high in mapped) for t in state.values())
    buffers = dict(resident.model.named_buffers())
    assert not any(tensor.is_meta for tensor in (*state.values(), *buffers.values()))


def _ranges_of_files(lines: Iterable[str]) -> list[tuple[int, int]]:
    found = [line.split()[0].split("-") for line in lines if line.endswith(".safetensors")]
    return [(int(low, 16), int(high, 16)) for low, high in found]


def test_another_type_is_converted_once_for_all_hops(llamas: Path, pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    resident.become(_recipe(Segment("a", 0, 4), Segment("a", 2, 5), dtype="bfloat16"))
    layers = resident.model.model.layers
    assert {weight.dtype for weight in resident.model.parameters()} == {torch.bfloat16}
    assert layers[3].mlp.up_proj.weight.data_ptr() == layers[5].mlp.up_proj.weight.data_ptr()
    assert resident.model.model.rotary_emb.inv_freq.dtype == torch.float32
    resident.become(_recipe(Segment("a", 0, 5)))
    parent = LlamaForCausalLM.from_pretrained(llamas / "a").eval()
    assert torch.equal(stacks.logits(resident.model), stacks.logits(parent))


def test_hidden_states_are_those_of_the_latest_stack(pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    for depth in (3, 5, 4):
        resident.become(_recipe(Segment("a", 0, depth)))
        with torch.no_grad():
            states = resident.model(stacks.texts(), output_hidden_states=True).hidden_states
        assert len(states) == depth + 1


def test_donors_bring_their_vocabulary(tmp_path: Path) -> None:
    stacks.parents("llama", tmp_path)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=120,
        num_key_value_heads=2,
        num_hidden_layers=3,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        **shape,
    )
    stacks.write(config, tmp_path / "c", seed=9)
    models.save_tokenizer(tmp_path / "c", (*models.SPECIAL, "other"))
    models.save_tokenizer(tmp_path / "a")
    resident = ResidentStack(ParentPool.open(["a", "c"], tmp_path))
    for donor, size in (("a", 96), ("c", 120), ("a", 96)):
        resident.become(_recipe(Segment("a", 0, 3), Segment("c", 1, 3, 0.9), donor=donor))
        assert stacks.logits(resident.model).shape[-1] == resident.model.config.vocab_size == size
        tied = resident.model.lm_head.weight is resident.model.model.embed_tokens.weight
        assert tied == (donor == "c")
    assert resident.tokenizer("c")("other").input_ids == [4]
    assert resident.tokenizer("a")("w1 other").input_ids == [5, 3]


def test_kinds_that_only_another_parent_has_are_known(tmp_path: Path) -> None:
    windowed, full = stacks.FAMILIES["gemma3_text"](4), stacks.FAMILIES["gemma3_text"](4)
    windowed.layer_types, full.layer_types = ["sliding_attention"] * 4, ["full_attention"] * 4
    stacks.write(windowed, tmp_path / "a", seed=1)
    stacks.write(full, tmp_path / "b", seed=2)
    resident = ResidentStack(ParentPool.open(["a", "b"], tmp_path))
    for name in ("b", "a"):
        resident.become(_recipe(Segment(name, 0, 4), donor=name))
    resident.become(_recipe(Segment("a", 0, 2), Segment("b", 1, 4), donor="a"))
    expected = ["sliding_attention"] * 2 + ["full_attention"] * 3
    assert resident.model.config.layer_types == expected
    assert torch.isfinite(stacks.logits(resident.model)).all()


def test_what_is_wrong_is_said_in_one_line(pool: ParentPool) -> None:
    resident = ResidentStack(pool)
    with pytest.raises(InvalidInput, match=r"stack needs slices"):
        resident.become(Recipe("stack", models=(Source("a"),), scale_mode="stream"))
    with pytest.raises(PreflightFailed, match=r"slices\[1\]: layer_range \[2, 6\] of 'b', which"):
        resident.become(_recipe(Segment("a", 0, 2), Segment("b", 2, 6)))
    with pytest.raises(InvalidInput, match=r"'c' is not an opened parent"):
        resident.become(_recipe(Segment("a", 0, 2), Segment("c", 2, 6)))


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    stacks.write(stacks.FAMILIES["llama"](3), tmp_path / "a", seed=1)
    models.rewrite(tmp_path / "a", {"model.layers.1.mlp.up_proj.weight": None})
    resident = ResidentStack(ParentPool.open(["a"], tmp_path))
    with pytest.raises(BuildFailed, match=r"'a': its weights lack model.layers.1.mlp.up_proj"):
        resident.become(_recipe(Segment("a", 0, 3)))


def test_families_without_a_rule_stack_without_scales(tmp_path: Path) -> None:
    config = MambaConfig(
        vocab_size=stacks.VOCABULARY, hidden_size=32, num_hidden_layers=4, state_size=4
    )
    stacks.write(config, tmp_path / "a", seed=1)
    resident = ResidentStack(ParentPool.open(["a"], tmp_path))
    resident.become(_recipe(Segment("a", 0, 3), Segment("a", 2, 4)))
    assert stacks.logits(resident.model).shape[-1] == stacks.VOCABULARY
    with pytest.raises(PreflightFailed, match=r"no rule to fold scales into .* 'mamba' .*llama"):
        resident.become(_recipe(Segment("a", 0, 3), Segment("a", 2, 4, 1.1)))


def test_the_random_state_of_the_process_is_left_alone(pool: ParentPool) -> None:
    before = torch.get_rng_state()
    ResidentStack(pool).become(stacks.tangled("stream"))
    assert torch.equal(torch.get_rng_state(), before)
