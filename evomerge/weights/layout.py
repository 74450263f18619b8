"""Where a tensor sits in a model, told from its name: embeddings, a numbered layer, or the end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")

_NUMBERED = re.compile(r"^(?P<stack>.+?)\.(?P<layer>\d{1,6})\.(?P<rest>.+)$")
_HEADS = (
    "lm_head.weight",
    "embed_out.weight",
    "lm_head.decoder.weight",
    "predictions.decoder.weight",
    "vocab_projector.weight",
    "generator_lm_head.weight",
    "lm_loss.weight",
)
# Too short to be an ending: other matrices have such names deeper inside a model.
_WHOLE_HEADS = ("decoder.weight", "output.weight", "proj_out.weight")
# Heads whose bias lies beside the matrix, not in one module with it.
_HEAD_BIASES = ("predictions.",)
# Encoder-decoders keep the matrix under the first name and may store copies under the second.
_EMBEDDINGS = (
    "shared.weight",
    "embed_tokens.weight",
    "embed_in.weight",
    "wte.weight",
    "word_embeddings.weight",
    "word_embedding.weight",
    "tok_embeddings.weight",
    "backbone.embeddings.weight",
)
_PRE_MARKS = ("embed", "wte", "wpe", "emb_", "rotary_emb", "shared.weight")


class Section(Enum):
    """The order of a model's tensors: before the layers, in one, after them."""

    PRE = 0
    LAYER = 1
    POST = 2


@dataclass(frozen=True)
class Place:
    """The parts of a tensor name; `stack` and `layer` only in Section.LAYER, else `rest` is all."""

    section: Section
    rest: str
    stack: str | None = None
    layer: int | None = None


def place_of(name: str) -> Place:
    """Where the tensor called `name` sits; the first numbered segment names the layer."""
    numbered = _NUMBERED.match(name)
    if numbered is not None:
        stack, layer, rest = numbered["stack"], int(numbered["layer"]), numbered["rest"]
        return Place(Section.LAYER, rest, stack, layer)
    return Place(Section.PRE if is_early(name) else Section.POST, name)


def is_early(name: str) -> bool:
    """Whether a tensor outside the layers comes before them, as far as its name shows."""
    return any(mark in name for mark in _PRE_MARKS) and not is_head(name)


def at_layer(name: str, layer: int) -> str:
    """The name of the same tensor in another layer; unnumbered names stay as they are."""
    place = place_of(name)
    return name if place.stack is None else f"{place.stack}.{layer}.{place.rest}"


def is_head(name: str) -> bool:
    """Whether `name` is the matrix that turns hidden states into token scores."""
    return name in _WHOLE_HEADS or _is_or_ends(name, _HEADS)


def is_token_embedding(name: str) -> bool:
    """Whether `name` is the matrix that turns tokens into hidden states."""
    return _is_or_ends(name, _EMBEDDINGS)


def token_embeddings(names: Iterable[str]) -> list[str]:
    """All token embeddings among `names`, the one that the others are copies of first."""
    found = [name for name in names if is_token_embedding(name)]
    return sorted(found, key=lambda name: not _is_or_ends(name, _EMBEDDINGS[:1]))


def has_vocabulary_axis(name: str) -> bool:
    """Whether the first axis of the tensor counts tokens: an embedding, a head or its bias."""
    stem, bias, rest = name.rpartition("bias")
    of_head = bool(bias) and not rest and (is_head(f"{stem}weight") or stem.endswith(_HEAD_BIASES))
    return of_head or is_head(name) or is_token_embedding(name)


@dataclass(frozen=True)
class Layout:
    """The places of all tensors of one model.

    `stacks` maps the prefix of a stack to its number of layers; `layers` maps (prefix, number) to
    the names of that layer's tensors without prefix and number.
    """

    places: Mapping[str, Place]
    stacks: Mapping[str, int]
    layers: Mapping[tuple[str, int], frozenset[str]]

    @staticmethod
    def of(names: Iterable[str]) -> Layout:
        """The layout of a model that has these tensors."""
        places = {name: place_of(name) for name in names}
        stacks: dict[str, int] = {}
        layers: dict[tuple[str, int], set[str]] = {}
        for place in places.values():
            if place.stack is not None and place.layer is not None:
                stacks[place.stack] = max(stacks.get(place.stack, 0), place.layer + 1)
                layers.setdefault((place.stack, place.layer), set()).add(place.rest)
        frozen = {key: frozenset(rests) for key, rests in layers.items()}
        return Layout(MappingProxyType(places), MappingProxyType(stacks), MappingProxyType(frozen))

    def unnumbered(self, section: Section) -> tuple[str, ...]:
        """The names of the tensors before or after the layers, sorted."""
        return tuple(sorted(n for n, p in self.places.items() if p.section is section))

    @property
    def head(self) -> str | None:
        """The name of the head, or None when the model stores none."""
        return next((name for name in self.places if is_head(name)), None)

    @property
    def token_embedding(self) -> str | None:
        """The name of the token embedding, or None when there is none we know."""
        return next(iter(token_embeddings(self.places)), None)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model: `text_config`, else all."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def layer_count(config: Mapping[str, Any]) -> int | None:
    """The number of layers that a config.json promises, or None when it names none."""
    text = text_config(config)
    counts = (text.get(key) for key in LAYER_COUNT_KEYS)
    return next((count for count in counts if type(count) is int and count > 0), None)


def _is_or_ends(name: str, endings: tuple[str, ...]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)
