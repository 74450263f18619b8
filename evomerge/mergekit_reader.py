"""Reads parsed mergekit YAML into a recipe and collects every problem on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.model_reference import in_text_form
from evomerge.recipe import (
    DTYPES,
    SCALE_MODES,
    STACK,
    Clause,
    Gradient,
    Module,
    Parameters,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
)
from evomerge.signatures import SIGNATURES, did_you_mean
from evomerge.tokenizer_yaml import TOKENIZER_KEYS, read_tokenizer

TOP_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    *TOKENIZER_KEYS,
    "chat_template",
    "scale_mode",
    "recipes",
)
_KINDS = {p.name: p.kind for signature in SIGNATURES.values() for p in signature.parameters}
_NUMBERS = (bool, int, float)
_SCALARS = frozenset({*_NUMBERS, str})
_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def from_mapping(mapping: Any, where: str) -> Recipe:
    """A recipe from parsed YAML.

    Raises:
        InvalidInput: every problem found, one line each, with `where` and the key's path.
    """
    reader = _Reader(where)
    recipe = reader.recipe(in_text_form(mapping, reader.problem))
    if reader.problems:
        raise InvalidInput(reader.problems)
    assert recipe is not None
    return recipe


def read_setting(value: Any, name: str, where: str, path: str) -> Setting:
    """The setting of the known parameter `name`, at `path` of a file, from parsed YAML.

    Raises:
        InvalidInput: every problem found, one line each.
    """
    reader = _Reader(where)
    setting = reader.setting(value, name, f"{path}.{name}")
    if reader.problems:
        raise InvalidInput(reader.problems)
    return setting


class _Reader:
    """Walks one parsed file and collects its problems (stateful)."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[str] = []

    def problem(self, path: str, text: str) -> None:
        self.problems.append(f"{self.where}: {path}: {text}" if path else f"{self.where}: {text}")

    def recipe(self, mapping: Any) -> Recipe | None:
        if not self.mapping(mapping, "", TOP_KEYS):
            return None
        models, slices = self.body(mapping, "")
        modules = self.modules(mapping.get("modules"))
        forms = [form for form in (models, slices, modules) if form]
        if len(forms) != 1 and not self.problems:
            self.problem(
                "", "expected exactly one of 'models', 'slices' and 'modules', with an entry in it"
            )
        method = self.method(mapping.get("merge_method"))
        fields: dict[str, Any] = {
            key: self.text(mapping.get(key), key) for key in ("base_model", "chat_template")
        }
        fields["tokenizer"] = read_tokenizer(mapping, self.problem)
        for key in ("dtype", "out_dtype"):
            fields[key] = self.dtype(mapping.get(key), key)
        parameters = self.parameters(mapping.get("parameters"), "parameters")
        fields["scale_mode"] = self.scale_mode(mapping.get("scale_mode"), method)
        fields["nested"] = self.nested(mapping.get("recipes"))
        if self.problems:
            return None
        return Recipe(
            merge_method=method,
            models=models,
            slices=slices,
            modules=modules,
            parameters=parameters,
            **fields,
        )

    def scale_mode(self, value: Any, method: str) -> str | None:
        if method != STACK:
            if value is not None:
                self.problem("scale_mode", "belongs to merge_method: stack; remove it")
            return None
        mode = SCALE_MODES[0] if value is None else str(value)
        if mode not in SCALE_MODES:
            hint = did_you_mean(mode, SCALE_MODES)
            self.problem("scale_mode", f"unknown mode {_brief(value)}; {hint}")
        return mode

    def nested(self, value: Any) -> tuple[tuple[str, Recipe], ...]:
        """Recipes whose results the outer recipe uses as models, by the names it has for them."""
        if value is not None and not isinstance(value, Mapping):
            self.problem(
                "recipes", f"expected a mapping from names to recipes, got {_brief(value)}"
            )
            return ()
        found: list[tuple[str, Recipe]] = []
        for name, entry in (value or {}).items():
            inner = _Reader(f"{self.where}: recipes.{name}")
            recipe = inner.recipe(entry)
            self.problems += inner.problems
            if recipe is not None:
                found.append((str(name), recipe))
        return tuple(sorted(found, key=lambda pair: pair[0]))

    def body(
        self, mapping: Mapping[str, Any], start: str
    ) -> tuple[tuple[Source, ...], tuple[Slice, ...]]:
        """The models or the slices of a recipe or of a module."""
        models = self.sources(mapping.get("models"), f"{start}models", ranged=False)
        return models, self.slices(mapping.get("slices"), f"{start}slices")

    def modules(self, value: Any) -> tuple[Module, ...]:
        if value is not None and not isinstance(value, Mapping):
            self.problem(
                "modules", f"expected a mapping from names to modules, got {_brief(value)}"
            )
            return ()
        modules: list[Module] = []
        for name, entry in (value or {}).items():
            path = f"modules.{name}"
            if not self.mapping(entry, path, ("models", "slices", "parameters")):
                continue
            models, slices = self.body(entry, f"{path}.")
            parameters = self.parameters(entry.get("parameters"), f"{path}.parameters")
            if bool(models) != bool(slices):
                modules.append(Module(str(name), models, slices, parameters))
            elif not self.problems:
                self.problem(path, "expected one of 'models' and 'slices', with an entry in it")
        return tuple(modules)

    def mapping(self, value: Any, path: str, known: Sequence[str]) -> bool:
        if not isinstance(value, Mapping):
            self.problem(path, f"expected a mapping, got {_brief(value)}")
            return False
        for key in value:
            if key not in known:
                self.problem(path, f"unknown key '{key}'; {did_you_mean(str(key), known)}")
        return True

    def method(self, value: Any) -> str:
        if value is None:
            self.problem("merge_method", f"missing; known: {', '.join(sorted(SIGNATURES))}")
        elif value not in SIGNATURES:
            hint = did_you_mean(str(value).replace("-", "_"), SIGNATURES)
            self.problem("merge_method", f"unknown method '{value}'; {hint}")
        return str(value)

    def text(self, value: Any, path: str) -> str | None:
        if value is not None and not isinstance(value, str):
            self.problem(path, f"expected a text, got {_brief(value)}; put it in quotes")
        return value if isinstance(value, str) else None

    def dtype(self, value: Any, path: str) -> str | None:
        if value is None:
            return None
        name = str(value).removeprefix("torch.")
        if name not in DTYPES:
            self.problem(path, f"unknown dtype '{value}'; {did_you_mean(name, DTYPES)}")
        return name

    def slices(self, value: Any, at: str) -> tuple[Slice, ...]:
        slices: list[Slice] = []
        for index, entry in enumerate(self.list(value, at)):
            path = f"{at}[{index}]"
            if not self.mapping(entry, path, ("sources", "parameters", "base_model")):
                continue
            sources = self.sources(entry.get("sources"), f"{path}.sources", ranged=True)
            if not sources and not self.problems:
                self.problem(f"{path}.sources", "expected at least one source")
            parameters = self.parameters(entry.get("parameters"), f"{path}.parameters")
            base = self.text(entry.get("base_model"), f"{path}.base_model")
            slices.append(Slice(sources, parameters, base))
        return tuple(slices)

    def sources(self, value: Any, path: str, *, ranged: bool) -> tuple[Source, ...]:
        known = ("model", "layer_range", "parameters") if ranged else ("model", "parameters")
        sources: list[Source] = []
        for index, entry in enumerate(self.list(value, path)):
            at = f"{path}[{index}]"
            if not self.mapping(entry, at, known):
                continue
            model = self.text(entry.get("model"), f"{at}.model")
            if model is None:
                self.problem(f"{at}.model", "missing; expected a path or a model name")
                continue
            layers = self.layer_range(entry.get("layer_range"), at) if ranged else None
            parameters = self.parameters(entry.get("parameters"), f"{at}.parameters")
            sources.append(Source(model, layers, parameters))
        return tuple(sources)

    def layer_range(self, value: Any, at: str) -> tuple[int, int] | None:
        whole = isinstance(value, list) and all(type(entry) is int for entry in value)
        if not whole or len(value) != 2 or not 0 <= value[0] <= value[1]:
            got = "nothing" if value is None else _brief(value)
            self.problem(f"{at}.layer_range", f"expected [start, end], start <= end, got {got}")
            return None
        return (value[0], value[1])

    def list(self, value: Any, path: str) -> Sequence[Any]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.problem(path, f"expected a list, got {_brief(value)}")
            return ()
        return value

    def parameters(self, value: Any, path: str) -> Parameters:
        if value is None:
            return Parameters()
        if not isinstance(value, Mapping):
            self.problem(path, f"expected a mapping, got {_brief(value)}")
            return Parameters()
        settings = []
        for name, entry in value.items():
            if name not in _KINDS:
                self.problem(path, f"unknown parameter '{name}'; {did_you_mean(str(name), _KINDS)}")
                continue
            settings.append((name, self.setting(entry, name, f"{path}.{name}")))
        return Parameters.of(settings)

    def setting(self, value: Any, name: str, path: str) -> Setting:
        if type(value) in _SCALARS:  # before what is slow to tell: nearly all, for every candidate
            return Setting((Clause(self.scalar(value, name, path)),))
        entries = value if isinstance(value, list) else [value]
        if not any(isinstance(entry, Mapping) for entry in entries):
            return Setting((Clause(self.value(value, name, path)),))
        clauses: list[Clause] = []
        for index, entry in enumerate(entries):
            at = f"{path}[{index}]"
            if not isinstance(entry, Mapping):
                self.problem(at, "numbers and {filter, value} entries cannot be mixed in a list")
            elif self.mapping(entry, at, ("filter", "value")):
                clauses.append(
                    Clause(
                        self.value(entry.get("value"), name, f"{at}.value"),
                        self.text(entry.get("filter"), f"{at}.filter"),
                    )
                )
        return Setting(tuple(clauses))

    def value(self, value: Any, name: str, path: str) -> Scalar | Gradient:
        if isinstance(value, list):
            if not value:
                self.problem(path, "expected at least one value in the gradient")
            before = len(self.problems)
            found = tuple(self.scalar(entry, name, path) for entry in value)
            del self.problems[before + 1 :]  # the first fault speaks for the others
            return Gradient(found)
        return self.scalar(value, name, path)

    def scalar(self, value: Any, name: str, path: str) -> Scalar:
        parsed = _number_or_flag(value)
        kind = _KINDS[name]
        if parsed is None:
            self.problem(path, f"expected a number or true/false, got {_brief(value)}")
            return 0.0
        if kind is bool:
            return bool(parsed) if parsed in (0, 1) else parsed
        if isinstance(parsed, bool):
            self.problem(path, f"expected a number, got {str(parsed).lower()}")
            return 0.0
        return float(parsed) if kind is float else parsed


def _number_or_flag(value: Any) -> Scalar | None:
    if isinstance(value, _NUMBERS):
        number: Scalar = value
        return number
    if isinstance(value, str):
        if value.lower() in _WORDS:
            return _WORDS[value.lower()]
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _brief(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
