"""MicroTerrain: real merges as the prototypes see a landscape: positions, items by number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from micro import Micro
from simulator import Floats, Indices


@dataclass
class MicroTerrain:
    """Items of all tasks in turn: i is item i // tasks of task i % tasks (stateful: the recipe)."""

    micro: Micro
    layers: int = 0

    def __post_init__(self) -> None:
        self._built: bytes = b""

    @property
    def seed(self) -> int:
        return self.micro.seed

    @property
    def dimension(self) -> int:
        return self.micro.space.dimension

    def right(self, u: Floats, items: Indices) -> Floats:
        """1.0 or 0.0 for each item."""
        return self._answers(u, items)[0]

    def gold(self, u: Floats, items: Indices) -> Floats:
        """The probability of the right answer."""
        return self._answers(u, items)[1]

    def quality(self, u: Floats) -> float:
        """The true quality."""
        self._built = b""
        recipe = self.micro.space.decode(tuple(u.tolist()))
        return float(self.micro.truth(recipe).mean())

    def _answers(self, u: Floats, items: Indices) -> tuple[Floats, Floats]:
        models = self.micro.models
        if u.tobytes() != self._built:
            models.resident.become(self.micro.space.decode(tuple(u.tolist())))
            self._built = u.tobytes()
        tasks = tuple(self.micro.order.items())
        found = np.empty((2, len(items)))
        for number, (task, order) in enumerate(tasks):
            mine = items % len(tasks) == number
            if mine.any():
                found[:, mine] = models.answers(task, order[items[mine] // len(tasks)])
        return found[0], found[1]
