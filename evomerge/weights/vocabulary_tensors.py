"""Which stored tensors have one row per token, and whether an alignment changes their rows."""

from __future__ import annotations

from evomerge.errors import PreflightFailed
from evomerge.weights.compatibility import Parent
from evomerge.weights.headers import TensorInfo
from evomerge.weights.layout import has_vocabulary_axis
from evomerge.weights.vocabulary import Alignment

_SECOND_AXIS = "final_logits_bias"


def changing(alignment: Alignment, parent: Parent, info: TensorInfo) -> Alignment | None:
    """The alignment, if the rows of the stored tensor `info` are tokens and it changes them.

    Raises:
        PreflightFailed: the tensor's rows are not those of the embedding.
    """
    if info.name.endswith(_SECOND_AXIS):
        raise PreflightFailed(
            f"model '{parent.name}': tensor '{info.name}' has its vocabulary along the second "
            "axis, which is not supported: remove the recipe's tokenizer"
        )
    if not has_vocabulary_axis(info.name):
        return None
    if info.name not in parent.towers.main.stored.values():
        return None  # other modules have tokens of their own
    rows = info.shape[0]
    if rows != parent.embedding_rows:
        raise PreflightFailed(
            f"model '{parent.name}': tensor '{info.name}' has {rows} rows, its embedding "
            f"{parent.embedding_rows}: replace the model"
        )
    return None if alignment.keeps(parent.name, rows) else alignment
