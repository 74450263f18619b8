"""METHODS: the one table from a merge method's name to its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evomerge.merge.combine import SignVote, Sum
from evomerge.merge.largest_share import LargestShare
from evomerge.merge.method import MergeMethod
from evomerge.merge.middle_share import MiddleShare
from evomerge.merge.random_share import RandomShare
from evomerge.merge.ranked_share import RankedShare
from evomerge.merge.span import SpanOfParents, WeightedSum, linear, passthrough, slerp
from evomerge.merge.sparsify import Everything
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
    }
)
"""Which row a method is; the keys are those of `evomerge.signatures.SIGNATURES`."""
