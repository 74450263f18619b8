"""The modules of a model (language tower, vision tower, ...), told from its tensor names.

The tensors of a module also have local names, which leave out the module's place in the model:
`model.layers.0.w` of a text model and `language_model.model.layers.0.w` of a vision-language model
are the same tensor of their language towers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType

from evomerge.weights.layout import Layout, is_head, token_embeddings

WHOLE = "default"
LANGUAGE = "text_decoder"

_LANGUAGE_NAMES = (LANGUAGE, "language_model", "text_model")
_SYNONYMS = (
    ("vision_tower", "visual", "vision_model", "vision_encoder"),
    ("multi_modal_projector", "mm_projector", "connector", "projector"),
    ("audio_tower", "audio_encoder", "audio_model"),
)
# Parts of names that a language tower never has.
_OTHER_SENSES = ("vision", "visual", "image", "video", "audio", "speech", "talker", "vit", "mm_")
_BRIDGES = ("projector", "connector", "merger", "perceiver", "resampler", "qformer", "aligner")


@dataclass(frozen=True)
class Tower:
    """One module of a model.

    Attributes:
        name: what a recipe calls it.
        prefix: what the names of its layers and embeddings begin with, "" for nothing.
        root: what its other names, such as the head's, begin with.
        stored: the stored tensor of every local name, in file order.
        layout: the places of the local names.
    """

    name: str
    prefix: str
    root: str
    stored: Mapping[str, str]
    layout: Layout

    @property
    def head(self) -> str | None:
        """The local name of the head, or None when the module stores none."""
        return next((local for local, name in self.stored.items() if is_head(name)), None)

    @property
    def token_embedding(self) -> str | None:
        """The stored token embedding, or None when there is none we know."""
        return next(iter(token_embeddings(self.stored.values())), None)

    def full_name(self, local: str, like: Tower) -> str:
        """What this model calls the tensor `local`, which only the same module `like` may store.

        Layers that neither stores are named after the others.
        """
        if local in self.stored:
            return self.stored[local]
        inside = local not in like.stored or _below(like.stored[local], like.prefix)
        return _joined(self.prefix if inside else self.root, local)


@dataclass(frozen=True)
class Towers:
    """The modules of one model.

    Attributes:
        main: the tower that recipes without `modules:` merge: the language tower of a multimodal
            model, else the whole model.
        others: the prefixes of the modules beside the language tower, or of the parts of a model
            with several stacks of layers; none for a plain model.
    """

    main: Tower
    others: tuple[str, ...]
    _names: tuple[str, ...]

    @staticmethod
    def of(names: Iterable[str], *, multimodal: bool) -> Towers:
        """The modules of a model with these tensors; `multimodal` is what its config says."""
        known = tuple(names)
        spoken = [name for name in known if not (multimodal and _is_of_another_sense(name))]
        prefix = _prefix(spoken)
        if not multimodal or not token_embeddings(spoken):
            main = _tower(WHOLE, prefix, "", known)
            several = len(main.layout.stacks) > 1
            return Towers(main, _children(known, prefix) if several else (), known)
        root = next((f for f in prefix.split(".")[:1] if f in _LANGUAGE_NAMES), "")
        inside = tuple(n for n in spoken if _below(n, prefix) or _below(n, root) or is_head(n))
        rest = [name for name in known if name not in set(inside)]
        main = _tower(LANGUAGE, prefix, root, inside)
        return Towers(main, _children(rest, prefix), known)

    @property
    def is_multimodal(self) -> bool:
        """Whether there is more than language."""
        return self.main.name == LANGUAGE

    @property
    def module_names(self) -> tuple[str, ...]:
        """What a recipe may write under `modules:`."""
        return (self.main.name, *self.others)

    def tower(self, module: str | None) -> Tower | None:
        """The module that a recipe calls `module` (None: the main one), or None.

        Known are mergekit's names and the beginnings of tensor names. A text model is the language
        tower of itself.
        """
        one_tower = self.is_multimodal or not self.others
        if module in (None, self.main.name) or (one_tower and module in _LANGUAGE_NAMES):
            return self.main
        assert module is not None
        prefix = self._prefix_of(module)
        if prefix is None:
            return None
        return _tower(module, prefix, prefix, [n for n in self._names if _below(n, prefix)])

    def _prefix_of(self, module: str) -> str | None:
        words = next((group for group in _SYNONYMS if module in group), (module,))
        found = [prefix for prefix in self.others if prefix.rpartition(".")[2] in words]
        if len(found) == 1:
            return found[0]
        return module if any(_below(name, module) for name in self._names) else None


def _tower(name: str, prefix: str, root: str, names: Iterable[str]) -> Tower:
    full = tuple(names)
    stored = {_local(n, prefix, root): n for n in full}
    if len(stored) < len(full):  # two tensors would have one local name
        prefix, root, stored = "", "", {n: n for n in full}
    return Tower(name, prefix, root, MappingProxyType(stored), Layout.of(stored))


def _local(name: str, prefix: str, root: str) -> str:
    for start in (prefix, root):
        if start and _below(name, start):
            return name[len(start) + 1 :] or name.rpartition(".")[2]
    return name


def _prefix(names: list[str]) -> str:
    """What the token embedding and the stacks of layers beside it have in common."""
    embedding = next(iter(token_embeddings(names)), None)
    if embedding is None:
        return ""
    common = embedding.split(".")[:-1]
    stacks = [stack.split(".") for stack in Layout.of(names).stacks]
    beside = [segments for segments in stacks if segments[0] == common[0]]
    if not beside:
        return ""
    for segments in beside:
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(common, segments, strict=False))
        common = [segment for segment, _ in pairs]
    return ".".join(common)


def _children(names: Iterable[str], prefix: str) -> tuple[str, ...]:
    """The shortest beginnings of `names` that are no beginning of `prefix`."""
    return tuple(dict.fromkeys(_child(name, prefix) for name in names))


def _child(name: str, prefix: str) -> str:
    segments = name.split(".")
    lengths = range(1, max(len(segments), 2))
    starts = (".".join(segments[:length]) for length in lengths)
    return next((start for start in starts if not _below(prefix, start)), name)


def _below(name: str, prefix: str) -> bool:
    return bool(prefix) and (name == prefix or name.startswith(f"{prefix}."))


def _joined(prefix: str, local: str) -> str:
    return f"{prefix}.{local}" if prefix else local


def _is_of_another_sense(name: str) -> bool:
    return any(mark in name for mark in (*_OTHER_SENSES, *_BRIDGES))
