"""The environment that renders task templates: no way to Python, no way to eat the machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evomerge.evaluate.limits import limited

SECONDS = 10.0
MEMORY_MIB = 1024
_TEMPLATES_KEPT = 4096
_PLAIN = (str, bytes, int, float, bool, list, tuple, dict, set, frozenset)


class _LimitedTemplate(Template):
    """Renders within limits; a nested loop could otherwise take years."""

    def render(self, *values: Any, **named: Any) -> str:
        """The text for one document; raises Exhausted."""
        with limited(SECONDS, MEMORY_MIB):
            return super().render(*values, **named)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which hides Python's internals, with two gaps closed.

    Templates may call methods of plain values only: those of other objects are not dangerous by
    their names (an image of a data set has `save`). Time and memory are limited.

    Compiling a template takes about a hundred times as long as rendering it, and lm-eval compiles
    anew for every item, so compiled templates are kept.
    """

    template_class = _LimitedTemplate

    def __init__(self, filters: dict[str, Callable[..., Any]]) -> None:
        super().__init__(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
        self.filters.update(filters)
        self._compiled = functools.lru_cache(maxsize=_TEMPLATES_KEPT)(super().from_string)

    def from_string(self, source: Any, globals: Any = None, template_class: Any = None) -> Template:
        """The compiled template, from memory when it is plain text; raises Exhausted."""
        if globals or template_class or not isinstance(source, str):
            with limited(SECONDS, MEMORY_MIB):
                return super().from_string(source, globals, template_class)
        with limited(SECONDS, MEMORY_MIB):  # constants are computed here
            return self._compiled(source)

    def is_safe_callable(self, obj: Any) -> bool:
        """Methods of plain values, and what Jinja itself offers."""
        if not super().is_safe_callable(obj):
            return False
        owner = getattr(obj, "__self__", None)
        if type(owner) in _PLAIN:
            return True
        maker = type(obj) if owner is None else type(owner)
        offered = any(obj is value for value in self.globals.values())
        within = getattr(obj, "__globals__", {}).get("__name__", "")
        return offered or maker.__module__.startswith("jinja2.") or within.startswith("jinja2.")
