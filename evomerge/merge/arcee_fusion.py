"""Arcee Fusion: elements whose change matters far more than most come from the other parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evomerge.merge.blockwise.histograms import Histogram, keys_at
from evomerge.merge.blockwise.walk import Walk, difference_, store_
from evomerge.merge.digits import TOP_SHIFT, DigitTable, order_statistic
from evomerge.merge.kernels import Digits
from evomerge.merge.method import Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype
from evomerge.merge.task_vector_span import Along

_FLOOR = 1e-8
_REACH = 1.5


@dataclass(frozen=True)
class Importance:
    """The KL divergence of each row (float64, shape (R,)) and the score from which to take over."""

    divergence: Tensor
    threshold: float


@final
class ImportanceStatistic:
    """Everything that there is to decide: row divergences and the threshold of the scores."""

    name = "importance"
    large = False

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """Five passes in torch: float64 exponentials and logarithms, and an exact quantile."""
        divergence_R = _divergence(parents)
        threshold = torch.tensor(_threshold(parents, divergence_R), dtype=torch.float64)
        return {"divergence": divergence_R, "threshold": threshold}

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """An `Importance`."""
        return Importance(tensors["divergence"], float(tensors["threshold"]))


@final
class ArceeFusion:
    """Takes an element over where |d| times its row's divergence exceeds median + 1.5 (q3 - q1).

    The divergence is that of the softmax of the row (last axis) in the other parent from that in
    the base. In float64 and over all elements: with fine-tuned models it is far below what float32
    resolves. The method has no paper.
    """

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - there are none
        """`Importance`."""
        return ImportanceStatistic()

    def merge(
        self,
        parents: Parents,
        state: State,
        values: Values,  # noqa: ARG002 - the method has no parameters
        out: Tensor,
    ) -> None:
        """Write the base with what is taken over; see `MergeMethod.merge`."""
        assert isinstance(state, Importance), "the state comes from this method's statistic"
        base, other = parents.flat
        target, dtype = out.view(-1), working_dtype(parents.flat)
        scores = _scores(parents, state.divergence)
        for block, (base_B, other_B) in Walk(out, rows=2, dtype=dtype):
            taken_B = next(scores) >= state.threshold
            base_B.copy_(base[block])
            store_(target[block], torch.where(taken_B, other_B.copy_(other[block]), base_B))


def _threshold(parents: Parents, divergence_R: Tensor) -> float:
    size, dtype = parents.flat[0].numel(), torch.float64

    def count(shift: int, prefix: int | None) -> Digits:
        histogram = Histogram((1 if prefix is None else 2) << 16, 1, divergence_R.device)
        for score_B in _scores(parents, divergence_R):
            keys_B, near_B = keys_at(score_B, shift, prefix)
            histogram.add(keys_B, (near_B,))
        return histogram.digits()

    if size == 0:
        return 0.0
    shift = TOP_SHIFT[dtype]
    table = DigitTable.of(count(shift, None), dtype, shift)
    low, middle, high = (
        order_statistic(table, size - int(share * (size - 1)), count) for share in (0.25, 0.5, 0.75)
    )
    return middle + _REACH * (high - low)


def _scores(parents: Parents, divergence_R: Tensor) -> Iterator[Tensor]:
    """Blocks of |d| times the row's divergence, float64."""
    base, other = parents.flat
    like = parents.tensors[0]
    for block, (base_B, delta_B) in Walk(base, rows=2, dtype=working_dtype(parents.flat)):
        difference_(delta_B, other[block], base_B.copy_(base[block]))
        yield delta_B.abs_().double() * divergence_R[Along.LAST.vector_of(block, like)]


def _divergence(parents: Parents) -> Tensor:
    """Sum P log(P / Q) of each row, with 1e-8 added to the chances P and Q."""
    like, (base, other) = parents.tensors[0], parents.flat
    total_R = torch.zeros(Along.LAST.count(like.shape), dtype=torch.float64, device=base.device)
    logs = [_log_normaliser(flat, like, total_R) for flat in (other, base)]
    for block, (p_B, q_B) in Walk(base, rows=2, dtype=torch.float64):
        row_B = Along.LAST.vector_of(block, like)
        for chance_B, flat, log_R in zip((p_B, q_B), (other, base), logs, strict=True):
            chance_B.copy_(flat[block]).sub_(log_R[row_B]).exp_().add_(_FLOOR)
        total_R.index_add_(0, row_B, q_B.div_(p_B).log_().neg_().mul_(p_B))
    # Both chances of a row sum to the same, so that only rounding makes this negative.
    return total_R.clamp_min_(0.0)


def _log_normaliser(flat: Tensor, like: Tensor, shape_R: Tensor) -> Tensor:
    """The logarithm of sum exp of each row, with the row's maximum taken out first."""
    peak_R = torch.full_like(shape_R, -torch.inf)
    sum_R = torch.zeros_like(shape_R)
    for block, (value_B,) in Walk(flat, rows=1, dtype=torch.float64):
        peak_R.scatter_reduce_(
            0, Along.LAST.vector_of(block, like), value_B.copy_(flat[block]), "amax"
        )
    for block, (value_B,) in Walk(flat, rows=1, dtype=torch.float64):
        row_B = Along.LAST.vector_of(block, like)
        sum_R.index_add_(0, row_B, value_B.copy_(flat[block]).sub_(peak_R[row_B]).exp_())
    return sum_R.log_().add_(peak_R)
