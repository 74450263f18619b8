"""What must agree before the tensors of two models may be mixed; reads headers, no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.weights import model_config
from evomerge.weights.checkpoint import Checkpoint
from evomerge.weights.headers import TensorInfo
from evomerge.weights.json_files import read_json
from evomerge.weights.layout import (
    Layout,
    has_vocabulary_axis,
    is_head,
    layer_count,
    place_of,
)
from evomerge.weights.vocabulary_file import TOKENIZER_FILE, tokens_of

_SHOWN = 5


@dataclass(frozen=True)
class Parent:
    """One opened model and the places of its tensors; `name` is what recipes call it."""

    name: str
    checkpoint: Checkpoint
    layout: Layout

    @property
    def layer_count(self) -> int | None:
        """The number of layers that the config promises, else that the longest stack has."""
        stacks = self.layout.stacks.values()
        return layer_count(self.checkpoint.config) or max(stacks, default=None)

    def stored_name(self, tensor: str) -> str | None:
        """The stored tensor that plays the part of `tensor`; None when there is none.

        A model that ties its embeddings and stores no head answers with its embedding for a head.
        """
        if tensor in self.checkpoint.infos():
            return tensor
        if is_head(tensor) and self.layout.head is None and self.is_tied:
            return self.layout.token_embedding
        return None

    @property
    def is_tied(self) -> bool:
        """Whether the embedding serves as head."""
        return self.layout.head is None and model_config.ties_embeddings(self.checkpoint.config)


def incompatibilities(parent: Parent, donor: Parent) -> list[str]:
    """Every way in which `parent` does not fit `donor` besides its vocabulary, one line each."""
    return [*_config_problems(parent, donor), *_tensor_problems(parent, donor)]


def own_problems(parent: Parent) -> list[str]:
    """Why `parent` cannot take part in any merge, one line each."""
    config, stacks = parent.checkpoint.config, parent.layout.stacks
    subject = f"model '{parent.name}'"
    lines = []
    method = model_config.quantization(config)
    if method is not None:
        lines.append(f"{subject}: quantised weights ({method}): use the full-precision model")
    promised = layer_count(config)
    if promised is not None and promised not in stacks.values():
        stored = ", ".join(f"{count} in {stack}" for stack, count in stacks.items()) or "none"
        lines.append(
            f"{subject}: config.json promises {promised} layers, the weights have {stored}: "
            "download the model again"
        )
    if parent.layout.head is None and not parent.is_tied:
        lines.append(
            f"{subject}: no lm_head.weight and a config that does not tie embeddings: "
            "use a causal language model"
        )
    return lines


def capped(lines: list[str], subject: str) -> list[str]:
    """At most five of many similar lines, then one that counts the rest."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"{subject}: ... and {more} more"] if more > 0 else lines


def vocabulary_digest(directory: Path) -> str | None:
    """A hash of the tokens and their ids in tokenizer.json; None when there is no such file.

    Raises:
        InvalidInput: the file is damaged.
    """
    path = directory / TOKENIZER_FILE
    if not path.exists():
        return None
    model: Any = read_json(path, max_mib=256).get("model")
    vocabulary = tokens_of(model) if isinstance(model, dict) else None
    if vocabulary is None:
        return None
    return hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest()


def _config_problems(parent: Parent, donor: Parent) -> list[str]:
    mine, other = parent.checkpoint.config, donor.checkpoint.config
    facts: tuple[tuple[str, object, object], ...] = (
        ("architecture", model_config.architecture(mine), model_config.architecture(other)),
        ("hidden size", model_config.hidden_size(mine), model_config.hidden_size(other)),
        ("layer count", parent.layer_count, donor.layer_count),
    )
    lines = [_differs(parent, donor, what, mine, other) for what, mine, other in facts]
    return [line for line in lines if line is not None]


