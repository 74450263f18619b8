"""What a run will take: evaluations, items and seconds, from its plan and a few measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from evomerge.candidate import PART
from evomerge.evaluate.splits import minibatch
from evomerge.run.archive import TOP_BASELINES
from evomerge.run.final import going_on
from evomerge.run.judging import Judge
from evomerge.run.plan import Allotment, RunPlan, StagePlan, search_end
from evomerge.run.stage_final import (
    affordable_rungs,
    kept_items,
    most_finalists,
    stage_judge,
)
from evomerge.run.stage_search import BASELINE_MINIBATCHES, WARM_STARTS
from evomerge.run.timeline import generations, makespan
from evomerge.space import SearchSpace

HANDING_OVER = 5.0
"""Seconds to load the saved winner and its tasks, and to draw the report of a run."""
RECORDING = 0.015
"""Seconds of the driver for each evaluation: the strategy, and the ledger's way to the disk."""


@dataclass(frozen=True)
class Costs:
    """Seconds that one worker needs.

    Attributes:
        start: until it is ready.
        first: to build the first merge of a method, by method; that is when it learns about the
            parents. A method that is missing costs as much as the dearest.
        build: to build each further one.
        call: to score a candidate, whatever the number of items.
        item: to score each item.
    """

    start: float
    first: Mapping[str, float]
    build: Mapping[str, float]
    call: float
    item: float

    def score(self, items: int) -> float:
        """Seconds to score a candidate on this many items."""
        return self.call + self.item * items

    def first_build(self, method: str) -> float:
        """Seconds until the first merge of a method is built."""
        return self.first.get(method, max(self.first.values(), default=0.0))

    def next_build(self, method: str) -> float:
        """Seconds for each merge that follows."""
        return self.build.get(method, max(self.build.values(), default=0.0))


@dataclass(frozen=True)
class Phase:
    """A part of a run: evaluations at most, items of all of them, wall time.

    `evaluations` and `items` are None where only the clock ends the phase and nothing was measured,
    `seconds` and `busy` (of all workers together) where nothing was measured.
    """

    name: str
    evaluations: int | None
    items: int | None
    seconds: float | None
    busy: float | None


@dataclass(frozen=True)
class Forecast:
    """All of a run; `starting` and `handing_over` are the seconds before and after its phases."""

    phases: tuple[Phase, ...]
    workers: int
    starting: float | None
    handing_over: float | None

    @property
    def evaluations(self) -> int | None:
        """Of all phases."""
        known = [phase.evaluations for phase in self.phases]
        return None if None in known else sum(count for count in known if count is not None)

    @property
    def items(self) -> int | None:
        """Of all phases."""
        known = [phase.items for phase in self.phases]
        return None if None in known else sum(count for count in known if count is not None)

    @property
    def seconds(self) -> float | None:
        """Wall time from the command to the saved winner."""
        if self.starting is None or self.handing_over is None:
            return None
        return (
            self.starting + self.handing_over + sum(phase.seconds or 0.0 for phase in self.phases)
        )

    @property
    def utilization(self) -> float | None:
        """The share of their time, from ready to done, in which workers evaluate."""
        wall = sum(phase.seconds or 0.0 for phase in self.phases)
        busy = sum(phase.busy or 0.0 for phase in self.phases)
        return busy / (self.workers * wall) if wall else None


def forecast(plan: RunPlan, workers: int, costs: Costs | None, *, before: float = 0.0) -> Forecast:
    """Walk through the phases of a run as they would come.

    Args:
        plan: the run.
        workers: how many evaluate at the same time.
        costs: what was measured; None for counts only.
        before: seconds until workers are asked for.
    """
    walk = _Walk(plan, workers, costs)
    for stage, allotment in zip(plan.stages, plan.allotments, strict=True):
        walk.stage(stage, allotment)
    walk.holdout()
    if costs is None:
        return Forecast(tuple(walk.phases), workers, None, None)
    last = plan.holdout_items.count or plan.selection_items.count
    over = HANDING_OVER + costs.first_build(search_method(plan.stages[-1])) + costs.score(last)
    return Forecast(tuple(walk.phases), workers, before + costs.start, over)


