"""What every WorkerPool promises, on all of them; and what only some can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from evomerge.candidate import OUT_OF_MEMORY, Assignment, Failed, Lost, Scored
from evomerge.errors import EvomergeError, Interrupted, InvalidInput, PreflightFailed
from evomerge.run.dispatcher import Concluded, Dispatcher
from evomerge.run.pool import Answer, WorkerPool
from evomerge.run.pools import backoff
from evomerge.run.pools.inline import InlinePool
from evomerge.run.pools.local import local_pool, visible_gpus
from evomerge.run.pools.ray import ray_pool
from evomerge.run.pools.ray_cluster import RayCluster
from evomerge.run.resources import WorkerResources
from tests.contracts.fake_workers import FakeFactory, assignment, expected

PATIENCE = 300.0
"""Seconds after which a state that must come has not come: a busy machine is slow, not broken."""
SOUND = FakeFactory()
pytestmark = pytest.mark.xdist_group("ray")


def patient(_: Assignment) -> float:
    return PATIENCE


Deadline = Callable[[Assignment], float]


class MakePool(Protocol):
    def __call__(self, factory: FakeFactory = ..., *, deadline: Deadline = ...) -> WorkerPool: ...


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    cluster = RayCluster.join("local", cpus=2)
    yield
    cluster.close()


def pool_maker(kind: str) -> MakePool:
    def make(factory: FakeFactory = SOUND, *, deadline: Deadline = patient) -> WorkerPool:
        if kind == "inline":
            return InlinePool(factory)
        if kind == "local":
            return local_pool(factory, 2, deadline=deadline)
        return ray_pool(factory, 2, cluster=RayCluster.join(), deadline=deadline)

    return make


@pytest.fixture(params=["inline", "local", "ray"])
def make(request: pytest.FixtureRequest) -> MakePool:
    """Every pool."""
    if request.param == "ray":
        request.getfixturevalue("_ray")
    return pool_maker(request.param)


@pytest.fixture(params=["inline", "local"])
def make_here(request: pytest.FixtureRequest) -> MakePool:
    """Without Ray, for what it shares with the local pool: every pool on it costs seconds."""
    return pool_maker(request.param)


@pytest.fixture(params=["local", "ray"])
def make_remote(request: pytest.FixtureRequest) -> MakePool:
    """Every pool whose workers are processes of their own."""
    if request.param == "ray":
        request.getfixturevalue("_ray")
    return pool_maker(request.param)


def all_answers(pool: WorkerPool, work: Sequence[Assignment]) -> dict[int, Answer]:
    answers: dict[int, Answer] = {}
    for given in work:
        pool.submit(given)
    end = time.monotonic() + PATIENCE
    while pool.pending():
        assert time.monotonic() < end, "the pool does not answer"
        for answer in pool.poll(1.0):
            assert answer.assignment.candidate not in answers, "answered twice"
            answers[answer.assignment.candidate] = answer
    return answers


def conclude(
    pool: WorkerPool, work: Sequence[Assignment], *, max_attempts: int = 3
) -> dict[int, Concluded]:
    dispatcher = Dispatcher(pool, max_attempts=max_attempts)
    concluded: dict[int, Concluded] = {}
    for given in work:
        dispatcher.submit(given)
    end = time.monotonic() + PATIENCE
    while dispatcher.pending():
        assert time.monotonic() < end, "the dispatcher does not conclude"
        for entry in dispatcher.poll(1.0):
            assert entry.assignment.candidate not in concluded, "concluded twice"
            concluded[entry.assignment.candidate] = entry
    return concluded


def poll_for_ever(pool: WorkerPool) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert pool.poll(1.0) == ()


def process(name: str) -> int:
    return int(name.rpartition(":")[2])


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def both_workers(pool: WorkerPool) -> set[int]:
    """The processes of a pool's two workers, once both are there and have nothing to do."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answers = all_answers(pool, [assignment(n, "sleep", "0.3") for n in (101, 102)])
        pids = {process(answer.worker) for answer in answers.values()}
        if len(pids) == 2:
            return pids
    pytest.fail("the second worker does not come")


def wait_until_gone(pids: set[int]) -> None:
    end = time.monotonic() + PATIENCE
    while remaining := {pid for pid in pids if alive(pid)}:
        assert time.monotonic() < end, f"still alive: {remaining}"
        time.sleep(0.02)


