"""What must agree before the tensors of two models may be mixed; reads headers, no weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.weights import model_config
from evomerge.weights.checkpoint import StoredModel
from evomerge.weights.headers import TensorInfo
from evomerge.weights.json_files import read_json
from evomerge.weights.layout import (
    Layout,
    Section,
    has_vocabulary_axis,
    is_head,
    is_token_embedding,
    layer_count,
)
from evomerge.weights.towers import Tower, Towers
from evomerge.weights.vocabulary_file import TOKENIZER_FILE, tokens_of

_SHOWN = 5
_SECOND_BIAS = ".decoder.bias"


@dataclass(frozen=True)
class Parent:
    """One opened model and the places of its tensors; `name` is what recipes call it."""

    name: str
    checkpoint: StoredModel
    layout: Layout

    @cached_property
    def towers(self) -> Towers:
        """The model's modules."""
        multimodal = model_config.is_multimodal(self.checkpoint.config)
        return Towers.of(self.checkpoint.infos(), multimodal=multimodal)

    @property
    def layer_count(self) -> int | None:
        """The number of layers that the config promises, else that the longest stack has."""
        stacks = self.towers.main.layout.stacks.values()
        return layer_count(self.checkpoint.config) or max(stacks, default=None)

    @property
    def embedding_rows(self) -> int | None:
        """The number of rows of the token embedding; None when there is none that we know."""
        name = self.towers.main.token_embedding
        return None if name is None else self.checkpoint.infos()[name].shape[0]

    def main_stack(self, tower: Tower) -> str | None:
        """The stack of layers that slices are about: the only one, or the one of promised size.

        None for encoder-decoders: a slice would have to say which of the two it means.
        """
        stacks = tower.layout.stacks
        promised = model_config.promised_layers(self.checkpoint.config)
        fitting = [name for name, count in stacks.items() if promised and count in promised[0]]
        found = list(stacks) if len(stacks) == 1 else fitting if len(promised) == 1 else []
        return found[0] if len(found) == 1 else None

    def find(self, tower: Tower, local: str) -> str | None:
        """The stored tensor that plays the part of `local` in `tower`; None when there is none.

        A tied model's embedding stands in for a head and for further copies of it, a bias for the
        second name it may have in a head.
        """
        if local in tower.stored:
            return tower.stored[local]
        if is_head(local) and tower.head is None and self.is_tied:
            return tower.token_embedding
        if is_token_embedding(local) and model_config.ties_embeddings(self.checkpoint.config):
            return tower.token_embedding
        if local.endswith(_SECOND_BIAS):
            return tower.stored.get(f"{local.removesuffix(_SECOND_BIAS)}.bias")
        return None

    @property
    def is_tied(self) -> bool:
        """Whether the embedding serves as head."""
        config = self.checkpoint.config
        tied = model_config.has_head(config) and model_config.ties_embeddings(config)
        return tied and self.layout.head is None


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
    for counts in model_config.promised_layers(config):
        if set(counts).isdisjoint(stacks.values()):
            stored = ", ".join(f"{count} in {stack}" for stack, count in stacks.items()) or "none"
            lines.append(
                f"{subject}: config.json promises {counts[0]} layers, the weights have {stored}: "
                "download the model again"
            )
    if model_config.is_causal(config) and not parent.is_tied and not _scores_tokens(parent):
        lines.append(
            f"{subject}: no lm_head.weight and a config that does not tie embeddings: "
            "download the model again"
        )
    return lines


def _scores_tokens(parent: Parent) -> bool:
    """Whether a head is stored, be it under a name that we do not know."""
    rows = model_config.vocabulary_size(parent.checkpoint.config)
    later = (parent.checkpoint.infos()[n] for n in parent.layout.unnumbered(Section.POST))
    known = parent.layout.head is not None
    return known or any(len(info.shape) == 2 and info.shape[0] == rows for info in later)


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
    # A text model is compared with the language tower of a multimodal one, whatever their classes.
    alike = parent.towers.is_multimodal == donor.towers.is_multimodal
    names = [model_config.architecture(config) if alike else None for config in (mine, other)]
    facts: tuple[tuple[str, object, object], ...] = (
        ("architecture", names[0], names[1]),
        ("hidden size", model_config.hidden_size(mine), model_config.hidden_size(other)),
    )
    lines = [_differs(parent, donor, what, mine, other) for what, mine, other in facts]
    return [line for line in lines if line is not None]


def depth_problem(parent: Parent, donor: Parent) -> str | None:
    """How the layer counts differ; only slices can merge such parents."""
    return _differs(parent, donor, "layer count", parent.layer_count, donor.layer_count)


def vocabulary_problems(parent: Parent, donor: Parent) -> list[str]:
    """How the vocabulary of `parent` differs from that of `donor`, in at most one line."""
    mine, other = parent.checkpoint, donor.checkpoint
    sizes = [model_config.vocabulary_size(c.config) for c in (mine, other)]
    rows = [p.embedding_rows for p in (parent, donor)]
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
    mine, other = parent.towers.main, donor.towers.main
    missing = [
        f"{subject}: tensor '{mine.full_name(local, other)}' is missing, '{donor.name}' has it: "
        "replace the model"
        for local in _within(donor, depth)
        if parent.find(mine, local) is None
    ]
    extra = [
        f"{subject}: tensor '{mine.stored[local]}' has no counterpart in '{donor.name}': "
        "replace the model"
        for local in _within(parent, depth)
        if donor.find(other, local) is None
    ]
    shared = [local for local in other.stored if local in mine.stored]
    if not shared:
        return []  # models of different kinds: their architectures say it all
    pairs = [(_info(parent, local), _info(donor, local)) for local in shared]
    unequal = [_unequal(parent, donor, *pair) for pair in pairs]
    shapes = [line for line in (_shape_problem(*pair, subject) for pair in pairs) if line]
    return [
        line
        for kind in (missing, extra, shapes, [line for line in unequal if line])
        for line in capped(kind, subject)
    ]


def _info(parent: Parent, local: str) -> TensorInfo:
    return parent.checkpoint.infos()[parent.towers.main.stored[local]]


def _within(parent: Parent, depth: int) -> list[str]:
    """The weights outside the layers and in the first `depth` of them, by local name.

    Buffers of integers are left out: some files of a model family have them, others not.
    """
    tower = parent.towers.main
    inside = [n for n, place in tower.layout.places.items() if (place.layer or 0) < max(depth, 1)]
    return [local for local in inside if _info(parent, local).is_mergeable]


def _shape_problem(mine: TensorInfo, other: TensorInfo, subject: str) -> str | None:
    # The number of rows belongs to the vocabulary, which has its own line.
    rows_only = has_vocabulary_axis(mine.name) and mine.shape[1:] == other.shape[1:]
    if mine.shape == other.shape or rows_only:
        return None
    return (
        f"{subject}: tensor '{mine.name}' has shape {list(mine.shape)}, "
        f"expected {list(other.shape)}: replace the model"
    )


def _unequal(parent: Parent, donor: Parent, mine: TensorInfo, other: TensorInfo) -> str | None:
    """Tensors that cannot be averaged must be the same in all parents: they are copied."""
    if mine.is_mergeable and other.is_mergeable:
        return None
    if mine.shape != other.shape:
        return None
    stores = parent.checkpoint, donor.checkpoint
    if mine.dtype == other.dtype and stores[0].get(mine.name).equal(stores[1].get(other.name)):
        return None
    return (
        f"model '{parent.name}': tensor '{mine.name}' of type {mine.dtype} differs from that of "
        f"'{donor.name}' ({other.dtype}) and cannot be averaged: use full-precision models"
    )
