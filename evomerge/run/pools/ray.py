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
from evomerge.run.pools.ray_refusals import Refusals
from evomerge.run.pools.serving import Message, Started, StartFailure, one_line
from evomerge.run.pools.supervised import START_DEADLINE, Gone, SupervisedPool
from evomerge.run.resources import WorkerResources

_NODE_LABEL = "ray.io/node-id"
_GLANCE = 5.0
"""Seconds between looks at whether a node may be asked again."""

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

    Every node needs this evomerge, and the parents under the same paths. One with other software is
    named and gets no more workers. One where a worker cannot start for another reason is named and
    asked again after a minute, then after two, up to fifteen, or as soon as no other is left.

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

    def __init__(self, transport: RayTransport) -> None:
        self._transport = transport
        self._node: str | None = None
        self._host = ""
        self._ask()

    def _ask(self) -> None:
        self._actor, self.avoided = self._transport.actor()
        self.awaited: Any = self._actor.site.remote()

    def ask_again(self) -> None:
        """Wait for a place on the nodes that are open now: Ray keeps what an actor avoids."""
        self.kill()
        self._ask()

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
        if isinstance(message, Started):
            self._transport.refusals.welcome(self._node)
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
        self.refusals = Refusals()
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
        self._open()
        return RayMember(self)

    def actor(self) -> tuple[Any, frozenset[str]]:
        """A new actor, which waits for a place, and the nodes that it avoids as long as it does."""
        closed = self.refusals.closed(time.monotonic())
        # Ray's own restarts and retries wait for ever once capacity is gone: the pool does both.
        options = self._actor.options(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            memory=self._resources.memory,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            label_selector={_NODE_LABEL: f"!in({','.join(sorted(closed))})"} if closed else None,
        )
        return options.remote(), closed

    def wait(self, members: Sequence[RayMember], timeout: float) -> Sequence[RayMember]:
        """The members whose answer has arrived."""
        avoiding = [member for member in members if member.avoided and not member.placed]
        if avoiding:
            self._open()
            closed = self.refusals.closed(time.monotonic())
            for member in avoiding:
                if not member.avoided <= closed:
                    member.ask_again()
            timeout = min(timeout, _GLANCE)
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
        known = self.refusals.last
        refused = "" if known is None else f"; the last node to fail: {known}"
        if self._cluster.autoscaling():
            _log.warning("%s; waiting on for the cluster to start nodes%s", line, refused)
            return None
        return Interrupted(
            f"{line} (each takes {self._resources}): other jobs hold the nodes, or the nodes are "
            f"gone or refused{refused}; finished work is saved, and the same command continues "
            "when there is room"
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
        return self.refused(node, "", StartFailure((line,), PreflightFailed), for_good=True)

    def refused(
        self, node: str, host: str, failure: StartFailure, *, for_good: bool = False
    ) -> StartFailure:
        """The failure after which a node gets no workers for a while, if there are others.

        One that keeps failing while the others are full is a failure like any other.
        """
        problems = failure.problems
        if host:
            problems = tuple(f"node {host}: {problem}" for problem in problems)
        self.refusals.add(node, " ".join(problems), time.monotonic(), for_good=for_good)
        if len(self._cluster.offers()) > 1:
            failure = replace(failure, problems=problems)
        others = self._open()
        return replace(failure, elsewhere=bool(others) and not self.refusals.lasting(node))

    def _open(self) -> frozenset[str]:
        """The nodes that may get a worker; if there are none, those whose trouble may pass will."""
        offers = self._cluster.offers().items()
        fitting = [node for node, offer in offers if self._resources.fits(offer)]
        found = self.refusals.open_of(fitting, time.monotonic())
        if not found:
            self.refusals.forgive()
        return found

    def close(self) -> None:
        """Leave the cluster."""
        self._cluster.close()


def _epitaph(error: Exception) -> str:
    """What Ray knows about the death of an actor, without its page of general advice."""
    detail = str(error).partition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return f"{type(error).__name__}: {detail}" if detail else one_line(error)


_conforms: type[WorkerPool] = SupervisedPool[RayMember]