def test_every_pool_gives_the_same_answers_in_any_order_of_submission(make: MakePool) -> None:
    work = [assignment(number, "score", "a", "b", "c") for number in range(8)]
    with make() as pool:
        answers = all_answers(pool, work)
        again = all_answers(pool, work[::-1])
    assert {number: answer.outcome for number, answer in answers.items()} == {
        given.candidate: expected(given) for given in work
    }
    assert {n: a.outcome for n, a in again.items()} == {n: a.outcome for n, a in answers.items()}


def test_submit_queues_poll_without_work_returns_and_withdraw_takes_back(
    make_here: MakePool,
) -> None:
    with make_here() as pool:
        began = time.monotonic()
        assert pool.poll(30.0) == ()
        assert time.monotonic() - began < 20.0
        work = [assignment(number) for number in range(20)]
        for given in work:
            pool.submit(given)
        assert pool.pending() == 20
        assert pool.withdraw() == tuple(work)
        assert pool.pending() == 0
        assert all_answers(pool, work[:1])[0].outcome == expected(work[0])
    pool.close()


def test_a_candidates_failure_is_an_answer_and_the_worker_lives_on(make: MakePool) -> None:
    with make() as pool:
        concluded = conclude(pool, [assignment(1, "fail"), *map(assignment, (2, 3))])
    assert concluded[1].outcome == Failed("unusable merge", "merged tensor 'w' holds NaN")
    assert [concluded[n].outcome for n in (2, 3)] == [expected(assignment(n)) for n in (2, 3)]
    assert {entry.attempts for entry in concluded.values()} == {1}


def test_a_broken_worker_is_replaced_and_the_candidate_not_blamed(
    make: MakePool, tmp_path: Path
) -> None:
    with make() as pool:
        work = assignment(1, "break once", str(tmp_path / "marker"))
        pool.submit(work)
        (lost,) = all_answers(pool, ()).values()
        assert isinstance(lost.outcome, Lost)
        assert lost.outcome.message == (
            "the worker broke: RuntimeError: CUDA error: device-side assert triggered and more"
        )
        assert conclude(pool, [work])[1].outcome == expected(work)


def test_a_users_error_in_the_constructor_reaches_the_driver_as_it_is(make: MakePool) -> None:
    with make(FakeFactory("user error")) as pool:
        pool.submit(assignment(1))
        with pytest.raises(PreflightFailed, match="parent 'math' has 30 layers, expected 32") as e:
            poll_for_ever(pool)
    assert e.value.problems == ("parent 'math' has 30 layers, expected 32", "and 1 more")


