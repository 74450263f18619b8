"""What is wrong with a recipe before any model is opened; no torch, no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from evomerge.recipe import DTYPES, Gradient, Parameters, Recipe, Setting, Slice
from evomerge.signatures import SIGNATURES, Base, Parameter, Scope, Signature, did_you_mean
from evomerge.weights.chat_template import template_problems
from evomerge.weights.parts import Part, parts_of
from evomerge.weights.vocabulary_rules import tokenizer_problems


def validate_recipe(recipe: Recipe) -> list[str]:
    """Every problem that shows without the models, one line each; empty when there is none."""
    problems = [*_dtype_problems(recipe), *_slice_problems(recipe)]
    problems += [*tokenizer_problems(recipe), *template_problems(recipe)]
    signature = SIGNATURES.get(recipe.merge_method)
    if signature is None:
        hint = did_you_mean(recipe.merge_method, SIGNATURES)
        return [f"merge_method: unknown method '{recipe.merge_method}'; {hint}", *problems]
    for part in parts_of(recipe):
        problems += _source_problems(part, signature)
    for where, parameters, scopes in _scopes(recipe):
        problems += _parameter_problems(where, parameters, scopes, signature)
    return problems + _missing_problems(recipe, signature)


def _dtype_problems(recipe: Recipe) -> Iterator[str]:
    for key, name in (("dtype", recipe.dtype), ("out_dtype", recipe.out_dtype)):
        if name is not None and name not in DTYPES:
            yield f"{key}: unknown type '{name}'; {did_you_mean(name, DTYPES)}"


def _slice_problems(recipe: Recipe) -> list[str]:
    lines = [
        f"models[{index}]: layer_range belongs to slices: remove it or use slices"
        for index, source in enumerate(recipe.models)
        if source.layer_range is not None
    ]
    faults = [(f"slices[{i}]", _range_fault(part)) for i, part in enumerate(recipe.slices)]
    lines += [f"{where}: {fault}" for where, fault in faults if fault is not None]
    ranges = [source.layer_range for part in recipe.slices for source in part.sources]
    if recipe.slices and not lines and all(r is not None and r[0] == r[1] for r in ranges):
        lines.append("slices: expected at least one layer in total, got 0: widen a layer_range")
    return lines


def _range_fault(part: Slice) -> str | None:
    ranges = [source.layer_range for source in part.sources]
    given = [r for r in ranges if r is not None]
    lengths = sorted({end - start for start, end in given})
    if not part.sources:
        return "expected at least one source, got none: add one or remove the slice"
    if len(given) < len(ranges):
        return "every source needs a layer_range: add [start, end]"
    if any(not 0 <= start <= end for start, end in given):
        return "expected layer_range [start, end] with 0 <= start <= end: correct it"
    if len(lengths) > 1:
        return f"expected layer ranges of one length, got {lengths}: make them equally long"
    return None


def _source_problems(part: Part, signature: Signature) -> Iterator[str]:
    where = part.where or "models"
    counts = Counter(source.model for source in part.sources)
    for model in (model for model, count in counts.items() if count > 1):
        yield f"{where}: model '{model}' occurs {counts[model]} times: list it once"
    if signature.base is Base.REQUIRED:
        if part.base is None:
            yield f"{where}: {signature.name} needs a base_model, got none: add base_model"
            return
        if part.base_index(signature) is None:
            yield (
                f"{where}: {signature.name} needs the base '{part.base}' among the sources of "
                "every slice: add it with its layer_range"
            )
            return
    count = len(part.others(signature))
    low, high = signature.minimum, signature.maximum
    if count < low or (high is not None and count > high):
        besides = " besides the base" if signature.base is Base.REQUIRED else ""
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        if low == high:
            expected = f"exactly {low}"
        yield (
            f"{where}: {signature.name} takes {expected} model(s){besides}, got {count}: "
            "add or remove models"
        )


def _scopes(recipe: Recipe) -> Iterator[tuple[str, Parameters, tuple[Scope, ...]]]:
    """Every place with parameters: its name in messages and the scopes it may speak about."""
    yield "parameters", recipe.parameters, (Scope.MODEL, Scope.SHARED)
    for index, source in enumerate(recipe.models):
        yield f"models[{index}] ('{source.model}')", source.parameters, (Scope.MODEL,)
    for number, part in enumerate(recipe.slices):
        yield f"slices[{number}].parameters", part.parameters, (Scope.MODEL, Scope.SHARED)
        for index, source in enumerate(part.sources):
            where = f"slices[{number}].sources[{index}] ('{source.model}')"
            yield where, source.parameters, (Scope.MODEL,)


def _parameter_problems(
    where: str, parameters: Parameters, scopes: tuple[Scope, ...], signature: Signature
) -> Iterator[str]:
    known = [p.name for p in signature.parameters]
    for name, setting in parameters:
        parameter = signature.parameter(name)
        if parameter is None:
            hint = did_you_mean(name, known) if known else "it has none"
            yield f"{where}: {signature.name} has no parameter '{name}'; {hint}"
        elif parameter.scope not in scopes:
            yield (
                f"{where}: '{name}' has one value for the whole merge, not one per model: "
                "move it to the top-level parameters"
            )
        else:
            yield from (f"{where}: {name}: {line}" for line in _value_problems(parameter, setting))


def _value_problems(parameter: Parameter, setting: Setting) -> Iterator[str]:
    for clause in setting.clauses:
        value = clause.value
        values = value.values if isinstance(value, Gradient) else (value,)
        if not values:
            yield "expected at least one value in the gradient, got none: add one"
        yield from _each_once(parameter.problem(entry) for entry in values)


def _each_once(lines: Iterable[str | None]) -> Iterator[str]:
    yield from dict.fromkeys(f"{line}: correct the value" for line in lines if line is not None)


def _missing_problems(recipe: Recipe, signature: Signature) -> list[str]:
    """Required parameters that no scope mentions; filters are judged when tensors are known."""
    lines: list[str] = []
    required = [p for p in signature.parameters if p.default is None]
    for part in parts_of(recipe):
        for parameter in required:
            shared = [recipe.parameters, part.parameters]
            if any(scope.get(parameter.name) is not None for scope in shared):
                continue
            if parameter.scope is Scope.SHARED:
                lines.append(f"{part.where or 'parameters'}: {_needs(signature, parameter, '')}")
                continue
            sources = [part.sources[index] for index in part.others(signature)]
            lines += [
                f"{part.where or 'models'}: {_needs(signature, parameter, source.model)}"
                for source in sources
                if source.parameters.get(parameter.name) is None
            ]
    return list(dict.fromkeys(lines))


def _needs(signature: Signature, parameter: Parameter, model: str) -> str:
    of = f" for '{model}'" if model else ""
    return f"{signature.name} needs a value of '{parameter.name}' ({parameter.doc}){of}: add it"
