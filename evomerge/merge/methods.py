"""The one table from a merge method's name to its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evomerge.merge.angles import karcher, model_stock, multislerp, nuslerp
from evomerge.merge.arcee_fusion import ArceeFusion
from evomerge.merge.drawing import RandomShare, RankedShare
from evomerge.merge.kernels import Kernels
from evomerge.merge.method import MergeMethod
from evomerge.merge.nearswap import NearSwap
from evomerge.merge.ram import Ram, ram, ramplus
from evomerge.merge.sce import Sce
from evomerge.merge.span import ScaledCopy, SpanOfParents, WeightedSum, linear, slerp
from evomerge.merge.task_vector_span import SpanOfTaskVectors
from evomerge.merge.task_vectors import SignElection, TaskVectorSum
from evomerge.merge.trimming import Everything, LargestShare, MiddleShare


def merge_methods(kernels: Kernels) -> Mapping[str, MergeMethod]:
    """Every method, running on `kernels`; all of `evomerge.signatures.SIGNATURES` but stacks.

    Row- and column-wise angles, nearswap, ram, ramplus_tl and arcee_fusion walk in torch whatever
    the kernels are.
    """
    return MappingProxyType(
        {
            "linear": WeightedSum(linear, kernels),
            "passthrough": ScaledCopy(kernels),
            "slerp": SpanOfParents(slerp, kernels),
            "task_arithmetic": TaskVectorSum(Everything(), kernels),
            "ties": SignElection(LargestShare(kernels), kernels),
            "dare_linear": TaskVectorSum(RandomShare(kernels), kernels),
            "dare_ties": SignElection(RandomShare(kernels), kernels),
            "breadcrumbs": TaskVectorSum(MiddleShare(kernels), kernels),
            "breadcrumbs_ties": SignElection(MiddleShare(kernels), kernels),
            "della_linear": TaskVectorSum(RankedShare(kernels), kernels),
            "della": SignElection(RankedShare(kernels), kernels),
            "model_stock": SpanOfTaskVectors(model_stock, kernels),
            "nuslerp": SpanOfTaskVectors(nuslerp, kernels),
            "multislerp": SpanOfTaskVectors(multislerp, kernels),
            "karcher": SpanOfParents(karcher, kernels),
            "nearswap": NearSwap(),
            "sce": Sce(kernels),
            "ram": Ram(ram, counts=False),
            "ramplus_tl": Ram(ramplus, counts=True),
            "arcee_fusion": ArceeFusion(),
        }
    )
