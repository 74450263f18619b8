"""What a path through layers can be described by, where its genes are slots that mean little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from evomerge.genes import CONTINUOUS, Axis
from evomerge.recipe import Recipe
from evomerge.report.formats import short_names
from evomerge.report.trials import Floats
from evomerge.stack import Hop, hops, path_of

_NAME = 26


def traits_of(
    recipes: Sequence[Recipe], models: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[Axis, ...], Floats]:
    """Names, axes and values (n, traits) of the paths of stacks.

    The layers of the last model are left out: those of the others and their sum say them already.
    """
    paths = [hops(path_of(recipe)) for recipe in recipes]
    short = short_names(models, _NAME)
    counted = models[:-1]
    names = (
        "number of layers",
        *(f"layers of {short[model]}" for model in counted),
        "repeated layers",
        "seams",
        "scale at seams",
    )
    rows = [
        (
            float(len(path)),
            *(float(sum(hop.model == model for hop in path)) for model in counted),
            float(len(path) - len({(hop.model, hop.layer) for hop in path})),
            float(_seams(path)),
            math.fsum(math.log(hop.gain) for hop in path),
        )
        for path in paths
    ]
    return names, (CONTINUOUS,) * len(names), np.asarray(rows, dtype=np.float64)


def _seams(path: Sequence[Hop]) -> int:
    """How often a path leaves the order of its model."""
    return sum(
        (here.model, here.layer + 1) != (there.model, there.layer) for here, there in pairwise(path)
    )
