"""YAML that strangers wrote: no document is larger in memory than it looks in the file."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 64
MAX_VALUES = 1_000_000
MAX_MIB = 16

# What PyYAML's constructors raise over a tagged value such as `!!bool x` or `!!timestamp 1-1-99`.
_WRONG_VALUES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class BoundedLoader(yaml.SafeLoader):
    """SafeLoader that refuses deep nesting, and aliases that multiply or contain themselves.

    Nine lines of aliases of aliases stand for a billion values; whoever walks them never ends.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values: dict[int, int] = {}  # by node, aliases counted as often as they occur

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, checked with all that is in it."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"line {mark.line + 1}: more than {MAX_DEPTH} levels deep")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._values:
            raise yaml.YAMLError(f"line {mark.line + 1}: an alias stands for what contains it")
        if node is not None and not is_alias:
            self._values[id(node)] = self._count(node)
            if self._values[id(node)] > MAX_VALUES:
                raise yaml.YAMLError(f"line {mark.line + 1}: more than {MAX_VALUES} values")
        return node

    def _count(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.MappingNode):
            return 1 + sum(self._values[id(part)] for pair in node.value for part in pair)
        if isinstance(node, yaml.SequenceNode):
            return 1 + sum(self._values[id(entry)] for entry in node.value)
        return 1


def parse(loader: BoundedLoader) -> Any:
    """The one document of `loader`.

    Raises:
        yaml.YAMLError: it is no YAML, too large, or holds values that contradict their tags.
    """
    try:
        return loader.get_single_data()
    except _WRONG_VALUES as error:
        raise yaml.YAMLError(f"a value contradicts its tag ({error})") from None
    finally:
        loader.dispose()