def vocabulary_problems(parent: Parent, donor: Parent) -> list[str]:
    """How the vocabulary of `parent` differs from that of `donor`, in at most one line."""
    mine, other = parent.checkpoint, donor.checkpoint
    sizes = [model_config.vocabulary_size(c.config) for c in (mine, other)]
    rows = [_embedding_rows(p) for p in (parent, donor)]
    facts: tuple[tuple[str, object, object], ...] = (
        ("vocabulary size", sizes[0], sizes[1]),
        ("embedding rows", rows[0], rows[1]),
    )
    differences = [
        f"{what} {first}, not {second}"
        for what, first, second in facts
        if first is not None and second is not None and first != second
    ]
    digests = [vocabulary_digest(c.directory) for c in (mine, other)]
    if None not in digests and digests[0] != digests[1]:
        differences.append(f"other tokens in {TOKENIZER_FILE}")
    if not differences:
        return []
    return [
        f"model '{parent.name}': its vocabulary is not that of '{donor.name}' "
        f"({'; '.join(differences)}): add tokenizer_source: base or union to the recipe"
    ]


def _embedding_rows(parent: Parent) -> int | None:
    name = parent.layout.token_embedding
    return None if name is None else parent.checkpoint.infos()[name].shape[0]


def _differs(parent: Parent, donor: Parent, what: str, mine: object, other: object) -> str | None:
    if mine is None or other is None or mine == other:
        return None
    return (
        f"model '{parent.name}': {what} {mine}, but '{donor.name}' has {other}: "
        "choose parents of one shape"
    )


def _tensor_problems(parent: Parent, donor: Parent) -> list[str]:
    """Tensors that only one model has or that differ; layers beyond the shorter are not listed."""
    depth = min(parent.layer_count or 0, donor.layer_count or 0)
    subject = f"model '{parent.name}'"
    mine, other = parent.checkpoint.infos(), donor.checkpoint.infos()
    missing = [
        f"{subject}: tensor '{name}' is missing, '{donor.name}' has it: replace the model"
        for name in _within(other, depth)
        if parent.stored_name(name) is None
    ]
    extra = [
        f"{subject}: tensor '{name}' has no counterpart in '{donor.name}': replace the model"
        for name in _within(mine, depth)
        if donor.stored_name(name) is None
    ]
    shared = [name for name in _within(other, depth) if name in mine]
    unequal = [_unequal(parent, donor, name) for name in shared]
    shapes = [line for line in (_shape_problem(mine[n], other[n], subject) for n in shared) if line]
    return [
        line
        for kind in (missing, extra, shapes, [line for line in unequal if line])
        for line in capped(kind, subject)
    ]


def _within(names: Iterable[str], depth: int) -> list[str]:
    """The names outside the layers and in the first `depth` of them."""
    return [name for name in names if (place_of(name).layer or 0) < max(depth, 1)]


def _shape_problem(mine: TensorInfo, other: TensorInfo, subject: str) -> str | None:
    # The number of rows belongs to the vocabulary, which has its own line.
    rows_only = has_vocabulary_axis(mine.name) and mine.shape[1:] == other.shape[1:]
    if mine.shape == other.shape or rows_only:
        return None
    return (
        f"{subject}: tensor '{mine.name}' has shape {list(mine.shape)}, "
        f"expected {list(other.shape)}: replace the model"
    )


def _unequal(parent: Parent, donor: Parent, name: str) -> str | None:
    """Tensors that cannot be averaged must be the same in all parents: they are copied."""
    mine, other = parent.checkpoint.infos()[name], donor.checkpoint.infos()[name]
    if mine.is_mergeable and other.is_mergeable:
        return None
    if mine.shape != other.shape:
        return None
    same_type = mine.dtype == other.dtype
    if same_type and parent.checkpoint.get(name).equal(donor.checkpoint.get(name)):
        return None
    return (
        f"model '{parent.name}': tensor '{name}' of type {mine.dtype} differs from that of "
        f"'{donor.name}' ({other.dtype}) and cannot be averaged: use full-precision models"
    )
