"""How an adapter changes one particular base: every tensor of it finds its place, or none does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

from evomerge.errors import PreflightFailed
from evomerge.model_reference import ModelReference
from evomerge.weights.adapter_config import CONFIG_FILE
from evomerge.weights.adapters import Adapter, LowRank
from evomerge.weights.checkpoint import Checkpoint
from evomerge.weights.compatibility import capped
from evomerge.weights.headers import TensorInfo
from evomerge.weights.layout import Layout, is_head
from evomerge.weights.model_config import ties_embeddings


@dataclass(frozen=True)
class Change:
    """How one tensor of the adapted model comes about.

    Attributes:
        name: the tensor of the adapted model.
        source: the tensor of the base that it starts from; another one only for a tied head.
        replacement: the tensor of the adapter that takes the place of `source`, if there is one.
        low_rank: what is added to it, if anything.
        transposed: whether the weight is stored (in, out).
        scale: the factor of B A.
    """

    name: str
    source: str
    replacement: str | None = None
    low_rank: LowRank | None = None
    transposed: bool = False
    scale: float = 1.0


def fit(adapter: Adapter, base: Checkpoint, model: str) -> tuple[Change, ...]:
    """The changes that `adapter` makes to `base`, one for each changed tensor.

    The adapted model computes what PEFT computes with the adapter on top of the base. So a head
    that is tied to the embedding becomes a tensor of its own when only one of the two changes.
    `model` is the adapted model's reference.

    Raises:
        PreflightFailed: with one line per problem: a module that the base lacks, ranks that
            contradict the config, shapes that do not fit.
    """
    found = _Fit(adapter, base, model)
    changes = found.changes()
    if found.problems:
        lines = [
            line for kind in found.problems.values() for line in capped(kind, f"model '{model}'")
        ]
        raise PreflightFailed([*lines, *foreign_base(adapter, base, model)])
    return changes


def foreign_base(adapter: Adapter, base: Checkpoint, model: str) -> list[str]:
    """A line when the adapter names another base than the `model` "base+adapter", else none.

    Only the last parts of the names are compared: paths differ between machines.
    """
    own = adapter.config.base_name
    given = ModelReference.parse(model).base
    names = {_last_part(name) for name in (given, str(base.directory.resolve()))}
    if own is None or _last_part(own) in names:
        return []
    return [
        f"model '{model}': the adapter was trained on '{own}', not on '{given}': check that these "
        "are the same weights"
    ]


@final
class _Fit:
    """One walk over the modules of an adapter that collects problems by kind (stateful)."""

    def __init__(self, adapter: Adapter, base: Checkpoint, model: str) -> None:
        self.adapter = adapter
        self.infos = base.infos()
        self.model = model
        self.layout = Layout.of(self.infos)
        tied = self.layout.head is None and ties_embeddings(base.config)
        self.tied_embedding = self.layout.token_embedding if tied else None
        self.problems: dict[str, list[str]] = {}

    def changes(self) -> tuple[Change, ...]:
        found: dict[str, Change] = {}
        asked: dict[str, str] = {}
        for target, stored in self.adapter.replaced.items():
            change = self._placed(target)
            if change is None or not self._replaces(change, stored):
                continue
            if change.name in found:
                self._same(asked[change.name], target)
            asked[change.name] = target
            found[change.name] = replace(change, replacement=stored)
        for entry in self.adapter.low_rank:
            change = self._placed(f"{entry.module}.weight")
            if change is None or not self._agrees_with_itself(entry):
                continue
            change = found.get(change.name, change)
            if change.low_rank is not None:
                self._same(change.low_rank.module, entry.module)
            scale = self.adapter.config.scale_of(entry.module)
            found[change.name] = replace(change, low_rank=entry, scale=scale)
        self._orient(found)
        if self.tied_embedding is not None and not self.problems:
            self._untie(found, self.tied_embedding)
        return tuple(found.values())

    def _problem(self, kind: str, text: str) -> None:
        self.problems.setdefault(kind, []).append(f"model '{self.model}': {text}")

    def _same(self, one: str, other: str) -> None:
        both = f"'{one}' and '{other}'"
        self._problem("twice", f"{both} are one tensor of the base: correct the adapter")

    def _placed(self, target: str) -> Change | None:
        """No change yet of the tensor that the adapter calls `target`."""
        if is_head(target) and self.tied_embedding is not None:
            return Change(target, self.tied_embedding)
        names = _same_tensor(target, self.infos)
        if len(names) != 1:
            module = target.removesuffix(".weight")
            found = "which the base does not have" if not names else "which fits several tensors"
            self._problem(
                "unknown", f"the adapter changes '{module}', {found}: name the adapter's own base"
            )
            return None
        if not self.infos[names[0]].is_mergeable:
            dtype = self.infos[names[0]].dtype
            self._problem(
                "quantised",
                f"the adapter changes '{names[0]}', which is stored as {dtype}: "
                "use the full-precision base",
            )
            return None
        return Change(names[0], names[0])

    def _replaces(self, change: Change, stored: str) -> bool:
        got, expected = self.adapter.infos[stored].shape, self.infos[change.source].shape
        if got != expected:
            self._problem(
                "shape",
                f"the adapter replaces '{change.name}' by a tensor of shape {list(got)}, the "
                f"base has {list(expected)}: name the adapter's own base; if the adapter has a "
                "vocabulary of its own, merge it into the base with PEFT",
            )
        return got == expected

    def _agrees_with_itself(self, entry: LowRank) -> bool:
        infos, promised = self.adapter.infos, self.adapter.config.rank_of(entry.module)
        rank_a, (outs, rank_b) = infos[entry.a].shape[0], infos[entry.b].shape
        fault = None
        if not rank_a == rank_b == promised:
            fault = f"rank {rank_a} in lora_A and {rank_b} in lora_B, {CONFIG_FILE} says {promised}"
        elif entry.magnitude is not None and infos[entry.magnitude].shape != (outs,):
            got = list(infos[entry.magnitude].shape)
            fault = f"{outs} outputs, but a lora_magnitude_vector of shape {got}"
        if fault is not None:
            self._problem(
                "itself", f"module '{entry.module}' has {fault}: get a sound copy of the adapter"
            )
        return fault is None

    def _orient(self, found: dict[str, Change]) -> None:
        """Decide whether weights are (out, in) or (in, out); shapes tell, unless in equals out.

        PEFT goes by the class of each layer and writes only one of its findings to the config. The
        layers of a model are of one class, so the others tell about square ones.
        """
        shapes: dict[str, bool] = {}
        unclear: list[str] = []
        for change in found.values():
            if change.low_rank is None:
                continue
            stored = self.infos[change.source]
            plain, turned = self._fits(change.low_rank, stored)
            if not plain and not turned:
                self._misshapen(change.low_rank, stored)
            elif change.low_rank.is_embedding or plain != turned:
                shapes[change.name] = change.low_rank.is_embedding or turned
            else:
                unclear.append(change.name)
        votes = {
            turned
            for name, turned in shapes.items()
            if not is_head(name) and not _of(found, name).is_embedding
        }
        common = votes.pop() if len(votes) == 1 else self.adapter.config.transposed
        for name in unclear:
            shapes[name] = common and not is_head(name)
        for name, turned in shapes.items():
            found[name] = replace(found[name], transposed=turned)

    def _fits(self, entry: LowRank, stored: TensorInfo) -> tuple[bool, bool]:
        """Whether the matrices fit the weight as (out, in), and as (in, out)."""
        infos = self.adapter.infos
        outs, ins = infos[entry.b].shape[0], infos[entry.a].shape[1]
        plain = stored.shape == (outs, ins) and not entry.is_embedding
        return plain, stored.shape == (ins, outs)

    def _misshapen(self, entry: LowRank, stored: TensorInfo) -> None:
        outs, ins = self.adapter.infos[entry.b].shape[0], self.adapter.infos[entry.a].shape[1]
        self._problem(
            "shape",
            f"the adapter changes '{entry.module}' from {ins} inputs to {outs} outputs, the "
            f"base's '{stored.name}' has shape {list(stored.shape)}: name the adapter's own base",
        )

    def _untie(self, found: dict[str, Change], embedding: str) -> None:
        """Give the head a tensor of its own where it no longer equals the embedding.

        A head starts from the same weights as the embedding: from those that the adapter stores
        for the base layer, but not from a copy of the embedding that was trained in full.
        """
        change = found.get(embedding, Change(embedding, embedding))
        module = embedding.removesuffix(".weight")
        shared = None if self.adapter.config.replaces_module(module) else change.replacement
        heads = [name for name in found if is_head(name)]
        for name in heads:
            if found[name].replacement is None:
                found[name] = replace(found[name], replacement=shared)
        if not heads and change != Change(embedding, embedding, shared):
            name = "embed_out.weight" if embedding.endswith("embed_in.weight") else "lm_head.weight"
            found[name] = Change(name, embedding, shared)


def _of(found: Mapping[str, Change], name: str) -> LowRank:
    entry = found[name].low_rank
    assert entry is not None, "only changes by matrices have an orientation"
    return entry


def _same_tensor(target: str, stored: Collection[str]) -> list[str]:
    """The stored tensors that may be `target`: old files leave out the first parts of names."""
    if target in stored:
        return [target]
    return [n for n in stored if target.endswith(f".{n}") or n.endswith(f".{target}")]


def _last_part(name: str) -> str:
    """The model's own name at the end of a path or hub name, also inside the hub's cache."""
    parts = [part for part in name.partition("@")[0].replace("\\", "/").split("/") if part]
    cached = [part for part in parts if part.startswith("models--")]
    return (cached[-1].rpartition("--")[2] if cached else "".join(parts[-1:])).lower()
