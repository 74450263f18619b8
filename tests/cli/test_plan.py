from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge import yaml12
from evomerge.cli import plan
from evomerge.cli.consenting import AllowFlags
from evomerge.cli.outlook import Outlook, Place, judge
from evomerge.cli.plan_text import duration, size
from evomerge.errors import PreflightFailed
from evomerge.run import needs
from evomerge.run.calibration import Calibration, Rehearsal, Timings, rehearse
from evomerge.run.machine import Memory
from evomerge.run.pools.ray_nodes import Node
from evomerge.run.workers import WorkerSpec
from tests.cli.conftest import Run
from tests.models import llama

GB = 10**9
Space = Callable[..., Path]


def test_a_plan_with_its_calibration(evomerge: Run, space: Space, tmp_path: Path) -> None:
    path, run = space(), tmp_path / "run"
    done = evomerge("plan", path, "--out", run, "--workers", "1", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["schema"] == "evomerge/plan/v1"
    assert not run.exists()
    assert found["stages"][0]["dimensions"] == 4
    assert found["stages"][0]["algorithm"] == "cma_es"
    assert [len(parent["fingerprint"]) for parent in found["parents"]] == [16, 16, 16]
    methods = set(found["calibration"]["first_build"])
    assert {"task_arithmetic", "ties", "dare_ties", "linear", "slerp"} <= methods
    assert found["memory"]["measured"]
    assert found["memory"]["worker"] > found["memory"]["resident_model"] > 0
    assert found["memory"]["fitting_workers"] >= 1
    assert found["total"]["seconds"] > found["total"]["starting"] > 0
    phases = {phase["name"]: phase["evaluations"] for phase in found["phases"]}
    assert phases["baselines"] + phases["starting points"] + phases["search"] == 34


def test_a_quick_plan_reads_headers_only(
    evomerge: Run, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "calibrate", None)
    done = evomerge("plan", space(), "--quick", "--budget", "8h")
    assert done.code == 0, done.err
    assert "times were not measured" in done.out
    (search,) = [
        line for line in done.out.splitlines() if line.startswith("search  ") and "?" in line
    ]
    assert search.split() == ["search", "?", "?", "?"]
    counted = evomerge("plan", space(), "--quick", "--set", "budget={candidates: 50}").out
    (search,) = [line.split() for line in counted.splitlines() if line.split()[:1] == ["search"]][
        1:
    ]
    assert search[1:3] == ["36", "720"]


def test_two_stages_of_which_the_second_waits_for_the_first(
    evomerge: Run, space: Space, parents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(spec: WorkerSpec, rehearsal: Rehearsal) -> Calibration:
        timings = rehearse(spec(), rehearsal)
        assert isinstance(timings, Timings)
        return Calibration(1.0, timings, GB, GB, 0)

    monkeypatch.setattr(plan, "calibrate", here)
    path = space()
    content = yaml12.load(path)
    second = {
        "merge_method": "stack",
        "models": [{"model": "$one.best"}, {"model": str(parents / "b")}],
        "layers": [2, 7],
    }
    content["stages"] = [
        {"name": "one", "space": content.pop("space")},
        {"name": "two", "space": second},
    ]
    content["budget"] = {"candidates": 60}
    path.write_text(yaml12.dumps(content))
    done = evomerge("plan", path, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    names = [phase["name"] for phase in found["phases"]]
    assert names[0] == "one: baselines"
    assert "two: search" in names
    assert "stack" in found["calibration"]["first_build"]
    assert found["disk"]["cache"]["merged_models"] == found["memory"]["resident_model"]


def test_parents_that_do_not_fit_are_all_named(
    evomerge: Run, space: Space, tmp_path: Path, parents: Path
) -> None:
    llama(tmp_path / "wide", layers=4, hidden=64)
    models = [{"model": str(tmp_path / "wide")}, {"model": str(parents / "a")}]
    done = evomerge("plan", space(space={"models": models}))
    assert done.code == 3
    assert "wide" in done.err
    assert done.out == ""


def test_a_search_does_not_start_on_a_full_disk(
    evomerge: Run, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "free_disk", lambda _folder: 1000)
    run = tmp_path / "run"
    done = evomerge("search", "--space", space(), "--out", run, "--engine", "inline")
    assert done.code == 3
    (line,) = done.err.splitlines()
    assert "the run needs" in line
    assert "choose another disk with --out" in line
    assert not run.exists()
    planned = evomerge("plan", space(), "--out", run, "--quick")
    assert planned.code == 3
    assert "disk " in planned.out
    assert planned.err.splitlines() == [line]


def test_a_start_that_cannot_be_scored_is_one_of_the_problems(
    evomerge: Run, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object) -> None:
        raise PreflightFailed("calibration: the worker was killed")

    monkeypatch.setattr(plan, "calibrate", dead)
    monkeypatch.setattr(plan, "memory", lambda: Memory(GB, GB // 10))
    done = evomerge("plan", space())
    assert done.code == 3
    killed, memory = done.err.splitlines()
    assert killed == "evomerge: calibration: the worker was killed"
    assert "GB are free: close other programs" in memory


@pytest.fixture
def outlook(space: Space) -> Outlook:
    request = plan.PlanRequest(
        space(), None, None, None, 4, None, (), quick=True, allow=AllowFlags()
    )
    return plan.look_ahead(request)


def placed(outlook: Outlook, **changes: Any) -> Outlook:
    place: Place = replace(outlook.place, **changes)
    return judge(replace(outlook, place=place), ())


def test_too_many_workers_are_a_warning(outlook: Outlook) -> None:
    need = outlook.memory
    room = need.shared + need.driver + 2 * need.worker
    found = placed(outlook, memory=Memory(room, room), cores=4)
    assert found.problems == ()
    assert found.warnings == ("memory: 4 workers do not fit, 2 do: use --workers 2",)
    (slow,) = placed(outlook, memory=Memory(64 * GB, 64 * GB), cores=2).warnings
    assert slow.startswith("cores: 4 workers of 1 threads on 2 cores")
    limited = placed(outlook, memory=Memory(GB, 1000, Path("/limit")))
    assert "(/limit limits it)" in limited.problems[0]


def test_nodes_of_a_cluster_and_gpus(outlook: Outlook) -> None:
    nodes = (Node("a", 8, 2, 64 * GB), Node("b", 3, 0, 64 * GB))
    found = placed(outlook, cluster=nodes)
    assert found.fitting == 5
    assert "use --workers 5" in found.warnings[0]
    tiny = placed(outlook, cluster=(Node("c", 8, 0, GB // 10),))
    assert "no node holds a worker" in tiny.problems[0]
    small = placed(outlook, gpus=(1000, 2000), memory=Memory(64 * GB, 64 * GB))
    assert "a merged model needs" in small.problems[0]
    full = placed(outlook, cache_free=-1, memory=Memory(64 * GB, 64 * GB), cores=4)
    assert full.warnings[0].startswith("cache: up to 0.00 GB")


def test_a_dead_cluster_is_a_problem(evomerge: Run, space: Space) -> None:
    done = evomerge("plan", space(), "--quick", "--address", "127.0.0.1:1")
    assert done.code == 3
    assert "no Ray cluster answers at 127.0.0.1:1" in done.err


def test_amounts_read_well() -> None:
    assert [size(n) for n in (0, 999, 5_300, 869_632, 1.2e9, 138e9)] == [
        "0 bytes",
        "999 bytes",
        "5.3 kB",
        "870 kB",
        "1.2 GB",
        "138 GB",
    ]
    assert [duration(s) for s in (None, 4.21, 59.6, 119, 600, 9000)] == [
        "?",
        "4.2 s",
        "60 s",
        "119 s",
        "10 min",
        "2.5 h",
    ]
