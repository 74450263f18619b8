"""Laws that hold for whole families of methods."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from evomerge.merge.drawing import Ranks
from evomerge.merge.method import Parents, Values, learn
from evomerge.signatures import SIGNATURES, Base
from tests.merge import cases
from tests.merge.merging import METHODS, merge

pytestmark = pytest.mark.usefixtures("block_size")


@pytest.mark.parametrize("name", ["linear", *cases.TASK_VECTOR_METHODS])
@given(data=st.data(), parents=cases.parents(low=2, floats=(torch.float32,)))
@settings(deadline=None, max_examples=40)
def test_the_order_of_parents_changes_nothing_beyond_rounding(
    name: str, data: st.DataObject, parents: Parents
) -> None:
    count = len(parents.others)
    # Positive weights without normalisation: no vote is decided by the last bit of a sum unless
    # deltas cancel exactly, which they do in either order when only two of them oppose.
    order = data.draw(st.permutations(range(count)))
    weights = data.draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=count, max_size=count))
    # Masks are drawn by position: at random, another order is another draw.
    shares = st.just(1.0) if name in cases.RANDOM_METHODS else cases.densities
    densities = data.draw(st.lists(shares, min_size=count, max_size=count))
    values = cases.values(weights, densities)
    if name == "linear":
        parents = Parents(None, parents.others, parents.streams)
    swapped = Parents(
        parents.base,
        tuple(parents.others[i] for i in order),
        tuple(parents.streams[i] for i in order),
    )
    swapped_values = Values(values.shared, tuple(values.models[i] for i in order))
    one, two = merge(name, parents, values), merge(name, swapped, swapped_values)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
@given(data=st.data(), parents=cases.parents(low=0))
@settings(deadline=None, max_examples=20)
def test_zero_weights_give_the_base(name: str, data: st.DataObject, parents: Parents) -> None:
    drawn = data.draw(cases.task_vector_values(len(parents.others)))
    values = Values(drawn.shared, tuple({**m, "weight": 0.0} for m in drawn.models))
    assert parents.base is not None
    assert torch.equal(merge(name, parents, values), parents.base)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
@given(parents=cases.parents(high=1), normalize=st.booleans())
@settings(deadline=None, max_examples=20)
def test_one_whole_task_vector_gives_the_parent(
    name: str, parents: Parents, normalize: bool
) -> None:
    out = merge(name, parents, cases.values([1.0], normalize=normalize), torch.float32)
    torch.testing.assert_close(out, parents.others[0].float(), rtol=0.0, atol=2e-7)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
def test_the_merged_task_vector_is_linear_in_lambda(name: str) -> None:
    parents = cases.random_parents(3, 200, dtype=torch.float64)
    assert parents.base is not None

    def change(scale: float) -> torch.Tensor:
        values = cases.values([0.5, 0.8, -0.3], [0.4, 0.6, 1.0], rescale=True, scale=scale)
        assert parents.base is not None
        return merge(name, parents, values) - parents.base

    assert change(1.0).abs().max() > 1e-5
    torch.testing.assert_close(change(-2.5), -2.5 * change(1.0), rtol=1e-9, atol=1e-16)


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the size of the largest storage that an operation created."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.largest = max(self.largest, storage.nbytes())
        return result


@pytest.mark.parametrize("name", sorted(METHODS))
def test_merging_needs_no_memory_in_proportion_to_the_tensor(name: str, block_size: int) -> None:
    if block_size < 1000:
        pytest.skip("millions of elements in tiny blocks")
    signature = SIGNATURES[name]
    count = signature.maximum or 3
    flat = cases.random_parents(count, 1 << 22, dtype=torch.bfloat16)
    assert flat.base is not None
    # A matrix: DELLA ranks whole rows.
    others = tuple(other.view(1 << 11, -1) for other in flat.others)
    parents = Parents(flat.base.view(1 << 11, -1), others, flat.streams)
    if signature.base is Base.IGNORED:
        parents = Parents(None, parents.others, parents.streams)
    values = cases.declared(name, count)
    out = torch.empty_like(parents.others[0])
    state = learn(METHODS[name], parents, values)
    planes = list(state.ranks) if isinstance(state, Ranks) else []
    with _Allocations([*parents.tensors, *planes, out]) as allocations:
        METHODS[name].merge(parents, state, values, out)
    assert 0 < allocations.largest <= out.numel(), "at most one byte per element"
