"""Strategy: the contract between an optimiser and everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from evomerge.candidate import Genotype, Scores


class Strategy(Protocol):
    """Proposes genotypes and learns from their fitness (stateful: the order of calls matters).

    The sequence of genotypes is a function of the constructor's arguments and of what was told;
    the global random state is neither read nor changed. `ask` may be called more often than
    `population` before the next `tell`; genotypes are then up to one generation old when told.
    """

    @property
    def population(self) -> int:
        """How many genotypes one `tell` receives."""

    def ask(self) -> Genotype:
        """The next genotype: one number in [0, 1] per gene."""

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Learn from one generation, in the order asked; None marks a candidate that failed.

        A failed candidate ranks below every other. A strategy for one objective takes the first.
        """

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """What the strategy holds for the optimum, each less noisy than a single proposal.

        Asked for once, after the last `tell`; empty when there was none.
        """


def only(scores: Sequence[Scores | None]) -> tuple[float | None, ...]:
    """The fitness of each candidate where there is one objective."""
    return tuple(None if values is None else values[0] for values in scores)
