"""Reads a space file's search spaces and checks the recipes they can produce; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from evomerge.candidate import Genotype
from evomerge.consent import NOTHING, Consent
from evomerge.constraints import Constraint
from evomerge.errors import EvomergeError, InvalidInput, PreflightFailed
from evomerge.gene_file import Problems
from evomerge.model_reference import ModelReference, in_text_form
from evomerge.recipe import Scalar
from evomerge.run.config import SpaceFile, StageConfig
from evomerge.run.objective_rules import check_objective, read_constraints
from evomerge.run.stack_stage import stack_space
from evomerge.search.claims import strategy_problem, usual_notice
from evomerge.signatures import SIGNATURES
from evomerge.space import Place, SearchSpace
from evomerge.space_file import read_space
from evomerge.stack_file import StackSettings, earlier_stage, is_stack_space, read_stack
from evomerge.stack_space import StackSpace
from evomerge.weights.cost import depth_of
from evomerge.weights.expansion import expand
from evomerge.weights.json_files import read_json
from evomerge.weights.layout import layer_count
from evomerge.weights.model_config import causal_problem
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.references import locate
from evomerge.weights.rehearsal import notices, value_problems
from evomerge.weights.stack_compatibility import stack_problems
from evomerge.weights.stack_rules import fold_rule

_ALMOST = 1e-6


@dataclass(frozen=True)
class Stage:
    """One search of a file: what the file says, the space, and the settings of one of stacks.

    `depths` are the layer counts of the models of a space of stacks.
    """

    config: StageConfig
    space: SearchSpace | StackSpace
    settings: StackSettings | None
    depths: Mapping[str, int]

    @property
    def models(self) -> tuple[str, ...]:
        """Every stored model of the space, the base or donor first."""
        if self.settings is None:
            assert isinstance(self.space, SearchSpace), "spaces of stacks have settings"
            return space_models(self.space)
        models = dict.fromkeys([self.settings.donor, *self.settings.models])
        return tuple(model for model in models if earlier_stage(model) is None)


def checked_stages(file: SpaceFile, path: Path, consent: Consent = NOTHING) -> tuple[Stage, ...]:
    """The searches of a space file.

    What the parents' headers show is checked, too. Where no parent is on this machine, layer
    groups are checked among themselves only; spaces of stacks need their parents.

    Raises:
        InvalidInput: every problem of a space or of the recipes at its start and corners, or a
            strategy that cannot search it.
        PreflightFailed: the recipes do not fit the parents, or lm-eval cannot score them.
    """
    stages: list[Stage] = []
    for index, config in enumerate(file.searches()):
        where = f"{path}: stages[{index}].space" if config.name else f"{path}: space"
        if is_stack_space(config.space):
            stages.append(_checked_stacks(config, where, path.resolve().parent, stages, consent))
        else:
            space = _checked_merges(config.space, where, path.resolve().parent, consent)
            stages.append(Stage(config, space, None, {}))
    _check_strategies(file, stages, path)
    check_objective(file.objective)
    stage_constraints(file, stages)
    return tuple(stages)


def stage_constraints(file: SpaceFile, stages: Sequence[Stage]) -> tuple[Constraint, ...]:
    """The constraints of a file with these stages.

    Raises:
        InvalidInput: one compares with a model that is not a baseline of every stage.
    """
    first = stages[0].space
    base = first.decode(first.start).base_model if isinstance(first, SearchSpace) else None
    models = [frozenset(stage.models) for stage in stages]
    return read_constraints(file.objective, base, models)


def _check_strategies(file: SpaceFile, stages: Sequence[Stage], path: Path) -> None:
    named = [(stage, file.strategy_of(stage.config).algorithm) for stage in stages]
    found = [strategy_problem(name, stage.space) for stage, name in named if name is not None]
    problems = [f"{path}: {line}" for line in found if line is not None]
    if problems:
        raise InvalidInput(tuple(dict.fromkeys(problems)))


def _checked_stacks(
    config: StageConfig, where: str, root: Path, earlier: Sequence[Stage], consent: Consent
) -> Stage:
    names = tuple(stage.config.name for stage in earlier if stage.settings is None)
    settings = read_stack(config.space, where, names)
    stored = tuple(model for model in settings.models if earlier_stage(model) is None)
    stand_ins = {
        model: next(s for s in earlier if s.config.name == earlier_stage(model))
        for model in settings.models
        if earlier_stage(model) is not None
    }
    donors = {model: _donor(stage) for model, stage in stand_ins.items()}
    models = tuple(dict.fromkeys([*stored, *donors.values()]))
    pool = ParentPool.open(models, root, consent)
    refused = [causal_problem(model, pool.config(model)) for model in pool.models]
    if any(refused):
        raise PreflightFailed([line for line in refused if line is not None])
    used = tuple(dict.fromkeys(donors.get(model, model) for model in settings.models))
    problems = stack_problems(pool, donors.get(settings.donor, settings.donor), used)
    if not problems and settings.gains != (1.0, 1.0):
        fold_rule(str(pool.config(used[0]).get("model_type")), settings.scale_mode)
    if problems:
        raise PreflightFailed([f"{where}: {line}" for line in problems])
    depths = {model: depth_of(pool.parent(model)) for model in stored}
    depths |= {model: _depth(stage, pool) for model, stage in stand_ins.items()}
    try:
        space = stack_space(settings, depths)
    except InvalidInput as error:
        raise InvalidInput([f"{where}: {line}" for line in error.problems]) from None
    return Stage(config, space, settings, depths)


def _donor(stage: Stage) -> str:
    assert isinstance(stage.space, SearchSpace), "only merges have results of a fixed depth"
    return stage.space.decode(stage.space.start).donor


def _depth(stage: Stage, pool: ParentPool) -> int:
    """The number of layers of all merges of a stage."""
    start = stage.space.decode(stage.space.start)
    if not start.slices:
        return depth_of(pool.parent(start.donor))
    ranges = [part.sources[0].layer_range or (0, 0) for part in start.slices]
    return sum(end - begin for begin, end in ranges)


def _checked_merges(mapping: Any, where: str, root: Path, consent: Consent) -> SearchSpace:
    space = read_space(mapping, where, _layers(mapping, root))
    problems: list[str] = []
    for position in (None, 0.0, 1.0):
        genotype = space.start if position is None else (position,) * space.dimension
        try:
            problems += [f"{where}: {line}" for line in validate_recipe(space.decode(genotype))]
        except InvalidInput as error:
            problems += [line.replace("search space", where, 1) for line in error.problems]
    if not space.genes:
        problems.append(f"{where}: no value is a gene; write for example weight: {{float: [0, 1]}}")
    pool = None if problems else _local_parents(space, root, consent)
    if pool is not None:
        problems += [f"{where}: {line}" for line in _rehearsed(space, pool)]
    if problems:
        raise InvalidInput(tuple(dict.fromkeys(problems)))
    return space


def space_notices(
    file: SpaceFile, stages: Sequence[Stage], path: Path, consent: Consent = NOTHING
) -> list[str]:
    """What a person may not expect of searches and their recipes: lines to print as they are."""
    found: list[str] = []
    for stage in stages:
        space = stage.space
        if file.strategy_of(stage.config).algorithm is None:
            unusual = usual_notice(space)
            found += [] if unusual is None else [f"notice: {unusual}"]
        if isinstance(space, SearchSpace):
            pool = _local_parents(space, path.resolve().parent, consent)
            start = space.decode(space.start)
            found += [] if pool is None else notices(start, pool, expand(start, pool))
    return list(dict.fromkeys(found))


def _local_parents(space: SearchSpace, root: Path, consent: Consent) -> ParentPool | None:
    try:
        return ParentPool.open(space_models(space), root, consent)
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


def _layers(mapping: Any, root: Path) -> int | None:
    """The layer count of the first parent whose configuration can be read."""
    plain = in_text_form(mapping, Problems("").add)  # reading the space tells about problems
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
