"""How many bytes of computed tensors the user's cache may have to hold for a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from evomerge.recipe import Recipe
from evomerge.run.baselines import baselines
from evomerge.signatures import SIGNATURES
from evomerge.space import Place, SearchSpace
from evomerge.weights.adapted_checkpoint import AdaptedCheckpoint
from evomerge.weights.expansion import Target
from evomerge.weights.learned import WORTH_KEEPING
from evomerge.weights.pool import ParentPool

_TABLE_BYTES = 130_000
"""Of a table of magnitudes or variances: the digits that occur, for float32 task vectors."""
_ENTRY_BYTES = 16
_MAGNITUDES = frozenset({"ties", "breadcrumbs", "breadcrumbs_ties"})
_VARIANCES = frozenset({"sce"})
_RANKS = frozenset({"della", "della_linear"})


def method_recipes(space: SearchSpace) -> dict[str, Recipe]:
    """A recipe of every merge method that the search or its baselines use: first the start's."""
    start = space.decode(space.start)
    found = {start.merge_method: start}
    for name in SIGNATURES if space.methods_vary else ():

        def choose(place: Place, wanted: str = name) -> str | None:
            return wanted if place.parameter == "merge_method" else None

        chosen = space.decode(space.encode(choose))
        found.setdefault(chosen.merge_method, chosen)
    for baseline in baselines(space):
        found.setdefault(baseline.recipe.merge_method, baseline.recipe)
    return found


def aligned_bytes(targets: Sequence[Target]) -> int:
    """Embeddings and heads with the rows of a common vocabulary."""
    return sum(
        prod(item.shape) * item.info.itemsize
        for target in targets
        for item in target.inputs
        if item.alignment is not None
    )


def adapter_bytes(parents: ParentPool) -> int:
    """The tensors that adapters change."""
    stores = [parents.parent(model).checkpoint for model in parents.models]
    adapted = [store for store in stores if isinstance(store, AdaptedCheckpoint)]
    return sum(store.infos()[name].nbytes for store in adapted for name in store.changed)


def statistic_bytes(space: SearchSpace, targets: Sequence[Target]) -> int:
    """What methods learn about the parents; small models' statistics are never kept on disk."""
    sizes = [
        prod(target.inputs[0].shape)
        for target in targets
        if target.part is not None and target.inputs[0].info.is_mergeable
    ]
    if sum(sizes) < WORTH_KEEPING:
        return 0
    return sum(_statistics_of(space, sizes))


def _statistics_of(space: SearchSpace, sizes: Sequence[int]) -> Iterator[int]:
    """Per kind of statistic: the methods of one family share theirs."""
    found = method_recipes(space)
    vectors = len(space.parents)
    tables = vectors * sum(min(_TABLE_BYTES, _ENTRY_BYTES * size) for size in sizes)
    for users, nbytes in (
        (_MAGNITUDES, tables),
        (_VARIANCES, tables),
        (_RANKS, vectors * sum(sizes)),
    ):
        if users & found.keys():
            yield nbytes
