"""`evomerge plan`: what a search will do, need and take, before anything starts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from evomerge.cache_folder import cache_folder
from evomerge.candidate import ItemSelection
from evomerge.cli.consenting import AllowFlags, given_consent
from evomerge.cli.outlook import Outlook, Place, judge
from evomerge.cli.overrides import run_overrides
from evomerge.cli.plan_json import as_mapping
from evomerge.cli.plan_text import lines
from evomerge.errors import EvomergeError, PreflightFailed
from evomerge.evaluate.splits import minibatch
from evomerge.recipe import STACK, Recipe
from evomerge.run.build import BuiltRun, build_run
from evomerge.run.cache_needs import method_recipes
from evomerge.run.calibration import Calibration, Rehearsal, calibrate
from evomerge.run.config import read_space_file
from evomerge.run.directory import check_consent, stored_stages
from evomerge.run.forecast import forecast
from evomerge.run.machine import cores, free_disk, memory
from evomerge.run.needs import MemoryNeeds, estimated_memory, ledger_bytes
from evomerge.run.plan import StagePlan
from evomerge.run.pools.ray_address import LOCAL, VARIABLE
from evomerge.run.pools.ray_nodes import Node, cluster_nodes, room
from evomerge.run.process_memory import held
from evomerge.run.spaces import checked_stages, space_notices
from evomerge.space import SearchSpace
from evomerge.stack_file import earlier_stage
from evomerge.stack_space import StackSpace

_FEW = 8
_MANY = 4
"""Times the items of an evaluation, for the second size of the calibration."""
_ANY_SEED = 0


@dataclass(frozen=True)
class PlanRequest:
    """The command line of one plan."""

    space: Path
    budget: str | None
    out: Path | None
    seed: int | None
    workers: int | None
    address: str | None
    settings: tuple[str, ...]
    quick: bool
    allow: AllowFlags


def plan_command(request: PlanRequest, *, as_json: bool) -> None:
    """Print the plan of a search.

    Raises:
        InvalidInput, PreflightFailed: the space file or its parents are wrong; or, after the plan
            is printed, all reasons why a search cannot succeed here.
    """
    outlook = look_ahead(request)
    if as_json:
        print(json.dumps(as_mapping(outlook)))
    else:
        print("\n".join(lines(outlook)))
    if outlook.problems:
        raise PreflightFailed(outlook.problems)


def look_ahead(request: PlanRequest) -> Outlook:
    """Everything that a plan says."""
    file = read_space_file(
        request.space, run_overrides(request.settings, request.seed, request.budget)
    )
    run_dir = request.out or Path("runs") / (file.name or request.space.stem)
    consent = given_consent(request.allow, request.space.resolve().parent)
    check_consent(run_dir, consent)
    stages = checked_stages(file, request.space, consent)
    stored = stored_stages(run_dir)
    cluster, problems = _cluster(request.address or os.environ.get(VARIABLE))
    built = build_run(
        file,
        stages,
        request.space,
        workers=request.workers,
        room=None if cluster is None else _room(cluster, file.threads),
        stored=stored,
        consent=consent,
    )
    before = time.time() - psutil.Process().create_time()
    driver = held().own
    calibration = None
    if not request.quick:
        try:
            calibration = calibrate(built.worker, rehearsal(built))
        except PreflightFailed as error:
            problems += error.problems
    needs = _memory_needs(built, driver, calibration)
    expected = forecast(
        built.plan, built.workers, None if calibration is None else calibration.costs, before=before
    )
    place = _place(run_dir, cluster, built.worker.threads)
    ledger = ledger_bytes(built.plan, expected)
    notices = (*space_notices(file, stages, request.space, consent), *built.notices)
    outlook = Outlook(
        request.space, built, expected, calibration, needs, ledger, place, notices, (), ()
    )
    return judge(outlook, problems)


def rehearsal(built: BuiltRun) -> Rehearsal:
    """Recipes of all methods of a run, and three sizes of minibatches of its search items."""
    plan = built.plan
    per_task = plan.stages[0].batches.per_task(plan.search_items)

    def some(count: int) -> ItemSelection:
        return minibatch(plan.search_items, count, generation=0, seed=_ANY_SEED)

    recipes: dict[str, Recipe] = {}
    for stage in plan.stages:
        recipes = {**recipes, **{k: v for k, v in _recipes(stage).items() if k not in recipes}}
    return Rehearsal(
        tuple(recipes.values()),
        some(min(_FEW, per_task)),
        some(per_task),
        some(_MANY * per_task),
    )


def _recipes(stage: StagePlan) -> dict[str, Recipe]:
    """By method; of stacks the first baseline that exists before the run, which is as it is."""
    if isinstance(stage.space, SearchSpace):
        return method_recipes(stage.space)
    assert isinstance(stage.space, StackSpace), "there are no other spaces"
    known = [b.recipe for b in stage.baselines if earlier_stage(b.recipe.donor) is None]
    return {STACK: known[0]} if known else {}


def _memory_needs(built: BuiltRun, driver: int, measured: Calibration | None) -> MemoryNeeds:
    if measured is None:
        return estimated_memory(built.needs, driver)
    return MemoryNeeds(measured.private, driver, measured.mapped, measured=True)


def _cluster(address: str | None) -> tuple[tuple[Node, ...] | None, list[str]]:
    """The nodes at an address and what is wrong with it; None where only this machine works."""
    if address is None or address == LOCAL:
        return None, []
    try:
        return cluster_nodes(address), []
    except EvomergeError as error:
        return (), list(error.problems)


def _room(cluster: tuple[Node, ...], threads: int) -> Callable[[int], int]:
    """Given the bytes of a worker, how many a search would start on these nodes; at least one."""
    return lambda size: max(1, sum(room(node, threads, size) for node in cluster))


def _place(run_dir: Path, cluster: tuple[Node, ...] | None, threads: int) -> Place:
    try:
        cache: Path | None = cache_folder()
    except RuntimeError:
        cache = None
    gpus = tuple(
        int(torch.cuda.mem_get_info(index)[0]) for index in range(torch.cuda.device_count())
    )
    return Place(
        run_dir,
        free_disk(run_dir),
        cache,
        None if cache is None else free_disk(cache),
        memory(),
        cores().count,
        threads,
        gpus,
        cluster,
    )
