"""What is wrong with a recipe before any model is opened; no torch, no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from evomerge.errors import InvalidInput
from evomerge.model_reference import ModelReference
from evomerge.parameter import Parameter, Scope
from evomerge.recipe import DTYPES, STACK, Gradient, Module, Parameters, Recipe, Setting, Slice
from evomerge.signatures import SIGNATURES, Base, Signature, did_you_mean
from evomerge.weights.chat_template import template_problems
from evomerge.weights.parts import Part, parts_of
from evomerge.weights.vocabulary_rules import tokenizer_problems


def validate_recipe(recipe: Recipe) -> list[str]:
    """Every problem that shows without the models, one line each; empty when there is none."""
    problems = [*_dtype_problems(recipe), *_slice_problems(recipe), *_reference_problems(recipe)]
    problems += [*tokenizer_problems(recipe), *template_problems(recipe)]
    signature = SIGNATURES.get(recipe.merge_method)
    if signature is None:
        hint = did_you_mean(recipe.merge_method, SIGNATURES)
        return [f"merge_method: unknown method '{recipe.merge_method}'; {hint}", *problems]
    for part in parts_of(recipe):
        problems += _source_problems(part, signature)
    for where, parameters, scopes in _scopes(recipe):
        problems += _parameter_problems(where, parameters, scopes, signature)
    problems += _stack_problems(recipe) if recipe.merge_method == STACK else []
    for name, inner in recipe.nested:
        problems += [f"recipes.{name}: {line}" for line in validate_recipe(inner)]
    return problems + _missing_problems(recipe, signature)


def _stack_problems(recipe: Recipe) -> list[str]:
    """A path has slices, and each of them one scale, 1 where the path begins."""
    if not recipe.slices:
        return ["stack needs slices, one for each stretch of layers: list slices, not models"]
    lines: list[str] = []
    used = {source.model for part in recipe.slices for source in part.sources}
    if recipe.base_model is not None and recipe.base_model not in used:
        lines.append(
            f"base_model: '{recipe.base_model}' gives embeddings, norm and head, but no slice has "
            f"a layer of it: {did_you_mean(recipe.base_model, used)}"
        )
    for index, part in enumerate(recipe.slices):
        scopes = [part.parameters, *(source.parameters for source in part.sources)]
        settings = [s for s in (scope.get("scale") for scope in scopes) if s is not None]
        if any(not setting.is_constant for setting in settings):
            lines.append(f"slices[{index}]: scale: expected one number: remove filters, gradients")
        elif index == 0 and any(setting.at("", 0.0) != 1 for setting in settings):
            lines.append("slices[0]: scale: the first slice must have 1: remove the scale")
    if recipe.tokenizer is not None:
        lines.append("tokenizer: a stack has its donor's (base_model): remove the tokenizer")
    if recipe.parameters.get("scale") is not None:
        lines.append("parameters: scale: expected one per slice: move it to the slices")
    return lines


def _dtype_problems(recipe: Recipe) -> Iterator[str]:
    for key, name in (("dtype", recipe.dtype), ("out_dtype", recipe.out_dtype)):
        if name is not None and name not in DTYPES:
            yield f"{key}: unknown type '{name}'; {did_you_mean(name, DTYPES)}"


def _reference_problems(recipe: Recipe) -> Iterator[str]:
    for model in recipe.referenced_models():
        try:
            ModelReference.parse(model)
        except InvalidInput as error:
            yield from error.problems


def _slice_problems(recipe: Recipe) -> list[str]:
    lines: list[str] = []
    for start, body in _bodies(recipe):
        lines += [
            f"{start}models[{index}]: layer_range belongs to slices: remove it or use slices"
            for index, source in enumerate(body.models)
            if source.layer_range is not None
        ]
        faults = [(f"{start}slices[{i}]", _range_fault(part)) for i, part in enumerate(body.slices)]
        lines += [f"{where}: {fault}" for where, fault in faults if fault is not None]
        ranges = [source.layer_range for part in body.slices for source in part.sources]
        if body.slices and not lines and all(r is not None and r[0] == r[1] for r in ranges):
            lines.append(
                f"{start}slices: expected at least one layer in total, got 0: widen a layer_range"
            )
    return lines


def _bodies(recipe: Recipe) -> list[tuple[str, Recipe | Module]]:
    """What has models or slices, and what its parts are called in messages."""
    modules = [(f"modules.{module.name}.", module) for module in recipe.modules]
    return [("", recipe), *modules]


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
    where = part.where
    counts = Counter(source.model for source in part.sources)
    for model in (model for model, count in counts.items() if count > 1):
        yield f"{where}: model '{model}' occurs {counts[model]} times: list it once"
    if signature.base is Base.REQUIRED and part.base is None:
        yield f"{where}: {signature.name} needs a base_model, got none: add base_model"
        return
    uses_base = signature.base is not Base.IGNORED and part.base is not None
    if uses_base and part.base_index(signature) is None:
        yield (
            f"{where}: {signature.name} needs the base '{part.base}' among the sources of "
            "every slice: add it with its layer_range"
        )
        return
    count = len(part.others(signature))
    low, high = signature.minimum, signature.maximum
    if count < low or (high is not None and count > high):
        besides = " besides the base" if uses_base else ""
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        if low == high:
            expected = f"exactly {low}"
        yield (
            f"{where}: {signature.name} takes {expected} model(s){besides}, got {count}: "
            "add or remove models"
        )


def places_of_parameters(recipe: Recipe) -> Iterator[tuple[str, Parameters]]:
    """Every place of a recipe that has parameters, with its name in messages."""
    for where, parameters, _ in _scopes(recipe):
        yield where, parameters


def _scopes(recipe: Recipe) -> Iterator[tuple[str, Parameters, tuple[Scope, ...]]]:
    """Every place with parameters: its name in messages and the scopes it may speak about."""
    for start, body in _bodies(recipe):
        yield f"{start}parameters", body.parameters, (Scope.MODEL, Scope.SHARED)
        for index, source in enumerate(body.models):
            where = f"{start}models[{index}] ('{source.model}')"
            yield where, source.parameters, (Scope.MODEL,)
        for number, part in enumerate(body.slices):
            at = f"{start}slices[{number}]"
            yield f"{at}.parameters", part.parameters, (Scope.MODEL, Scope.SHARED)
            for index, source in enumerate(part.sources):
                yield f"{at}.sources[{index}] ('{source.model}')", source.parameters, (Scope.MODEL,)


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
    """The first fault of every clause."""
    for clause in setting.clauses:
        value = clause.value
        values = value.values if isinstance(value, Gradient) else (value,)
        if not values:
            yield "expected at least one value in the gradient, got none: add one"
        faults = [line for line in map(parameter.problem, values) if line is not None]
        if faults:
            yield f"{faults[0]}: correct the value"


def _missing_problems(recipe: Recipe, signature: Signature) -> list[str]:
    """Required parameters that no scope mentions; filters are judged when tensors are known."""
    lines: list[str] = []
    required = [p for p in signature.parameters if p.default is None]
    for part in parts_of(recipe):
        for parameter in required:
            if any(scope.get(parameter.name) is not None for scope in part.scopes):
                continue
            if parameter.scope is Scope.SHARED:
                where = "parameters" if part.where == "models" else part.where
                lines.append(f"{where}: {_needs(signature, parameter, '')}")
                continue
            sources = [part.sources[index] for index in part.others(signature)]
            lines += [
                f"{part.where}: {_needs(signature, parameter, source.model)}"
                for source in sources
                if source.parameters.get(parameter.name) is None
            ]
    return list(dict.fromkeys(lines))


def _needs(signature: Signature, parameter: Parameter, model: str) -> str:
    of = f" for '{model}'" if model else ""
    return f"{signature.name} needs a value of '{parameter.name}' ({parameter.doc}){of}: add it"