def test_any_other_error_in_the_constructor_is_final_at_the_third_time(
    make_here: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_AFTER_FAILED_START", 0.05)
    line = "in 3 attempts, the last time because: OSError: no space left in the sky$"
    with make_here(FakeFactory("other error")) as pool:
        pool.submit(assignment(1))
        with pytest.raises(EvomergeError, match=line):
            poll_for_ever(pool)


def test_work_of_a_killed_worker_is_done_by_another(make_remote: MakePool, tmp_path: Path) -> None:
    killer = assignment(1, "kill once", str(tmp_path / "marker"))
    with make_remote() as pool:
        concluded = conclude(pool, [killer, *map(assignment, range(2, 8))])
    assert concluded[1].outcome == expected(killer)
    assert concluded[1].attempts == 2
    assert all(concluded[n].outcome == expected(assignment(n)) for n in range(2, 8))


def test_poison_fails_after_three_workers_and_everything_else_is_done(
    make_remote: MakePool,
) -> None:
    with make_remote() as pool:
        concluded = conclude(pool, [assignment(1, "kill"), *map(assignment, range(2, 12))])
    poison = concluded.pop(1)
    assert isinstance(poison.outcome, Failed)
    assert poison.outcome.kind == "worker lost"
    assert poison.outcome.message.startswith("3 times; the last: ")
    assert poison.attempts == 3
    assert {n: c.outcome for n, c in concluded.items()} == {
        n: expected(assignment(n)) for n in range(2, 12)
    }
    assert {entry.attempts for entry in concluded.values()} == {1}


def test_out_of_memory_ends_the_worker_and_the_next_one_has_all_of_it(
    make: MakePool, tmp_path: Path
) -> None:
    full = assignment(1, "full once", str(tmp_path / "marker"))
    with make() as pool:
        answer = all_answers(pool, [full])[1]
        assert answer.outcome == Failed(OUT_OF_MEMORY, "no room")
        (tmp_path / "marker").unlink()
        concluded = conclude(pool, [full])[1]
        assert (concluded.outcome, concluded.attempts) == (expected(full), 2)


def test_a_worker_gets_no_more_memory_than_it_may_have() -> None:
    with local_pool(FakeFactory(), 1, memory=1 << 30, deadline=patient) as pool:
        small = assignment(1, "allocate", str(1 << 20))
        large = assignment(2, "allocate", str(1 << 31))
        answers = all_answers(pool, [small, large])
    assert answers[1].outcome == expected(small)
    assert answers[2].outcome == Failed(OUT_OF_MEMORY, "no room")


def test_once_workers_were_ready_a_failed_start_may_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(backoff, "_AFTER_FAILED_START", 0.01)
    ready = tmp_path / "ready"
    ready.touch()
    with local_pool(FakeFactory(f"only {ready}"), 1, deadline=patient) as pool:
        killer = assignment(1, "kill once", str(tmp_path / "marker"))
        assert isinstance(all_answers(pool, [killer])[1].outcome, Lost)
        pool.submit(killer)
        for _ in range(3):
            assert pool.poll(0.3) == ()
        ready.touch()
        assert all_answers(pool, ())[1].outcome == expected(killer)


def test_after_half_an_hour_without_workers_a_run_pauses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(backoff, "_AFTER_FAILED_START", 0.0)
    monkeypatch.setattr(backoff, "PATIENT_STRIKES", 3)
    ready = tmp_path / "ready"
    ready.touch()
    with local_pool(FakeFactory(f"only {ready}"), 1, deadline=patient) as pool:
        all_answers(pool, [assignment(1, "kill once", str(tmp_path / "marker"))])
        pool.submit(assignment(2))
        with pytest.raises(Interrupted, match=r"in 3 attempts.*the same command continues"):
            poll_for_ever(pool)


def test_one_machine_that_cannot_start_workers_does_not_end_a_run(tmp_path: Path) -> None:
    (tmp_path / "first").touch()
    with local_pool(FakeFactory(f"only {tmp_path / 'first'}"), 2, deadline=patient) as pool:
        work = [assignment(number) for number in range(6)]
        assert len(conclude(pool, work)) == 6


def test_a_hung_worker_is_killed_at_the_deadline(make_remote: MakePool, tmp_path: Path) -> None:
    hung = assignment(1, "hang once", str(tmp_path / "marker"))
    seconds = [1.0]
    with make_remote(deadline=lambda _: seconds[0]) as pool:
        pool.submit(hung)
        (lost,) = all_answers(pool, ()).values()
        assert lost.outcome == Lost("no answer within 1 s; it was stopped")
        seconds[0] = PATIENCE
        assert conclude(pool, [hung])[1].outcome == expected(hung)
        wait_until_gone({process(lost.worker)})


def test_idle_workers_that_died_together_cost_at_most_one_attempt(make_remote: MakePool) -> None:
    with make_remote() as pool:
        pids = both_workers(pool)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(pids)
        concluded = conclude(pool, [assignment(7)], max_attempts=2)
    assert concluded[7].outcome == expected(assignment(7))


def test_close_ends_busy_and_idle_workers(make_remote: MakePool) -> None:
    with make_remote() as pool:
        pids = both_workers(pool)
        pool.submit(assignment(3, "hang"))
        pool.poll(0.0)
    wait_until_gone(pids)


def test_ctrl_c_does_not_reach_the_workers() -> None:
    with local_pool(FakeFactory(), 2, deadline=patient) as pool:
        pids = both_workers(pool)
        for number in (3, 4):
            pool.submit(assignment(number, "sleep", "0.5"))
        pool.poll(0.1)
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        drained = all_answers(pool, ())
    assert all(isinstance(answer.outcome, Scored) for answer in drained.values())
    assert {process(answer.worker) for answer in drained.values()} == pids


def test_a_process_that_dies_while_starting_is_final_at_the_third_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "_AFTER_FAILED_START", 0.05)
    with local_pool(FakeFactory("death"), 1, deadline=patient) as pool:
        pool.submit(assignment(1))
        with pytest.raises(EvomergeError, match=r"in 3 attempts.*it ended with exit code 7"):
            poll_for_ever(pool)


def test_a_stopped_process_hits_the_deadline() -> None:
    seconds = [PATIENCE]
    with local_pool(FakeFactory(), 1, deadline=lambda _: seconds[0]) as pool:
        pid = process(all_answers(pool, [assignment(1)])[1].worker)
        os.kill(pid, signal.SIGSTOP)
        seconds[0] = 0.5
        lost = all_answers(pool, [assignment(2)])[2]
        assert isinstance(lost.outcome, Lost)
        seconds[0] = PATIENCE
        assert conclude(pool, [assignment(2)])[2].outcome == expected(assignment(2))


