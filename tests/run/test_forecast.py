from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.run.core import Core, Schedule
from evomerge.run.forecast import RECORDING, Costs, Forecast, forecast
from evomerge.run.ledger import LedgerReader
from evomerge.run.needs import ledger_bytes
from evomerge.run.plan import Budget
from evomerge.run.timeline import generations, makespan
from tests.run.fakes import FakeWorkers, drive, plan

COSTS = Costs(10.0, {"ties": 3.0, "linear": 1.0}, {"ties": 1.0}, 0.5, 0.01)
PHASES = ("baselines", "starting points", "search", "final", "holdout")


def counted(found: Forecast) -> dict[str, tuple[int | None, int | None]]:
    return {phase.name: (phase.evaluations, phase.items) for phase in found.phases}


@pytest.mark.parametrize(("candidates", "items"), [(60, None), (None, 12_000), (90, 9_000)])
def test_counts_are_those_of_a_real_run(
    tmp_path: Path, candidates: int | None, items: int | None
) -> None:
    run = plan(candidates=candidates, budget_items=items)
    list(drive(tmp_path, run, FakeWorkers()))
    with LedgerReader.open(tmp_path) as reader:
        done = Counter[str]()
        scored = Counter[str]()
        starts = {c.id for c in reader.candidates() if c.origin == "starting point"}
        for e in reader.evaluations():
            name = "final" if e.stage.startswith("final") else e.stage
            name = {"baseline": "baselines"}.get(name, name)
            if name == "baselines" and e.candidate in starts:
                name = "starting points"
            done[name] += 1
            scored[name] += e.items
    found = counted(forecast(run, 2, None))
    assert tuple(found) == PHASES
    for name in ("baselines", "holdout"):
        assert found[name] == (done[name], scored[name])
    # how many starting points differ, and how many finalists, only the run shows
    assert 0 < done["starting points"] <= (found["starting points"][0] or 0) <= 4
    before = (found["starting points"][0] or 0) - done["starting points"]
    spare = before if items is None else before * 2
    assert 0 <= done["search"] - (found["search"][0] or 0) <= spare
    assert done["final"] <= (found["final"][0] or 0) <= done["final"] + 12
    size = (tmp_path / "ledger.sqlite").stat().st_size
    assert size < ledger_bytes(run, forecast(run, 2, None)) < size + (20 << 20)


def test_seconds_follow_from_costs() -> None:
    run = plan(candidates=60)
    alone, pair = forecast(run, 1, COSTS, before=5.0), forecast(run, 2, COSTS, before=5.0)
    assert pair.starting == 15.0
    assert alone.evaluations == pair.evaluations
    search = next(phase for phase in alone.phases if phase.name == "search")
    # task_arithmetic was not measured, so it costs as much as the dearest
    each = 1.0 + COSTS.score(40) + RECORDING
    assert search.seconds == pytest.approx((search.evaluations or 0) * each + 2.0)
    assert alone.seconds is not None
    assert pair.seconds is not None
    assert alone.seconds - 15.0 > pair.seconds - 15.0 > (alone.seconds - 15.0) / 2
    assert alone.utilization == pytest.approx(1.0)
    assert pair.utilization is not None
    assert 0.8 < pair.utilization <= 1.0


def test_a_time_budget_ends_the_search_before_the_finals_share() -> None:
    run = replace(plan(), budget=Budget(None, None, 1000.0))
    found = forecast(run, 4, COSTS)
    search = next(phase for phase in found.phases if phase.name == "search")
    before = sum(phase.seconds or 0.0 for phase in found.phases[:2]) + COSTS.start
    assert search.seconds is not None
    each = 1.0 + COSTS.score(40) + RECORDING
    assert 850.0 <= before + search.seconds < 850.0 + 4 * each
    assert (search.evaluations or 0) == pytest.approx(4 * search.seconds / each, rel=0.05)
    twice = forecast(replace(run, budget=Budget(None, None, 2000.0)), 4, COSTS)
    more = next(phase for phase in twice.phases if phase.name == "search")
    assert (more.evaluations or 0) > 2 * (search.evaluations or 0)


def test_a_time_budget_without_measurements_says_nothing_about_the_search() -> None:
    found = forecast(replace(plan(), budget=Budget(None, None, 1000.0)), 4, None)
    assert counted(found)["search"] == (None, None)
    assert found.evaluations is None
    assert found.items is None
    assert found.seconds is None


def test_without_holdout_there_is_no_such_phase() -> None:
    run = plan()
    run = replace(run, holdout_items=replace(run.holdout_items, tasks=(("task", ()),)))
    assert [phase.name for phase in forecast(run, 1, COSTS).phases] == list(PHASES[:-1])


@given(st.lists(st.floats(0.01, 10.0), max_size=30), st.integers(1, 6))
def test_makespan_is_between_its_bounds(durations: list[float], workers: int) -> None:
    found = makespan(durations, workers)
    low = max(sum(durations) / workers, max(durations, default=0.0))
    assert low - 1e-9 <= found <= sum(durations) + 1e-9


class Asked:
    """A strategy of which only the rhythm matters."""

    def __init__(self, population: int) -> None:
        self.population = population
        self.estimates = ()

    def ask(self) -> tuple[float, ...]:
        return (0.5,)

    def tell(self, genotypes: object, fitness: object) -> None:
        pass


@given(
    count=st.integers(1, 40),
    workers=st.integers(1, 5),
    population=st.integers(4, 9),
    schedule=st.builds(Schedule, ordered=st.booleans(), ahead=st.integers(0, 9)),
    seed=st.integers(0, 99),
)
def test_generations_run_as_the_core_lets_them(
    count: int, workers: int, population: int, schedule: Schedule, seed: int
) -> None:
    durations = [1.0 + (seed * (k + 7) % 13) / 5.0 for k in range(count)]
    core = Core(Asked(population), schedule, lambda index: index < count)
    waiting: list[int] = []
    running: dict[int, float] = {}
    clock = 0.0
    while core.asked < count or core.unfinished:
        waiting += [proposal.index for proposal in core.proposals()]
        while waiting and len(running) < workers:
            index = waiting.pop(0)
            running[index] = clock + durations[index]
        first = min(running, key=lambda index: (running[index], index))
        clock = running.pop(first)
        core.result(first, (0.0,))
    done, wall = generations(durations, workers, population, schedule, None)
    assert done == count
    assert wall == pytest.approx(clock)
    part, _ = generations(durations, workers, population, schedule, wall / 3)
    assert 0 < part <= count
