"""The versions that the package calls tested are those that the tests run with."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from evomerge.tested import TESTED

ROOT = Path(__file__).parents[1]


def test_tested_versions_are_those_of_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_every_requirement_of_a_search_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["fast"], *extras["ray"]]
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    assert names == set(TESTED)
    for line in lines:
        requirement = Requirement(line)
        assert requirement.specifier.contains(TESTED[canonicalize_name(requirement.name)]), line