@final
class _Walk:
    """One walk through a run (stateful: the clock, what is spent, the phases so far)."""

    def __init__(self, plan: RunPlan, workers: int, costs: Costs | None) -> None:
        self.phases: list[Phase] = []
        self._plan = plan
        self._workers = workers
        self._costs = costs
        self._clock = 0.0 if costs is None else costs.start
        self._items = 0
        self._holdout: dict[str, str] = {}

    def stage(self, stage: StagePlan, allotment: Allotment) -> None:
        """Baselines, starting points, search and final."""
        per_task = stage.batches.per_task(self._plan.search_items)
        batch = minibatch(self._plan.search_items, per_task, generation=0, seed=0).count
        wide = BASELINE_MINIBATCHES * per_task
        early = minibatch(self._plan.search_items, wide, generation=0, seed=0).count
        methods = [baseline.recipe.merge_method for baseline in stage.baselines]
        judge = stage_judge(self._plan, stage, 0)
        first = minibatch(self._plan.search_items, per_task, generation=0, seed=0)
        models, each = len(judge.references), judge.concerned(first).count
        compared = models * each
        self._holdout |= {b.label: b.recipe.merge_method for b in stage.baselines}
        self._phase(stage, "baselines", methods, early, seen=set())
        starts = min(1 + WARM_STARTS, len(stage.starting_points(stage.baselines)))
        method = search_method(stage)
        self._phase(stage, "starting points", [method] * starts, early, seen=set(methods))
        kept = kept_items(self._plan, stage.final, allotment, judge)
        before = len(methods) + starts
        count = self._search(stage, allotment, batch, method, before, kept=kept, compared=compared)
        if compared:
            again = ["passthrough"] * (models * math.ceil((count or 0) / stage.population))
            self._phase(stage, "references", again, each, seen=set(again))
        self._final(stage, method, starts, count, kept, judge)

    def holdout(self) -> None:
        """The baselines of all stages and the winner."""
        items = self._plan.holdout_items.count
        if items:
            methods = [*self._holdout.values(), ""]
            self._phase(None, "holdout", methods, items, seen=set(methods))

    def _phase(
        self, stage: StagePlan | None, name: str, methods: Sequence[str], items: int, seen: set[str]
    ) -> None:
        """Evaluations of recipes with these methods on as many items each, all at once."""
        if not methods:
            return
        durations = [self._seconds(method, items, first=method not in seen) for method in methods]
        wall = makespan(self._in_parts(durations, items), self._workers)
        self._add(stage, name, len(methods), items, wall, sum(durations))

    def _seconds(self, method: str, items: int, *, first: bool) -> float:
        if self._costs is None:
            return 0.0
        build = self._costs.first_build(method) if first else self._costs.next_build(method)
        return build + self._costs.score(items) + RECORDING

    def _in_parts(self, durations: Sequence[float], items: int) -> list[float]:
        """The same evaluations in the parts in which they go out."""
        tasks = len(self._plan.search_items.tasks)
        count = max(1, math.ceil(items / (tasks * PART)))
        return [seconds / count for seconds in durations for _ in range(count)]

    def _add(
        self, stage: StagePlan | None, name: str, count: int, items: int, wall: float, busy: float
    ) -> None:
        label = f"{stage.name}: {name}" if stage is not None and stage.name else name
        timed = self._costs is not None
        self.phases.append(
            Phase(label, count, count * items, wall if timed else None, busy if timed else None)
        )
        self._clock += wall
        self._items += count * items

    def _search(
        self,
        stage: StagePlan,
        given: Allotment,
        items: int,
        method: str,
        before: int,
        *,
        kept: float,
        compared: int,
    ) -> int | None:
        """As many generations as the allotment pays for; None when nobody knows how many."""
        limits: list[int] = []
        if given.candidates is not None:
            limits.append(given.candidates - before)
        if given.items is not None and given.items_until is not None:
            left = given.items_until - kept - self._items
            limits.append(int(left / (items + compared / stage.population)))
        end, until = search_end(given, stage.final), None
        if end is not None:
            until = end - self._clock
            if self._costs is not None:
                each = max(self._seconds(method, items, first=False), 1e-3)
                limits.append(int(self._workers * max(until, 0.0) / each) + 2 * stage.population)
        if not limits:
            label = f"{stage.name}: search" if stage.name else "search"
            self.phases.append(Phase(label, None, None, None, None))
            return None
        count = max(0, min(limits))
        durations = [self._seconds(method, items, first=k < self._workers) for k in range(count)]
        until = None if self._costs is None else until
        rhythm = (stage.population, stage.schedule, until)
        done, wall = generations(durations, self._workers, *rhythm)
        self._add(stage, "search", done, items, wall, sum(durations[:done]))
        return done

    def _final(
        self,
        stage: StagePlan,
        method: str,
        starts: int,
        searched: int | None,
        kept: float,
        judge: Judge,
    ) -> None:
        """Rung after rung, with as many finalists as there can be."""
        if stage.final is None:
            return
        told = None if searched is None else searched // stage.population
        alive = min(TOP_BASELINES, len(stage.baselines)) + min(1, starts)
        candidates, estimates = most_finalists(self._plan.objective)
        alive += candidates if searched is None else min(candidates, searched)
        alive += estimates if stage.final.estimates and (told is None or told) else 0
        wall, busy, items, evaluations = 0.0, 0.0, 0, 0
        for part in affordable_rungs(self._plan, kept, alive, judge):
            rung = part.count
            durations = [self._seconds(method, rung, first=False)] * alive
            wall += makespan(self._in_parts(durations, rung), self._workers)
            busy += sum(durations)
            items, evaluations = items + alive * rung, evaluations + alive
            alive = math.ceil(alive * going_on(self._plan.objective)) + 1
        label = f"{stage.name}: final" if stage.name else "final"
        timed = self._costs is not None
        self.phases.append(
            Phase(label, evaluations, items, wall if timed else None, busy if timed else None)
        )
        self._clock += wall
        self._items += items


def search_method(stage: StagePlan) -> str:
    """The merge method of the search; "" where it is a gene, which counts as the dearest."""
    if isinstance(stage.space, SearchSpace) and stage.space.methods_vary:
        return ""
    return stage.space.decode(stage.space.start).merge_method
