"""Evidence: what is known of individuals scored on different items, some of them many times.

Generation g scores on items of its own, so a fitness is f_ig = q_i + d_g + noise: how good the
individual is, and how easy the items are. Individuals that come back in g tell d_g, pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from evomerge.candidate import Genotype

PRIOR = 1.0
"""How many evaluations the first guess at an individual is worth: the middle of its generation."""
EASE = 1.5
"""How much generations differ in their items: variance of d over that of the noise.

About 0.6 of the variance of an item's outcome is common to all candidates, 0.4 is their own.
"""


@dataclass
class _Record:
    """The corrected fitness f_ig - d_g of one individual, and what was expected of it before."""

    expected: float
    values: list[float] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return PRIOR + len(self.values)

    @property
    def estimate(self) -> float:
        """Posterior mean of q_i under a normal prior: few evaluations are believed less."""
        return (PRIOR * self.expected + sum(self.values)) / self.weight

    @property
    def trust(self) -> float:
        """1 / variance of a new fitness around the estimate, in evaluations."""
        return self.weight / (self.weight + 1.0)


class Evidence:
    """Estimates of how good individuals are, from generations with common items (stateful)."""

    def __init__(self) -> None:
        self._records: dict[Genotype, _Record] = {}
        self._failed: set[Genotype] = set()
        self._ranked: tuple[Genotype, ...] = ()
        self._level = 0.0

    def add(self, genotypes: Sequence[Genotype], fitness: Sequence[float | None]) -> None:
        """Take one generation; who failed once (None) is out for good."""
        together = dict(zip(genotypes, fitness, strict=True))  # twice in one: the same items
        self._failed |= {one for one, value in together.items() if value is None}
        for one in self._failed & self._records.keys():
            del self._records[one]
        scored = {
            one: value
            for one, value in together.items()
            if value is not None and one not in self._failed
        }
        if scored:
            self._score(scored)
        # asked for many times between generations
        self._ranked = tuple(sorted(self._records, key=lambda one: -self.estimate(one)))

    def _score(self, scored: Mapping[Genotype, float]) -> None:
        new = [one for one in scored if one not in self._records]
        ease = self._ease(scored, new)
        if new:
            self._level = median(scored[one] for one in new) - ease
        for one in new:
            self._records[one] = _Record(self._level)
        for one, value in scored.items():
            self._records[one].values.append(value - ease)

    def _ease(self, scored: Mapping[Genotype, float], new: Sequence[Genotype]) -> float:
        """How much easier the items are than usual.

        The mean difference of those who came back from their estimates, shrunk towards none. Who
        came back was lucky before: with plain means and differences the lost luck would look like
        hard items, and every generation would be put above the one before it. If nobody came
        back, the middle of the new ones is taken for as good as that before them.
        """
        back = {one: self._records[one] for one in scored if one in self._records}
        if not back:
            return median(scored[one] for one in new) - self._level if self._records else 0.0
        total = sum(record.trust for record in back.values()) + 1.0 / EASE
        return sum(r.trust * (scored[one] - r.estimate) for one, r in back.items()) / total

    def ranked(self) -> tuple[Genotype, ...]:
        """Everyone who never failed, best estimate first; of equals who came first."""
        return self._ranked

    def estimate(self, one: Genotype) -> float:
        """Fitness expected of an individual on usual items."""
        return self._records[one].estimate

    def evaluations(self, one: Genotype) -> int:
        """In how many generations an individual was scored."""
        return len(self._records[one].values)
