"""Workers on several Ray nodes, which are refused, killed and added while there is work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.candidate import Lost
from evomerge.errors import Interrupted, PreflightFailed
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.pools.ray import ray_pool
from evomerge.run.pools.ray_cluster import RayCluster, starts_nodes
from tests.contracts.fake_workers import FakeFactory, assignment, expected
from tests.contracts.test_pools import all_answers, patient, poll_for_ever
from tests.ray_nodes import Nodes

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One sound node, and one whose torch has another number."""
    other = tmp_path_factory.mktemp("site") / "torch-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    with Nodes() as started:
        started.add("sound", "--num-cpus=1")
        path = {"PYTHONPATH": str(other.parent)}
        started.add("other", "--num-cpus=1", environment=path)
        yield started


@pytest.fixture(scope="module")
def cluster(nodes: Nodes) -> Iterator[RayCluster]:
    """Joined once: pools that join again leave it as it is."""
    joined = RayCluster.join(nodes.address)
    yield joined
    joined.close()


def test_a_node_with_other_software_is_refused_once_and_the_others_work(
    cluster: RayCluster, caplog: pytest.LogCaptureFixture
) -> None:
    again = RayCluster.join(cluster.address)
    with (
        caplog.at_level(logging.WARNING),
        ray_pool(FakeFactory(), 2, cluster=again, deadline=patient) as pool,
    ):
        work = [assignment(number, "sleep", "0.3") for number in range(12)]
        answers = all_answers(pool, work)
    assert {n: a.outcome for n, a in answers.items()} == {w.candidate: expected(w) for w in work}
    assert len({answer.worker for answer in answers.values()}) == 1
    assert not cluster.autoscaling()
    refusals = [
        r.message for r in caplog.records if "has other software (torch: 9.9 there" in r.message
    ]
    assert len(refusals) == 1


def test_an_error_of_the_only_usable_node_is_the_runs(cluster: RayCluster) -> None:
    again = RayCluster.join(cluster.address)
    with ray_pool(FakeFactory("user error"), 2, cluster=again, deadline=patient) as pool:
        pool.submit(assignment(1))
        with pytest.raises(
            PreflightFailed, match=r"node \S+: parent 'math' has 30 layers|torch: 9"
        ):
            poll_for_ever(pool)


def test_the_only_usable_node_is_asked_again_after_a_failed_start(
    cluster: RayCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again, ready = RayCluster.join(cluster.address), tmp_path / "ready"
    ready.touch()
    factory = FakeFactory(f"only {ready}")
    with ray_pool(factory, 1, cluster=again, deadline=patient) as pool:
        killer = assignment(1, "kill once", str(tmp_path / "marker"))
        assert isinstance(all_answers(pool, [killer])[1].outcome, Lost)
        pool.submit(killer)
        while "this machine has no parents" not in caplog.text:
            assert pool.poll(0.5) == ()
        ready.touch()
        assert all_answers(pool, ())[1].outcome == expected(killer)


def test_a_pool_without_any_place_says_so_and_the_run_can_be_continued(
    cluster: RayCluster,
) -> None:
    holder = ray_pool(FakeFactory(), 2, cluster=RayCluster.join(cluster.address), deadline=patient)
    late = RayCluster.join(cluster.address)
    with holder:
        all_answers(holder, [assignment(1)])
        with ray_pool(
            FakeFactory(), 1, cluster=late, deadline=patient, start_deadline=1.0
        ) as waiting:
            waiting.submit(assignment(1))
            with pytest.raises(Interrupted, match="no room for a worker in 1 s"):
                poll_for_ever(waiting)


def test_what_a_killed_node_did_is_done_by_a_node_that_joined_since(
    nodes: Nodes, cluster: RayCluster
) -> None:
    again = RayCluster.join(cluster.address)
    work = [assignment(number, "sleep", "0.3") for number in range(30)]
    with ray_pool(FakeFactory(), 3, cluster=again, deadline=patient) as pool:
        dispatcher = Dispatcher(pool)
        for given in work:
            dispatcher.submit(given)
        before = [entry for _ in range(4) for entry in dispatcher.poll(10.0)]
        nodes.kill("sound")
        nodes.add("new", "--num-cpus=1")
        after = []
        while dispatcher.pending():
            after += dispatcher.poll(10.0)
    concluded = {entry.assignment.candidate: entry for entry in (*before, *after)}
    assert len(before) + len(after) == len(concluded) == len(work)
    assert {n: c.outcome for n, c in concluded.items()} == {w.candidate: expected(w) for w in work}
    assert sorted(c.attempts for c in concluded.values())[-2:] == [1, 2]
    assert not {c.worker for c in before} & {c.worker for c in after if c.attempts == 2}


@pytest.mark.parametrize(
    ("report", "answer"),
    [
        (None, False),
        (b"{}", False),
        (b'{"autoscaler_report": {"active_nodes": {"node_da5d37": 1}}}', False),
        (b'{"autoscaler_report": {"active_nodes": {"ray.head.default": 1}}}', True),
        # before any node counts as active
        (
            b'{"autoscaler_report": {"active_nodes": {}, "idle_nodes": null, '
            b'"node_type_mapping": {"ffff00000": "ray.head.default"}, "legacy": true}}',
            True,
        ),
    ],
)
def test_an_autoscaler_is_told_from_a_monitor_that_only_watches(
    report: bytes | None, answer: bool
) -> None:
    assert starts_nodes(report) is answer
