"""Which value each parameter has for each tensor: the lookup through the scopes of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from evomerge.parameter import Parameter, Scope
from evomerge.recipe import Parameters, Recipe, Scalar
from evomerge.signatures import SIGNATURES
from evomerge.weights.expansion import Input, Target
from evomerge.weights.parts import parts_of

_MISSING = "has no value"
_MISSING_FIX = "add an entry without a filter after the filtered ones"


@final
class ValueLookup:
    """The parameters of one recipe; collects what has no value (stateful).

    Scopes from the most specific: source, slice, module, whole recipe, the method's default. The
    first one with a value for the tensor wins. A per-model parameter's filters see the input
    tensor's name, a shared one's the output name.
    """

    def __init__(self, recipe: Recipe) -> None:
        """`recipe` has passed `validate_recipe`."""
        signature = SIGNATURES[recipe.merge_method]
        self._signature = signature
        self._parts = parts_of(recipe)
        self._per_model = [p for p in signature.parameters if p.scope is Scope.MODEL]
        self._shared = [p for p in signature.parameters if p.scope is Scope.SHARED]
        self._faults: dict[tuple[str, str, str], list[str]] = {}
        # Most values are the same for all tensors of a part; one lookup serves them all.
        self._constant: dict[tuple[int, int | None], Mapping[str, Scalar]] = {}
        self._others = [part.others(signature) for part in self._parts]

    @property
    def problems(self) -> list[str]:
        """One line per parameter (and model) that lacked a valid value for some tensor."""
        return [
            f"{subject}: {fault} for tensor '{tensors[0]}'{_more(tensors)}: {fix}"
            for (subject, fault, fix), tensors in self._faults.items()
        ]

    def shared(self, target: Target) -> Mapping[str, Scalar]:
        """The parameters with one value for the output tensor."""
        found = self._constant.get((_part(target), None))
        if found is None:
            scopes = self._parts[_part(target)].scopes
            found = self._resolve(self._shared, scopes, target.name, target.depth, "")
            self._keep(target, None, self._shared, scopes, found)
        return found

    def models(self, target: Target) -> tuple[Mapping[str, Scalar], ...]:
        """The parameters of each model besides the base, in recipe order."""
        return tuple(self._model(target, index) for index in self._others[_part(target)])

    def _model(self, target: Target, index: int) -> Mapping[str, Scalar]:
        found = self._constant.get((_part(target), index))
        if found is not None:
            return found
        part, item = self._parts[_part(target)], target.inputs[index]
        scopes = (part.sources[index].parameters, *part.scopes)
        of = f" of '{item.model}'"
        values = self._resolve(self._per_model, scopes, item.name, target.depth, of)
        if len(values) == len(self._per_model) and not self._check_together(values, item):
            self._keep(target, index, self._per_model, scopes, values)
        return values

    def _keep(
        self,
        target: Target,
        index: int | None,
        parameters: list[Parameter],
        scopes: tuple[Parameters, ...],
        values: Mapping[str, Scalar],
    ) -> None:
        """Remember values without a fault that do not depend on the tensor."""
        if len(values) == len(parameters) and all(_is_constant(p, scopes) for p in parameters):
            self._constant[(_part(target), index)] = values

    def _resolve(
        self,
        parameters: list[Parameter],
        scopes: tuple[Parameters, ...],
        tensor: str,
        depth: float,
        of: str,
    ) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {}
        for parameter in parameters:
            value = _first(parameter, scopes, tensor, depth)
            fault = _MISSING if value is None else parameter.problem(value)
            if value is None or fault is not None:
                fix = _MISSING_FIX if value is None else "correct the gradient"
                self._note(f"parameter '{parameter.name}'{of}", str(fault), fix, tensor)
                continue
            values[parameter.name] = parameter.convert(value)
        return values

    def _check_together(self, values: Mapping[str, Scalar], item: Input) -> bool:
        """Whether there is a fault."""
        fault = self._signature.conflict(values)
        if fault is not None:
            self._note(f"parameters of '{item.model}'", fault.what, fault.fix, item.name)
        return fault is not None

    def _note(self, subject: str, fault: str, fix: str, tensor: str) -> None:
        """One line per subject with its first numbers, however many layers a gradient visits."""
        known = (key for key in self._faults if (key[0], key[2]) == (subject, fix))
        self._faults.setdefault(next(known, (subject, fault, fix)), []).append(tensor)


def _first(
    parameter: Parameter, scopes: tuple[Parameters, ...], tensor: str, depth: float
) -> Scalar | None:
    for scope in scopes:
        setting = scope.get(parameter.name)
        value = None if setting is None else setting.at(tensor, depth)
        if value is not None:
            return value
    return parameter.default


def _is_constant(parameter: Parameter, scopes: tuple[Parameters, ...]) -> bool:
    """Whether the first scope that speaks about the parameter gives all tensors one value."""
    settings = (scope.get(parameter.name) for scope in scopes)
    first = next((setting for setting in settings if setting is not None), None)
    return first is None or first.is_constant


def _part(target: Target) -> int:
    assert target.part is not None, "copied tensors have no parameters"
    return target.part


def _more(tensors: list[str]) -> str:
    return f" (and {len(tensors) - 1} more)" if len(tensors) > 1 else ""
