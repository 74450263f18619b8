"""Reads one gene of a space file, such as `{float: [0, 1.5], init: 0.5}`, and the layer groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from evomerge.genes import ChoiceGene, FloatGene, Gene, IntGene
from evomerge.signatures import did_you_mean

GENE_KINDS = ("float", "int", "choice")
_GENE_KEYS = (*GENE_KINDS, "init", "log", "per", "gradient")
_PAIR = 2


class Problems:
    """The problems of one file, each line once, in order (stateful)."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: dict[str, None] = {}

    def add(self, path: str, text: str) -> None:
        """Note a problem of the value at `path`."""
        at = f"{self._where}.{path}" if path else self._where
        self._lines[f"{at}: {text}"] = None

    @property
    def lines(self) -> tuple[str, ...]:
        """All problems."""
        return tuple(self._lines)


def is_gene(value: Any) -> bool:
    """Whether a value of a space file is meant as a gene."""
    return isinstance(value, Mapping) and any(kind in value for kind in GENE_KINDS)


def read_gene(spec: Mapping[str, Any], name: str, path: str, problems: Problems) -> Gene | None:
    """The gene that `spec` describes; None after noting what is wrong with it."""
    unknown = [key for key in spec if key not in _GENE_KEYS]
    for key in unknown:
        problems.add(path, f"unknown key '{key}' in a gene; {did_you_mean(str(key), _GENE_KEYS)}")
    kinds = [kind for kind in GENE_KINDS if kind in spec]
    if len(kinds) != 1:
        problems.add(path, f"expected one kind of gene, got {' and '.join(kinds)}")
    if unknown or len(kinds) != 1:
        return None
    try:
        if kinds[0] == "choice":
            return _choice(spec, name)
        return _float(spec, name) if kinds[0] == "float" else _int(spec, name)
    except ValueError as error:
        problems.add(path, f"{kinds[0]} gene: {error}")
        return None


def _float(spec: Mapping[str, Any], name: str) -> Gene:
    low, high = _bounds(spec["float"], spec.get("init"))
    log = spec.get("log", False)
    if not isinstance(log, bool) or (log and low <= 0):
        raise ValueError(f"log: true needs low > 0, got low {low:g} and log {log!r}")
    init = None if spec.get("init") is None else float(spec["init"])
    return FloatGene(name, float(low), float(high), init, log)


def _int(spec: Mapping[str, Any], name: str) -> Gene:
    low, high = _bounds(spec["int"], spec.get("init"))
    if any(type(value) is not int for value in (low, high, spec.get("init") or 0)):
        raise ValueError(f"expected whole numbers, got {spec['int']!r}")
    return IntGene(name, int(low), int(high), spec.get("init"))


def _choice(spec: Mapping[str, Any], name: str) -> Gene:
    choices, init = spec["choice"], spec.get("init")
    if not isinstance(choices, list) or len(choices) < _PAIR:
        raise ValueError(f"expected a list of two or more values, got {choices!r}")
    if not all(isinstance(entry, int | float | str) for entry in choices):
        raise ValueError(f"expected numbers, texts or true/false, got {choices!r}")
    if init is not None and init not in choices:
        raise ValueError(f"init {init!r} is not among {choices!r}")
    return ChoiceGene(name, tuple(choices), init)


def _bounds(value: Any, init: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != _PAIR or not all(map(_is_finite, value)):
        raise ValueError(f"expected [low, high], got {value!r}")
    low, high = value
    if not low < high:
        raise ValueError(f"low {low:g} must be < high {high:g}")
    if init is not None and (not _is_finite(init) or not low <= init <= high):
        raise ValueError(f"init {init!r} must lie in [{low:g}, {high:g}]")
    return low, high


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < float("inf")


@dataclass(frozen=True)
class Group:
    """One layer group: a half-open range of layers and how reports call it."""

    start: int
    end: int
    label: str


def read_groups(value: Any, layers: int | None, problems: Problems) -> tuple[Group, ...]:
    """The groups of `layer_groups`: a number of equal ones, or a list of [start, end].

    `layers` is the parents' layer count, None when it is not known; a list may begin with
    "embeddings" and end with "head".
    """
    if value is None:
        return ()
    if type(value) is int:
        count = value if layers is None else layers
        if not 1 <= value <= count:
            problems.add(
                "layer_groups", f"expected 1 to {count} (the parents' layers), got {value}"
            )
            return ()
        edges = [round(index * count / value) for index in range(value + 1)]
        return tuple(_group(start, end) for start, end in pairwise(edges))
    if not isinstance(value, list) or not value:
        problems.add("layer_groups", f"expected a number or a list of [start, end], got {value!r}")
        return ()
    return _listed(value, layers, problems)


def _listed(value: list[Any], layers: int | None, problems: Problems) -> tuple[Group, ...]:
    groups: list[Group] = []
    for index, entry in enumerate(value):
        end = groups[-1].end if groups else 0
        is_range = isinstance(entry, list) and len(entry) == _PAIR
        if entry == "embeddings" and index == 0:
            groups.append(Group(0, 0, "embeddings"))
        elif entry == "head" and index == len(value) - 1:
            groups.append(Group(end, end, "head"))
        elif is_range and all(type(n) is int for n in entry) and entry[0] == end < entry[1]:
            groups.append(_group(*entry))
        else:
            problems.add(
                f"layer_groups[{index}]",
                f"expected [{end}, end] with end > {end} (groups follow each other without gaps; "
                f"'embeddings' may stand first and 'head' last), got {entry!r}",
            )
            return ()
    if layers is not None and groups[-1].end != layers:
        problems.add(
            "layer_groups",
            f"expected groups up to layer {layers} (the parents' count), got {groups[-1].end}",
        )
    return tuple(groups)


def _group(start: int, end: int) -> Group:
    return Group(start, end, f"layer {start}" if end == start + 1 else f"layers {start}-{end - 1}")
