"""Reads a space file's search space and checks every recipe it can produce; imports no torch."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import EvomergeError, InvalidInput
from evomerge.gene_file import Problems
from evomerge.model_reference import ModelReference, in_text_form
from evomerge.run.config import SpaceFile
from evomerge.space import SearchSpace
from evomerge.space_file import read_space
from evomerge.weights.json_files import read_json
from evomerge.weights.layout import layer_count
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.references import locate


def checked_space(file: SpaceFile, path: Path) -> SearchSpace:
    """The search space of a space file.

    Where no parent is on this machine, layer groups are checked among themselves only.

    Raises:
        InvalidInput: every problem of the space or of the recipes at its start and corners.
    """
    where = f"{path}: space"
    space = read_space(file.space, where, _layers(file, path.resolve().parent))
    problems: list[str] = []
    for position in (None, 0.0, 1.0):
        genotype = space.start if position is None else (position,) * space.dimension
        try:
            problems += [f"{where}: {line}" for line in validate_recipe(space.decode(genotype))]
        except InvalidInput as error:
            problems += [line.replace("search space", where, 1) for line in error.problems]
    if not space.genes:
        problems.append(f"{where}: no value is a gene; write for example weight: {{float: [0, 1]}}")
    if problems:
        raise InvalidInput(tuple(dict.fromkeys(problems)))
    return space


def space_models(space: SearchSpace) -> tuple[str, ...]:
    """Every model of the space, the base first."""
    return space.decode(space.start).referenced_models()


def _layers(file: SpaceFile, root: Path) -> int | None:
    """The layer count of the first parent whose configuration can be read."""
    plain = in_text_form(file.space, Problems("").add)  # reading the space tells about problems
    named = [plain.get("base_model")]
    entries = plain.get("models")
    named += (
        [e.get("model") for e in entries if isinstance(e, dict)]
        if isinstance(entries, list)
        else []
    )
    for model in named:
        if not isinstance(model, str):
            continue
        try:
            folder = locate(ModelReference.parse(model).base, root)
            return layer_count(read_json(folder / "config.json"))
        except EvomergeError:
            continue
    return None
