"""Reads the `space:` part of a space file and spreads its genes over models, layers and filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.gene_file import Problems, is_gene, read_gene, read_groups
from evomerge.genes import Gene
from evomerge.mergekit_reader import TOP_KEYS
from evomerge.model_reference import in_text_form
from evomerge.parameter import Parameter, Scope
from evomerge.signatures import SIGNATURES, Base, did_you_mean
from evomerge.space import Place, SearchSpace
from evomerge.stencil import Draw
from evomerge.tokenizer_yaml import TOKENIZER_KEYS

SPACE_KEYS = (*(key for key in TOP_KEYS if key != "modules"), "layer_groups", "filters")
_PER = ("model", "layer_group", "filter")
_FEWEST_POINTS = 2
# Fixed for a whole search, which scores all candidates in one model with one tokenizer.
_FIXED = (*TOKENIZER_KEYS, "chat_template")

Settings = dict[str, Any]


def read_space(mapping: Any, where: str, layers: int | None) -> SearchSpace:
    """The search space of parsed YAML; `layers` is the parents' layer count, if it is known.

    Raises:
        InvalidInput: every problem found, one line each.
    """
    problems = Problems(where)
    if not isinstance(mapping, Mapping):
        raise InvalidInput(f"{where}: expected a mapping with a recipe in it, got {mapping!r}")
    space = _SpaceReader(in_text_form(mapping, problems.add), layers, problems).read()
    if problems.lines:
        raise InvalidInput(problems.lines)
    return space


class _SpaceReader:
    """Walks one `space:` mapping, collecting genes and their places (stateful)."""

    def __init__(self, mapping: Mapping[str, Any], layers: int | None, problems: Problems) -> None:
        self.mapping = mapping
        self.problems = problems
        self.genes: list[Gene] = []
        self.places: list[Place] = []
        self.groups = read_groups(mapping.get("layer_groups"), layers, problems)
        self.filters = self._texts("filters")
        self.methods = self._methods()

    def read(self) -> SearchSpace:
        for key in self.mapping:
            if key == "modules":
                self.problems.add(
                    key, "a search merges one language model; list models or slices instead"
                )
            elif key not in SPACE_KEYS:
                self.problems.add("", f"unknown key '{key}'; {did_you_mean(str(key), SPACE_KEYS)}")
        if self.groups and "slices" in self.mapping:
            self.problems.add("layer_groups", "cannot stand beside 'slices'; remove one of them")
        spread = isinstance(self.mapping.get("models"), list) and "slices" not in self.mapping
        own = ("models", "parameters") if spread else ()
        template = {
            key: value if key in _FIXED else self._plain(value, key)
            for key, value in self.mapping.items()
            if key not in ("layer_groups", "filters", *own)
        }
        if spread:
            template |= self._spread()
        base = self.mapping.get("base_model")
        return SearchSpace(
            tuple(self.genes),
            tuple(self.places),
            template,
            tuple(model for model in self._parents() if model != base),
            tuple(group.label for group in self.groups),
        )

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self.mapping.get(key) or []
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self.problems.add(key, f"expected a list of parts of tensor names, got {value!r}")
            return ()
        return tuple(value)

    def _methods(self) -> tuple[str, ...]:
        """The merge methods that this space can choose."""
        value = self.mapping.get("merge_method")
        names = value.get("choice") if isinstance(value, Mapping) else [value]
        known = [name for name in names or [] if isinstance(name, str) and name in SIGNATURES]
        for name in names or [None]:
            if name not in known:
                hint = did_you_mean(str(name).replace("-", "_"), SIGNATURES)
                self.problems.add("merge_method", f"unknown method {name!r}; {hint}")
        return tuple(known)

    def _parents(self) -> tuple[str, ...]:
        """Every model of `models` or `slices`, in order, each once."""
        parts = self.mapping.get("slices") or []
        named = [
            entry
            for part in (parts if isinstance(parts, list) else [])
            if isinstance(part, Mapping) and isinstance(part.get("sources"), list)
            for entry in part["sources"]
        ]
        named += self.mapping.get("models") or []
        models = [entry.get("model") for entry in named if isinstance(entry, Mapping)]
        return tuple(dict.fromkeys(model for model in models if isinstance(model, str)))

    def _spread(self) -> Settings:
        """`models` or, with layer groups, `slices`, and the parameters of the whole merge."""
        sources = self._sources()
        groups = range(len(self.groups)) if self.groups else (None,)
        shared = self._mapping("parameters", self.mapping.get("parameters"))
        self._check_names("parameters", shared)
        top: Settings = {}
        by_group: dict[int | None, Settings] = {group: {} for group in groups}
        by_model: dict[tuple[int | None, str], Settings] = {
            (group, model): {} for group in groups for model in sources
        }
        for name, value in shared.items():
            path, per = f"parameters.{name}", self._per(value, name, f"parameters.{name}")
            models = [m for m in sources if name not in sources[m] and m in self._parents()]
            if "model" in per:
                self._place(name, value, path, per, (models, groups, by_model))
            elif "layer_group" in per:
                for group in groups:
                    by_group[group][name] = self._setting(
                        value, path, Place(name, None, group), per
                    )
            else:
                top[name] = self._setting(value, path, Place(name), per)
        for index, (model, settings) in enumerate(sources.items()):
            for name, value in settings.items():
                path = f"models[{index}].parameters.{name}"
                per = self._per(value, name, path)
                self._place(name, value, path, per, ([model], groups, by_model))
        return self._assembled(sources, top, by_group, by_model)

    def _place(
        self,
        name: str,
        value: Any,
        path: str,
        per: tuple[str, ...],
        targets: tuple[list[str], Iterable[int | None], dict[tuple[int | None, str], Settings]],
    ) -> None:
        """One setting for each model, or for each model and layer group."""
        models, groups, by_model = targets
        for model in models:
            common = None
            if "layer_group" not in per:
                common = self._setting(value, path, Place(name, model), per)
            for group in groups:
                own = common
                if "layer_group" in per:
                    own = self._setting(value, path, Place(name, model, group), per)
                by_model[group, model][name] = own

    def _assembled(
        self,
        sources: Mapping[str, Settings],
        top: Settings,
        by_group: Mapping[int | None, Settings],
        by_model: Mapping[tuple[int | None, str], Settings],
    ) -> Settings:
        made: Settings = {"parameters": top} if top else {}
        if not self.groups:
            models = [_entry({"model": m}, by_model[None, m]) for m in sources]
            return made | {"models": models}
        slices = []
        for index, group in enumerate(self.groups):
            span = [group.start, group.end]
            entries = [
                _entry({"model": m, "layer_range": span}, by_model[index, m]) for m in sources
            ]
            slices.append(_entry({"sources": entries}, by_group[index]))
        return made | {"slices": slices}

    def _sources(self) -> dict[str, Settings]:
        """Models with their own parameters; in slices the base joins where the method needs it."""
        sources: dict[str, Settings] = {}
        if not self.mapping["models"]:
            self.problems.add("models", "expected at least one model, got none; list them")
        for index, entry in enumerate(self.mapping["models"]):
            path = f"models[{index}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
                self.problems.add(path, f"expected {{model: NAME}}, got {entry!r}")
                continue
            for key in entry:
                if key not in ("model", "parameters"):
                    hint = did_you_mean(str(key), ("model", "parameters"))
                    self.problems.add(path, f"unknown key '{key}'; {hint}")
            if entry["model"] in sources:
                self.problems.add(path, f"'{entry['model']}' is listed twice; remove one")
            parameters = self._mapping(f"{path}.parameters", entry.get("parameters"))
            self._check_names(f"{path}.parameters", parameters)
            sources[entry["model"]] = parameters
        base = self.mapping.get("base_model")
        needs_base = any(SIGNATURES[method].base is not Base.IGNORED for method in self.methods)
        if self.groups and isinstance(base, str) and needs_base:
            sources.setdefault(base, {})
        return sources

    def _mapping(self, path: str, value: Any) -> Settings:
        if value is None or isinstance(value, Mapping):
            return dict(value or {})
        self.problems.add(path, f"expected a mapping, got {value!r}")
        return {}

    def _check_names(self, path: str, settings: Settings) -> None:
        known = {p.name for method in self.methods for p in SIGNATURES[method].parameters}
        for name in settings:
            if known and name not in known:
                methods = " or ".join(self.methods)
                hint = did_you_mean(str(name), known)
                self.problems.add(path, f"{methods} has no parameter '{name}'; {hint}")

    def _per(self, value: Any, name: str, path: str) -> tuple[str, ...]:
        if not is_gene(value) or "per" not in value:
            return ()
        per = value["per"] if isinstance(value["per"], list) else [value["per"]]
        needs = {
            "layer_group": (self.groups, "layer_groups", "4"),
            "filter": (self.filters, "filters", "[mlp]"),
        }
        for entry in per:
            if entry not in _PER:
                hint = did_you_mean(str(entry), _PER)
                self.problems.add(f"{path}.per", f"unknown '{entry}'; {hint}")
            elif entry in needs and not needs[entry][0]:
                _, key, example = needs[entry]
                self.problems.add(
                    f"{path}.per", f"needs '{key}' in the space, e.g. {key}: {example}"
                )
        parameter = self._declared(name)
        if "model" in per and parameter is not None and parameter.scope is Scope.SHARED:
            self.problems.add(
                f"{path}.per", f"'{name}' has one value for all models; remove 'model'"
            )
        return tuple(e for e in per if e in _PER and (e not in needs or needs[e][0]))

    def _declared(self, name: str) -> Parameter | None:
        found = [SIGNATURES[method].parameter(name) for method in self.methods]
        return next((parameter for parameter in found if parameter is not None), None)

    def _setting(self, value: Any, path: str, place: Place, per: tuple[str, ...]) -> Any:
        """A parameter's template at one place: clauses where it differs by filter."""
        if "filter" not in per:
            return self._value(value, path, place)
        clauses = [
            {"filter": part, "value": self._value(value, path, replace(place, filter=part))}
            for part in self.filters
        ]
        return [*clauses, {"value": self._value(value, path, place)}]

    def _value(self, value: Any, path: str, place: Place) -> Any:
        points = value.get("gradient") if is_gene(value) else None
        if points is None:
            return self._plain(value, path, place)
        if type(points) is not int or points < _FEWEST_POINTS:
            self.problems.add(f"{path}.gradient", f"expected a number of 2 or more, got {points!r}")
            return None
        return [self._gene(value, path, replace(place, step=step)) for step in range(points)]

    def _plain(self, value: Any, path: str, place: Place | None = None) -> Any:
        """Any value, with the genes inside it replaced by draws."""
        if is_gene(value):
            if place is None and ("per" in value or "gradient" in value):
                self.problems.add(path, "'per' and 'gradient' work under 'parameters' only")
            return self._gene(value, path, place or Place(path.rpartition(".")[2]))
        if isinstance(value, Mapping):
            return {key: self._plain(v, f"{path}.{key}", place) for key, v in value.items()}
        if isinstance(value, list):
            return [self._plain(v, f"{path}[{i}]", place) for i, v in enumerate(value)]
        return value

    def _gene(self, spec: Mapping[str, Any], path: str, place: Place) -> Draw | None:
        gene = read_gene(spec, self._gene_name(place), path, self.problems)
        if gene is None:
            return None
        parameter = self._declared(place.parameter)
        for position in (0.0, 1.0):
            reason = None if parameter is None else parameter.problem(gene.decode(position))
            if reason is not None:
                self.problems.add(path, f"{reason}; change the range of the gene")
        self.genes.append(gene)
        self.places.append(place)
        return Draw(len(self.genes) - 1)

    def _gene_name(self, place: Place) -> str:
        group = None if place.group is None else self.groups[place.group].label
        step = None if place.step is None else f"point {place.step}"
        parts = [part for part in (place.model, group, place.filter, step) if part is not None]
        return f"{place.parameter}[{', '.join(parts)}]" if parts else place.parameter


def _entry(entry: Settings, parameters: Settings) -> Settings:
    return entry | ({"parameters": parameters} if parameters else {})
