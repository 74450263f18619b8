"""Python files beside task files, in a folder that a person has allowed: compared and imported."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from evomerge.consent import Allowed, changed
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.task_yaml import FUNCTION, Tagged
from evomerge.text_files import read_bytes

_MAX_MIB = 16


def with_functions(value: Any, allowed: Sequence[Allowed]) -> Any:
    """`value` with the function that each `Tagged` names in its place; this runs their files.

    Raises:
        InvalidInput: a file has no such function.
        PreflightFailed: a file is not what was allowed, or fails when it is imported.
    """
    if isinstance(value, Tagged):
        return _function(value, allowed)
    if isinstance(value, Mapping):
        return {key: with_functions(entry, allowed) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_functions(entry, allowed) for entry in value]
    return value


def _function(tagged: Tagged, allowed: Sequence[Allowed]) -> Callable[..., Any]:
    source = tagged.source
    digest = next((d for entry in allowed if (d := entry.hash_of(source)) is not None), None)
    assert tagged.tag == FUNCTION, "other tags were refused when the file was read"
    assert digest is not None, "files that were not allowed were refused when the file was read"
    found = getattr(_module(source, digest), tagged.name, None)
    if not callable(found):
        raise InvalidInput(
            f"{tagged.file}: '{FUNCTION} {tagged.text}': {source} has no function "
            f"'{tagged.name}'; correct either"
        )
    return found  # type: ignore[no-any-return]


def _module(path: Path, digest: str) -> ModuleType:
    """The module made from the very bytes whose hash was allowed; once per file and content."""
    key = hashlib.sha256(f"{path.resolve()}:{digest}".encode("utf-8", "surrogateescape"))
    name = f"evomerge_task_code.{path.stem}_{key.hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    content = read_bytes(path, max_mib=_MAX_MIB)
    now = hashlib.sha256(content).hexdigest()
    if now != digest:
        raise PreflightFailed(changed(path, digest, now))
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:  # foreign code, which may raise anything
        del sys.modules[name]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise PreflightFailed(f"{path}: cannot be imported ({text}); correct the file") from error
    return module
