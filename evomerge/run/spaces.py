"""Reads a space file's search space and checks every recipe it can produce; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from evomerge.candidate import Genotype
from evomerge.errors import EvomergeError, InvalidInput, PreflightFailed
from evomerge.gene_file import Problems
from evomerge.model_reference import ModelReference, in_text_form
from evomerge.recipe import Scalar
from evomerge.run.config import SpaceFile
from evomerge.signatures import SIGNATURES
from evomerge.space import Place, SearchSpace
from evomerge.space_file import read_space
from evomerge.weights.expansion import expand
from evomerge.weights.json_files import read_json
from evomerge.weights.layout import layer_count
from evomerge.weights.model_config import causal_problem
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.references import locate
from evomerge.weights.rehearsal import notices, value_problems

_ALMOST = 1e-6


def checked_space(file: SpaceFile, path: Path) -> SearchSpace:
    """The search space of a space file.

    What the parents' headers show is checked, too. Where no parent is on this machine, layer
    groups are checked among themselves only.

    Raises:
        InvalidInput: every problem of the space or of the recipes at its start and corners.
        PreflightFailed: the recipes do not fit the parents, or lm-eval cannot score them.
    """
    where, root = f"{path}: space", path.resolve().parent
    space = read_space(file.space, where, _layers(file, root))
    problems: list[str] = []
    for position in (None, 0.0, 1.0):
        genotype = space.start if position is None else (position,) * space.dimension
        try:
            problems += [f"{where}: {line}" for line in validate_recipe(space.decode(genotype))]
        except InvalidInput as error:
            problems += [line.replace("search space", where, 1) for line in error.problems]
    if not space.genes:
        problems.append(f"{where}: no value is a gene; write for example weight: {{float: [0, 1]}}")
    pool = None if problems else _local_parents(space, root)
    if pool is not None:
        problems += [f"{where}: {line}" for line in _rehearsed(space, pool)]
    if problems:
        raise InvalidInput(tuple(dict.fromkeys(problems)))
    return space


def space_notices(space: SearchSpace, path: Path) -> list[str]:
    """What a person may not expect of the space's recipes: lines to print as they are."""
    pool = _local_parents(space, path.resolve().parent)
    start = space.decode(space.start)
    return [] if pool is None else notices(start, pool, expand(start, pool))


def _local_parents(space: SearchSpace, root: Path) -> ParentPool | None:
    try:
        return ParentPool.open(space_models(space), root)
    except EvomergeError:
        return None  # a search says what is wrong with them


def _rehearsed(space: SearchSpace, pool: ParentPool) -> list[str]:
    """The problems of the recipes at the ends of the genes' ranges."""
    refused = [causal_problem(model, pool.config(model)) for model in pool.models]
    if any(refused):
        raise PreflightFailed([line for line in refused if line is not None])
    start = space.decode(space.start)
    try:
        targets = expand(start, pool)
    except PreflightFailed as error:
        # Why the parents do not fit says more than the tensors in which it shows.
        found = pool.problems(pool.models, start.donor, start.tokenizer, sliced=bool(start.slices))
        raise PreflightFailed(found or error.problems) from None
    found = value_problems(start, targets)
    for genotype in _joint_corners(space):
        found += [
            f"at the ends of the genes' ranges, {line}"
            for line in value_problems(space.decode(genotype), targets)
        ]
    return list(dict.fromkeys(found))


def _joint_corners(space: SearchSpace) -> Iterator[Genotype]:
    """Just inside the ends of all ranges, for methods whose parameters limit each other."""
    for signature in SIGNATURES.values():
        chosen = space.encode(_choosing(signature.name))
        if signature.joint is None or space.decode(chosen).merge_method != signature.name:
            continue
        names = signature.joint.parameters
        for ends in product((_ALMOST, 1.0 - _ALMOST), repeat=len(names)):
            position = dict(zip(names, ends, strict=True))
            pairs = zip(space.places, chosen, strict=True)
            yield tuple(position.get(place.parameter, at) for place, at in pairs)


def _choosing(method: str) -> Callable[[Place], Scalar | None]:
    return lambda place: method if place.parameter == "merge_method" else None


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
