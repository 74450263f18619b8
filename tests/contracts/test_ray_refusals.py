"""When nodes that failed are asked again; the transport on a Ray that only takes notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.errors import Interrupted, PreflightFailed
from evomerge.run.pools import ray as ray_module
from evomerge.run.pools.ray import RayTransport
from evomerge.run.pools.ray_cluster import RayCluster
from evomerge.run.pools.ray_refusals import Refusals
from evomerge.run.pools.serving import Started, StartFailure
from evomerge.run.resources import WorkerResources
from tests.contracts.fake_workers import FakeFactory

FULL_DISK = StartFailure(("no space left",), PreflightFailed)


def test_a_node_waits_twice_as_long_each_time_up_to_a_quarter_of_an_hour() -> None:
    refusals, now, waits = Refusals(), 0.0, []
    for _ in range(7):
        refusals.add("a", "full", now)
        refusals.add("a", "full", now + 1.0)  # a neighbour that failed with it
        begun = now
        while "a" in refusals.closed(now):
            now += 1.0
        waits.append(now - begun)
    assert waits == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]
    assert refusals.lasting("a")
    refusals.welcome("a")
    assert not refusals.lasting("a")
    refusals.add("a", "full", now)
    assert refusals.closed(now + 59.0) == {"a"}
    assert refusals.closed(now + 60.0) == frozenset()


def test_other_software_is_not_forgiven_and_the_last_reason_is_kept() -> None:
    refusals = Refusals()
    refusals.add("b", "torch 9", 0.0, for_good=True)
    refusals.add("a", "full", 0.0)
    refusals.add("b", "full too", 1.0)
    assert refusals.open_of(("a", "b", "c"), 2.0) == {"c"}
    refusals.forgive()
    assert refusals.closed(1e9) == {"b"}
    assert refusals.last == "full too"
    refusals.welcome("b")
    assert refusals.last == "full"
    refusals.welcome("a")
    assert refusals.last is None


@dataclass
class Notes:
    """A Ray module without a cluster behind it: which nodes live, what was asked and killed."""

    alive: list[str]
    selectors: list[Any] = field(default_factory=list)
    killed: int = 0
    answer: Any = None

    def __post_init__(self) -> None:
        self.cloudpickle = SimpleNamespace(register_pickle_by_value=lambda _module: None)
        self.exceptions = SimpleNamespace(RayError=OSError)

    def nodes(self) -> list[dict[str, Any]]:
        head = {"NodeID": "head", "Alive": True, "Resources": {"CPU": 0.0}}
        live = [{"NodeID": n, "Alive": True, "Resources": {"CPU": 1.0}} for n in self.alive]
        return [head, *live]

    def remote(self, _kind: type) -> Any:
        return SimpleNamespace(options=self.options)

    def options(self, **given: Any) -> Any:
        self.selectors.append(given["label_selector"])
        site = SimpleNamespace(remote=object)
        return SimpleNamespace(remote=lambda: SimpleNamespace(site=site))

    def kill(self, _actor: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.killed += 1

    def wait(self, asked: list[Any], **_given: Any) -> tuple[list[Any], list[Any]]:
        return [], asked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    fake = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _seconds: None)
    monkeypatch.setattr(ray_module, "time", fake)
    return now


def transport(notes: Notes) -> RayTransport:
    cluster = RayCluster(notes, "head:6379", ours=False)
    return RayTransport(FakeFactory(), cluster, WorkerResources())


def test_a_waiting_worker_is_asked_for_again_when_the_node_may_have_recovered(
    clock: list[float],
) -> None:
    notes = Notes(["a", "b"])
    pool = transport(notes)
    assert pool.refused("a", "one", FULL_DISK).elsewhere
    member = pool.launch(0)
    assert notes.selectors == [{"ray.io/node-id": "!in(a)"}]
    clock[0] += 59.0
    pool.wait([member], 0.0)
    assert notes.killed == 0
    clock[0] += 1.0
    pool.wait([member], 0.0)
    assert (notes.killed, notes.selectors[1:]) == (1, [None])
    pool.wait([member], 0.0)
    assert notes.killed == 1


def test_when_no_other_node_is_left_those_that_failed_are_asked_at_once(
    clock: list[float],
) -> None:
    notes = Notes(["a", "b", "c"])
    pool = transport(notes)
    pool.refused("c", "", StartFailure(("other software",), PreflightFailed), for_good=True)
    assert pool.refused("a", "one", FULL_DISK).elsewhere
    waiting = pool.launch(0)
    last = pool.refused("b", "two", FULL_DISK)
    assert not last.elsewhere
    assert last.problems == ("node two: no space left",)
    pool.wait([waiting], 0.0)
    assert notes.selectors == [{"ray.io/node-id": "!in(a,c)"}, {"ray.io/node-id": "!in(c)"}]
    pool.refused("a", "one", FULL_DISK)
    notes.alive.remove("b")
    pool.launch(1)
    assert notes.selectors[-1] == {"ray.io/node-id": "!in(c)"}
    assert clock == [1000.0]


def test_the_only_node_is_never_avoided(clock: list[float]) -> None:
    notes = Notes(["a"])
    pool = transport(notes)
    assert not pool.refused("a", "one", FULL_DISK).elsewhere
    pool.launch(0)
    assert notes.selectors == [None]
    assert clock


def test_a_node_that_keeps_failing_while_others_are_full_counts_in_the_end(
    clock: list[float],
) -> None:
    pool = transport(Notes(["a", "b"]))
    said = []
    for _ in range(6):
        said.append(pool.refused("a", "one", FULL_DISK).elsewhere)
        clock[0] += 900.0
    assert said == [True] * 4 + [False] * 2


def test_no_room_names_the_node_that_failed_last(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayCluster, "autoscaling", lambda _self: False)
    pool = transport(Notes(["a", "b"]))
    pool.refused("a", "one", FULL_DISK)
    error = pool.no_room(900.0)
    assert isinstance(error, Interrupted)
    (line,) = error.problems
    assert "the last node to fail: node one: no space left; finished work is saved" in line
    assert clock


def test_a_ready_worker_clears_its_node(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes(["a", "b"])
    pool = transport(notes)
    pool.refused("a", "one", FULL_DISK)
    member = pool.launch(0)
    monkeypatch.setattr(member, "_node", "a")
    monkeypatch.setattr(notes, "wait", lambda asked, **_: (asked, []))
    monkeypatch.setattr(notes, "get", lambda _awaited: Started("one:1"), raising=False)
    assert member.heard() == Started("one:1")
    assert pool.refusals.last is None
    assert clock
