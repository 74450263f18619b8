"""What every strategy can search, known without importing any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from evomerge.genes import Axis, Gene
from evomerge.space import SearchSpace
from evomerge.stack_space import StackSpace

MOST_GENES_GP = 64
"""A Gaussian process learns a length scale per gene, and a proposal takes seconds with so many."""
_NAMED = 3


@dataclass(frozen=True)
class Claim:
    """What one strategy can search.

    Attributes:
        choices: the most values of a choice without order; None is any number.
        genes: the most numbers of a genotype; None is any.
        stacks_only: whether it edits paths of stacks and nothing else.
    """

    choices: int | None = None
    genes: int | None = None
    stacks_only: bool = False

    def covers(self, axis: Axis) -> bool:
        """Whether it can search such a number."""
        few = self.choices is None or axis.steps is None or axis.steps <= self.choices
        return axis.ordered or few


CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {
        "cma_es": Claim(choices=2),
        "ga": Claim(),
        "tpe": Claim(),
        "gp": Claim(genes=MOST_GENES_GP),
        "nsga2": Claim(),
        "random": Claim(),
        "stack_ga": Claim(stacks_only=True),
    }
)


def usual_strategy(space: SearchSpace | StackSpace) -> str:
    """What searches a space when nothing is said: CMA-ES where it can, else a genetic algorithm."""
    if isinstance(space, StackSpace):
        return "stack_ga"
    return "ga" if _uncovered("cma_es", space) else "cma_es"


def strategy_problem(name: str, space: SearchSpace | StackSpace) -> str | None:
    """Why a strategy cannot search a space, in one line; None when it can."""
    reason = _reason(name, space)
    if reason is None:
        return None
    *others, last = (able for able in CLAIMS if _reason(able, space) is None)
    return f"strategy.algorithm: {name} {reason}; use {', '.join(others)} or {last}"


def usual_notice(space: SearchSpace | StackSpace) -> str | None:
    """Why a space is not searched by CMA-ES when nothing is said; None when it is."""
    uncovered = _uncovered("cma_es", space)
    if isinstance(space, StackSpace) or not uncovered:
        return None
    return (
        f"searched by ga: {_named(uncovered)}: more than two values without order, not for cma_es"
    )


def _reason(name: str, space: SearchSpace | StackSpace) -> str | None:
    claim = CLAIMS[name]
    if claim.stacks_only and isinstance(space, SearchSpace):
        return "searches stacks only"
    if claim.genes is not None and space.dimension > claim.genes:
        return f"searches {claim.genes} genes at most, got {space.dimension}"
    uncovered = _uncovered(name, space)
    if not uncovered:
        return None
    return f"cannot search {_named(uncovered)}: more than {claim.choices} values without order"


def _uncovered(name: str, space: SearchSpace | StackSpace) -> tuple[Gene, ...]:
    """Genes that a strategy cannot search; the bits of a stack are choices of two for all."""
    if isinstance(space, StackSpace):
        return ()
    return tuple(gene for gene in space.genes if not CLAIMS[name].covers(gene.axis))


def _named(genes: Sequence[Gene]) -> str:
    more = len(genes) - _NAMED
    names = ", ".join(_with_values(gene) for gene in genes[:_NAMED])
    return names if more <= 0 else f"{names} and {more} more"


def _with_values(gene: Gene) -> str:
    return f"{gene.name} ({', '.join(_values(gene))})"


def _values(gene: Gene) -> Iterator[str]:
    for step in range(gene.axis.steps or 0):
        yield str(gene.decode(gene.axis.middle(step)))
