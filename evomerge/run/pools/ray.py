"""The pool of a cluster: Ray actors, of which only recipes and outcomes travel."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

from evomerge.candidate import Assignment
from evomerge.errors import EvomergeError, Interrupted, PreflightFailed
from evomerge.run.pool import Deadline, WorkerFactory, WorkerPool
from evomerge.run.pools import ray_actor
from evomerge.run.pools.ray_cluster import RayCluster
from evomerge.run.pools.serving import Message, StartFailure, one_line
from evomerge.run.pools.supervised import START_DEADLINE, Gone, SupervisedPool
from evomerge.run.resources import WorkerResources

_NODE_LABEL = "ray.io/node-id"

_log = logging.getLogger(__name__)


def ray_pool(
    factory: WorkerFactory,
    size: int,
    *,
    cluster: RayCluster,
    resources: WorkerResources | None = None,
    deadline: Deadline,
    start_deadline: float = START_DEADLINE,
) -> SupervisedPool[RayMember]:
    """Ask a Ray cluster for `size` workers; those that do not fit yet join when there is room.

    Every node needs this evomerge, and the parents under the same paths. One that lacks either is
    named and gets no more workers; when no other is left, its error is the run's.

    Args:
        factory: makes a worker in its process.
        size: how many workers to keep asking for.
        cluster: where; closed with the pool.
        resources: what each worker reserves; None is one CPU, and a GPU if there are any.
        deadline: after which a worker that has not answered is killed.
        start_deadline: seconds until a worker that has a place must be ready; and how long to wait
            when none has a place.

    Raises:
        PreflightFailed: no node can hold a worker.
    """
    transport = RayTransport(factory, cluster, resources or WorkerResources())
    return SupervisedPool(transport, size, deadline=deadline, start_deadline=start_deadline)


@final
class RayMember:
    """The driver's view of one actor, and the answer that is awaited from it."""

    def __init__(self, transport: RayTransport, actor: Any) -> None:
        self._transport = transport
        self._actor = actor
        self._node: str | None = None
        self._host = ""
        self.awaited: Any = actor.site.remote()

    @property
    def placed(self) -> bool:
        """Whether Ray has found room for it and its process runs."""
        return self._node is not None

    def give(self, assignment: Assignment) -> bool:
        """Call the actor; that it is gone shows in the answer."""
        self.awaited = self._actor.evaluate.remote(pickle.dumps(assignment))
        return True

    def check(self) -> None:
        """Ask the actor whether it is there."""
        self.awaited = self._actor.start.remote(self._transport.factory)

    def heard(self) -> Message | Gone | None:
        """The awaited answer, if it has arrived; the first one only gives it a place."""
        ray = self._transport.ray
        if self.awaited is None or not ray.wait([self.awaited], timeout=0)[0]:
            return None
        awaited, self.awaited = self.awaited, None
        try:
            answer = ray.get(awaited)
        except ray.exceptions.RayError as error:
            # Whatever the actor itself can catch comes as a message: this is the infrastructure.
            return Gone(_epitaph(error))
        if self._node is None:
            self._node, self._host, software = answer
            refusal = self._transport.refusal(self._node, self._host, software)
            if refusal is None:
                self.check()
            return refusal
        message: Message = answer
        if isinstance(message, StartFailure) and message.error is not None:
            return self._transport.refused(self._node, self._host, message)
        return message

    def kill(self) -> None:
        """End the actor; also one that still waits for a place."""
        self._transport.ray.kill(self._actor, no_restart=True)


@final
class RayTransport:
    """Asks for actors and waits on their answers (stateful: the nodes that are refused)."""

    def __init__(
        self, factory: WorkerFactory, cluster: RayCluster, resources: WorkerResources
    ) -> None:
        self.ray = cluster.ray
        self.factory = pickle.dumps(factory)
        self._cluster = cluster
        self._software = ray_actor.software()
        self._refused: set[str] = set()
        try:
            self._resources = cluster.decided(resources)
            cluster.check(self._resources)
        except BaseException:
            cluster.close()
            raise
        # As source text, so that a node without evomerge can say what it lacks.
        self.ray.cloudpickle.register_pickle_by_value(ray_actor)
        self._actor = self.ray.remote(ray_actor.RemoteWorker)

    def launch(self, place: int) -> RayMember:  # noqa: ARG002 - Ray finds the place
        """Ask for an actor."""
        others = {_NODE_LABEL: f"!in({','.join(sorted(self._refused))})"} if self._refused else None
        # Ray's own restarts and retries wait for ever once capacity is gone: the pool does both.
        options = self._actor.options(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            memory=self._resources.memory,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            label_selector=others,
        )
        return RayMember(self, options.remote())

    def wait(self, members: Sequence[RayMember], timeout: float) -> Sequence[RayMember]:
        """The members whose answer has arrived."""
        asked = {member.awaited: member for member in members if member.awaited is not None}
        if not asked:
            time.sleep(timeout)
            return ()
        wanted = 1 if timeout else len(asked)
        ready, _ = self.ray.wait(list(asked), num_returns=wanted, timeout=timeout)
        return [asked[reference] for reference in ready]

    def no_room(self, seconds: float) -> EvomergeError | None:
        """The error that ends the run, or None to wait on, after `seconds` without any worker."""
        line = f"Ray at {self._cluster.address} had no room for a worker in {seconds:g} s"
        if self._cluster.autoscaling():
            _log.warning("%s; waiting on for the cluster to start nodes", line)
            return None
        return Interrupted(
            f"{line} (each takes {self._resources}): other jobs hold the nodes, or the nodes are "
            "gone; finished work is saved, and the same command continues when there is room"
        )

    def refusal(
        self, node: str, host: str, software: tuple[tuple[str, str], ...]
    ) -> StartFailure | None:
        """Why a node gets no worker: because its software would score otherwise; or None."""
        there, here = dict(software), dict(self._software)
        differing = [
            f"{name}: {there[name]} there, {here[name]} at the driver"
            for name in here
            if there[name] != here[name]
        ]
        if not differing:
            return None
        fix = "install the same versions on all nodes"
        line = f"node {host} has other software ({'; '.join(differing)}); {fix}"
        return self.refused(node, "", StartFailure((line,), PreflightFailed))

    def refused(self, node: str, host: str, failure: StartFailure) -> StartFailure:
        """The failure after which a node gets no more workers, if there are others."""
        self._refused.add(node)
        offers = self._cluster.offers()
        if host and len(offers) > 1:
            named = tuple(f"node {host}: {problem}" for problem in failure.problems)
            failure = replace(failure, problems=named)
        others = [offer for name, offer in offers.items() if name not in self._refused]
        return replace(failure, elsewhere=any(self._resources.fits(offer) for offer in others))

    def close(self) -> None:
        """Leave the cluster."""
        self._cluster.close()


def _epitaph(error: Exception) -> str:
    """What Ray knows about the death of an actor, without its page of general advice."""
    detail = str(error).partition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return f"{type(error).__name__}: {detail}" if detail else one_line(error)


_conforms: type[WorkerPool] = SupervisedPool[RayMember]
