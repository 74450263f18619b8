"""A stack as a `passthrough` recipe: the same function, its scales in the weights; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from evomerge.recipe import Clause, Parameters, Recipe, Setting, Slice, Source
from evomerge.stack import Hop, hops, path_of
from evomerge.weights.stack_rules import STREAM, FoldRule, fold_rule


class _Factors(NamedTuple):
    """What one hop adds to the residual is divided by `stream`, its MLP's part times `mlp`."""

    stream: float
    mlp: float


def folded(recipe: Recipe, model_type: str) -> Recipe:
    """The recipe of the plain model that computes what the stack `recipe` does.

    Args:
        recipe: a valid stack.
        model_type: the family of its models, as their config.json calls it.

    Returns:
        A `passthrough` recipe. Embeddings are those of its first slice's model, norm and head those
        of its last slice's: where these are not the donor, an empty slice of the donor is put
        there. Coefficients are exact up to the rounding of float64; tensors are rounded when they
        are stored. What nested recipes make are parents like others here.

    Raises:
        PreflightFailed: it has scales, and the family has no rule for them.
    """
    path = hops(path_of(recipe))
    factors = _factors(path, str(recipe.scale_mode))
    scaled = any(pair != (1.0, 1.0) for pair in factors)
    rule = fold_rule(model_type, str(recipe.scale_mode)) if scaled else None
    slices = [_slice(stretch, pair, rule) for stretch, pair in _stretches(path, factors)]
    edge = Slice((Source(recipe.donor, (0, 0)),))
    before = [] if path[0].model == recipe.donor else [edge]
    after = [] if path[-1].model == recipe.donor else [edge]
    return Recipe(
        "passthrough",
        slices=(*before, *slices, *after),
        base_model=recipe.donor,
        dtype=recipe.dtype,
        out_dtype=recipe.out_dtype,
        chat_template=recipe.chat_template,
    )


def is_scaled(recipe: Recipe) -> bool:
    """Whether a scale of the stack is not 1."""
    return any(hop.gain != 1.0 for hop in hops(path_of(recipe)))


def _factors(path: Sequence[Hop], scale_mode: str) -> list[_Factors]:
    """One pair per hop; the first hop's gain is 1."""
    gains = [hop.gain for hop in path]
    if scale_mode != STREAM:
        return [_Factors(1.0, following) for following in (*gains[1:], 1.0)]
    product, found = 1.0, []
    for gain in gains:
        product *= gain
        found.append(_Factors(product, 1.0))
    return found


def _stretches(
    path: Sequence[Hop], factors: Sequence[_Factors]
) -> Iterator[tuple[Source, _Factors]]:
    """Consecutive layers of one model that have the same factors."""

    def run(pair: tuple[int, Hop]) -> tuple[str, int, _Factors]:
        index, hop = pair
        return hop.model, hop.layer - index, factors[index]

    for (model, _, pair), group in groupby(enumerate(path), run):
        layers = [hop.layer for _, hop in group]
        yield Source(model, (layers[0], layers[-1] + 1)), pair


def _slice(source: Source, factors: _Factors, rule: FoldRule | None) -> Slice:
    if rule is None or factors == (1.0, 1.0):
        return Slice((source,))
    of_names = dict.fromkeys(rule.attention, 1.0 / factors.stream)
    of_names |= dict.fromkeys(rule.mlp, factors.mlp / factors.stream)
    of_names |= dict.fromkeys(rule.readers, factors.stream)
    settings = {"scale": _setting(of_names, 1.0)}
    if rule.centred:  # 1 + w' = f (1 + w)
        shifts = {part: factor - 1.0 for part, factor in of_names.items()}
        settings["shift"] = _setting(shifts, 0.0)
    return Slice((Source(source.model, source.layer_range, Parameters.of(settings.items())),))


def _setting(of_names: dict[str, float], otherwise: float) -> Setting:
    clauses = [Clause(value, part) for part, value in of_names.items() if value != otherwise]
    return Setting((*clauses, Clause(otherwise)))
