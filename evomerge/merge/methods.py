"""METHODS: the one table from a merge method's name to its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evomerge.merge.angles import karcher, model_stock, multislerp, nuslerp
from evomerge.merge.arcee_fusion import ArceeFusion
from evomerge.merge.combine import SignVote, Sum
from evomerge.merge.largest_share import LargestShare
from evomerge.merge.method import MergeMethod
from evomerge.merge.middle_share import MiddleShare
from evomerge.merge.nearswap import NearSwap
from evomerge.merge.ram import Ram, ram, ramplus
from evomerge.merge.random_share import RandomShare
from evomerge.merge.ranked_share import RankedShare
from evomerge.merge.sce import Sce
from evomerge.merge.span import SpanOfParents, WeightedSum, linear, passthrough, slerp
from evomerge.merge.sparsify import Everything
from evomerge.merge.task_vector_span import Along, SpanOfTaskVectors
from evomerge.merge.task_vectors import TaskVectors

METHODS: Mapping[str, MergeMethod] = MappingProxyType(
    {
        "linear": WeightedSum(linear),
        "passthrough": WeightedSum(passthrough),
        "slerp": SpanOfParents(slerp),
        "task_arithmetic": TaskVectors(Everything(), Sum),
        "ties": TaskVectors(LargestShare(), SignVote),
        "dare_linear": TaskVectors(RandomShare(), Sum),
        "dare_ties": TaskVectors(RandomShare(), SignVote),
        "breadcrumbs": TaskVectors(MiddleShare(), Sum),
        "breadcrumbs_ties": TaskVectors(MiddleShare(), SignVote),
        "della_linear": TaskVectors(RankedShare(), Sum),
        "della": TaskVectors(RankedShare(), SignVote),
        "model_stock": SpanOfTaskVectors(model_stock, Along.WHOLE, Along.LAST),
        "nuslerp": SpanOfTaskVectors(nuslerp, Along.WHOLE, Along.LAST, Along.FIRST),
        "multislerp": SpanOfTaskVectors(multislerp, Along.WHOLE),
        "karcher": SpanOfParents(karcher),
        "nearswap": NearSwap(),
        "sce": Sce(),
        "ram": Ram(ram, counts=False),
        "ramplus_tl": Ram(ramplus, counts=True),
        "arcee_fusion": ArceeFusion(),
    }
)
"""Which row a method is; the keys are those of `evomerge.signatures.SIGNATURES`."""