def test_local_workers_get_their_gpu_their_threads_and_a_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-5")
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    with local_pool(FakeFactory(), 2, deadline=patient, threads=7, logs=tmp_path / "logs") as pool:
        both_workers(pool)
        for number in range(2):
            pool.submit(assignment(number, "environment", str(tmp_path / str(number)), *names))
        answers = all_answers(pool, [assignment(5, "print")])
    assert len(answers) == 3
    seen = {(tmp_path / str(number)).read_text() for number in range(2)}
    assert seen == {"['3', '7']", "['MIG-5', '7']"}
    logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert logs == "printed by a worker\n"
    assert capfd.readouterr().out == ""


def test_what_local_workers_print_does_not_mix_with_results(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with local_pool(FakeFactory(), 1, deadline=patient) as pool:
        all_answers(pool, [assignment(1, "print")])
    assert capfd.readouterr() == ("", "printed by a worker\n")


@pytest.mark.parametrize(
    ("environment", "nodes", "gpus"),
    [
        ({}, (), ()),
        ({}, ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"), ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("nvidia0",), ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ("nvidia0",), ()),
        ({"CUDA_VISIBLE_DEVICES": "2, MIG-1a"}, (), ("2", "MIG-1a")),
    ],
)
def test_visible_gpus(
    environment: dict[str, str], nodes: tuple[str, ...], gpus: tuple[str, ...], tmp_path: Path
) -> None:
    for name in nodes:
        (tmp_path / name).touch()
    assert visible_gpus(environment, tmp_path) == gpus


DRIVER = """
from evomerge.run.pools.local import local_pool
from tests.contracts.fake_workers import FakeFactory, assignment

if __name__ == "__main__":
    with local_pool(FakeFactory(), 2, deadline=lambda _: 60.0) as pool:
        for number in range(2):
            pool.submit(assignment(number, "sleep", "0.4"))
        names = set()
        while pool.pending():
            names |= {answer.worker for answer in pool.poll(1.0)}
        pool.submit(assignment(3, "hang"))
        pool.poll(0.1)
        print(*names, flush=True)
        while True:
            pool.poll(1.0)
"""


def test_busy_and_idle_workers_die_with_a_killed_driver(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        pids = {process(name) for name in driver.stdout.readline().split()}
        driver.kill()
    assert pids
    wait_until_gone(pids)


def test_ray_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"pip install 'evomerge\[ray\]'"):
        RayCluster.join()


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (WorkerResources(64), "expected 64 CPUs, 0 GPUs on one node, got 2 CPUs, 0 GPUs"),
        (WorkerResources(1, 0.5), r"expected 1 CPUs, 0\.5 GPUs on one node, got 2 CPUs, 0 GPUs"),
        (WorkerResources(1, None, 10**15), r"expected 1 CPUs, 0 GPUs, 1000000\.0 GB on one node"),
    ],
)
def test_a_worker_that_fits_on_no_node_is_refused(wanted: WorkerResources, line: str) -> None:
    with pytest.raises(PreflightFailed, match=f"no node can hold a worker: {line}"):
        ray_pool(FakeFactory(), 1, cluster=RayCluster.join(), resources=wanted, deadline=patient)


@pytest.mark.usefixtures("_ray")
def test_a_local_ray_listens_on_the_loopback_address_only() -> None:
    import ray  # noqa: PLC0415

    (node,) = ray.nodes()
    ports = {node["NodeManagerPort"], node["ObjectManagerPort"]}
    assert {address for address, port in listening() if port in ports} == {"loopback"}


@pytest.mark.usefixtures("_ray")
def test_the_room_on_a_cluster_is_counted_by_resource() -> None:
    cluster = RayCluster.join()
    assert cluster.room(WorkerResources(1), size=10**6) == 2
    assert cluster.room(WorkerResources(2), size=10**6) == 1
    total = next(iter(cluster.offers().values()))["memory"]
    assert cluster.room(WorkerResources(1), size=int(0.6 * total)) == 1
    assert cluster.room(WorkerResources(1, None, int(0.4 * total)), size=int(0.6 * total)) == 2


def listening() -> Iterator[tuple[str, int]]:
    """Every listening port, with "loopback" or the address in hex; IPv4 may be mapped into IPv6."""
    own = {"0100007F", "0000000000000000FFFF00000100007F"}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, _, port = line.split()[1].partition(":")
            if line.split()[3] == "0A":
                yield "loopback" if address in own else address, int(port, 16)
