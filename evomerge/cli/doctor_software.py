"""What the doctor finds out about Python and packages; imports none of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from evomerge.cli.doctor_finding import Finding, note, problem
from evomerge.merge.compiler import missing_compiler

_SHOWN = ("evomerge", "torch", "transformers", "safetensors", "lm-eval", "cma")
_OPTIONAL = ("fast", "ray")
_OLDEST_PYTHON = (3, 11)
_POSTGRES = ("psycopg", "psycopg2", "psycopg2-binary")


@dataclass(frozen=True)
class Needed:
    """What evomerge asks for of a package; an optional one may be absent."""

    name: str
    requirement: Requirement
    optional: bool


def installed(name: str) -> str | None:
    """The version of an installed package, None without it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def declared(lines: Iterable[str] | None = None) -> tuple[Needed, ...] | None:
    """The requirements in evomerge's metadata; None where it runs from a source tree."""
    if lines is None:
        try:
            lines = requires("evomerge") or ()
        except PackageNotFoundError:
            return None
    found: list[Needed] = []
    for requirement in map(Requirement, lines):
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        wanted = not extra or any(
            requirement.marker is not None and requirement.marker.evaluate({"extra": name})
            for name in _OPTIONAL
        )
        if wanted and requirement.specifier:
            found.append(Needed(canonicalize_name(requirement.name), requirement, extra))
    return tuple(found)


def python(running: tuple[int, ...]) -> Finding:
    """The interpreter; `running` is its version."""
    found = ".".join(map(str, running[:3]))
    if running < _OLDEST_PYTHON:
        return problem("python", found, "install Python 3.11 or newer")
    return Finding("python", found)


def packages(
    needed: tuple[Needed, ...] | None,
    versions: Mapping[str, str | None],
    tested: Mapping[str, str],
) -> Iterator[Finding]:
    """Installed versions against what evomerge requires and what it was tested with.

    `versions` is by canonical name, None for what is not installed.
    """
    shown = [f"{name} {versions[name]}" for name in _SHOWN if versions.get(name)]
    yield Finding("packages", ", ".join(shown))
    if needed is None:
        yield note(
            "requirements",
            "unknown: evomerge runs from a source tree",
            "install it: pip install -e .",
        )
    for need in needed or ():
        yield from _required(need, versions.get(need.name))
    newer = [
        f"{name} {found} ({tested[name]})"
        for name, found in versions.items()
        if found is not None and name in tested and _public(found) > _public(tested[name])
    ]
    if newer:
        yield note(
            "newer than tested",
            ", ".join(newer),
            "should anything misbehave, install the version in brackets",
        )


def _required(need: Needed, found: str | None) -> Iterator[Finding]:
    wanted = f"{need.name}{need.requirement.specifier}"
    if found is None:
        if not need.optional:
            yield problem(need.name, "not installed", f"pip install '{wanted}'")
    elif not need.requirement.specifier.contains(_public(found), prereleases=True):
        yield problem(
            need.name,
            f"{found}, older than required",
            f"pip install '{wanted}'",
            stops=not need.optional,
        )


def _public(text: str) -> Version:
    """A version without its build tag; one that cannot be read counts as the oldest."""
    try:
        return Version(Version(text).public)
    except InvalidVersion:
        return Version("0")


def kernels(versions: Mapping[str, str | None], missing: str | None = None) -> Finding:
    """Whether merges run compiled."""
    missing = missing_compiler() if missing is None else missing
    if missing is not None:
        return note("merge kernels", "torch, block by block", missing)
    return Finding("merge kernels", f"compiled by numba {versions.get('numba')} where that pays")


def torch_build(package: Path) -> tuple[str | None, str | None]:
    """The versions of CUDA and ROCm that torch was built for, from its files; None for without.

    `package` is the folder of torch. Importing it takes seconds.
    """
    try:
        tree = ast.parse((package / "version.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None, None
    found: dict[str, str | None] = {}
    for line in tree.body:
        targets = line.targets if isinstance(line, ast.Assign) else []
        if isinstance(line, ast.AnnAssign):
            targets = [line.target]
        value = getattr(line, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                found[target.id] = value.value if isinstance(value.value, str) else None
    return found.get("cuda"), found.get("hip")


def postgres(versions: Mapping[str, str | None]) -> Finding:
    """The driver that a mirror in PostgreSQL needs."""
    found = [f"{name} {versions[name]}" for name in _POSTGRES if versions.get(name)]
    return Finding("postgresql", ", ".join(found) or "no driver; only runs mirrored there need one")
