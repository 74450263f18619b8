"""YAML as version 1.2 reads it: `1e-3` is a number, `no` and `on` are strings, keys are unique."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from evomerge.bounded_yaml import MAX_MIB, BoundedLoader, parse
from evomerge.errors import InvalidInput
from evomerge.text_files import read_text

_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


class _Loader(BoundedLoader):
    """SafeLoader with the core schema of YAML 1.2 and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key '{key}' appears twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes mappings in order and lists of scalars on one line."""

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        flat = all(isinstance(entry, int | float | str) for entry in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat or flow_style)

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


_RESOLVERS = (
    ("tag:yaml.org,2002:bool", _BOOL, "tTfF"),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
)
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _RESOLVERS:
        _class.add_implicit_resolver(_tag, _pattern, list(_first))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # 010 is ten: YAML 1.2 has no bare octals


_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def loads(text: str, where: str) -> Any:
    """Parse one YAML document.

    Raises:
        InvalidInput: the text is not YAML; `where` names its origin in the message.
    """
    try:
        loader = _Loader(text)
        loader.name = where
        return parse(loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{where}: not readable as YAML: {reason}; correct the file") from None


def load(path: Path) -> Any:
    """Read and parse the YAML file at `path`; raises InvalidInput when it is missing or broken."""
    return loads(read_text(path, max_mib=MAX_MIB), str(path))


def dumps(value: Any) -> str:
    """Write plain values as YAML, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
