"""The JSON Schema (draft 7) of space files, so that editors complete and check them."""

from __future__ import annotations

import json
from typing import Any

from evomerge.parameter import Parameter
from evomerge.recipe import DTYPES, SCALE_MODES, STACK
from evomerge.run.config import SpaceFile
from evomerge.signatures import SIGNATURES


def space_file_schema() -> dict[str, Any]:
    """The schema of a whole space file; the `space` part follows from the method signatures."""
    schema = SpaceFile.model_json_schema()
    # pydantic writes draft 2020-12; these keywords mean the same under draft 7's names
    schema = json.loads(json.dumps(schema).replace("#/$defs/", "#/definitions/"))
    definitions = schema.pop("$defs", {}) | _space_definitions()
    schema["definitions"] = definitions
    space = {"anyOf": [_ref("space"), _ref("stacks")]}
    schema["properties"]["space"] = space
    definitions["StageConfig"]["properties"]["space"] = space
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _space_definitions() -> dict[str, Any]:
    text = {"type": "string"}
    named = _ref("reference")
    model = _object({"model": named, "parameters": _ref("parameters")}, required=["model"])
    source = _object(
        {
            "model": named,
            "layer_range": _list({"type": "integer"}),
            "parameters": _ref("parameters"),
        },
        required=["model"],
    )
    part = _object(
        {"sources": _list(source), "parameters": _ref("parameters"), "base_model": named},
        required=["sources"],
    )
    space = {
        "merge_method": {"anyOf": [{"enum": sorted(SIGNATURES.keys() - {STACK})}, _ref("gene")]},
        "base_model": named,
        "models": _list(model),
        "slices": _list(part),
        "layer_groups": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "array"}]},
        "filters": _list(text),
        "parameters": _ref("parameters"),
        "dtype": {"enum": list(DTYPES)},
        "out_dtype": {"enum": list(DTYPES)},
        "tokenizer_source": text,
        "tokenizer": _tokenizer(),
        "chat_template": text | {"description": "auto, a built-in name, or Jinja text"},
    }
    return {
        "space": _object(space, required=["merge_method"]),
        "stacks": _stacks(),
        "reference": _reference(),
        "parameters": _object(_parameters(), required=[]),
        "setting": _setting(),
        "gene": _gene(),
    }


def _stacks() -> dict[str, Any]:
    pair = {"type": "array", "minItems": 2, "maxItems": 2}
    named = _ref("reference") | {"description": "a model, or $stage.best, $stage.top3"}
    return _object(
        {
            "merge_method": {"const": STACK},
            "base_model": named | {"description": "gives embeddings, norm, head and both ends"},
            "models": _list(_object({"model": named}, required=["model"])),
            "repeats": {"type": "integer", "minimum": 1, "description": "default 2"},
            "layers": pair | {"items": {"type": "integer"}, "description": "fewest and most"},
            "gains": pair | {"items": {"type": "number"}, "description": "range of the scales"},
            "scale_mode": {"enum": list(SCALE_MODES)},
            "dtype": {"enum": list(DTYPES)},
        },
        required=["merge_method", "models"],
    )


def _reference() -> dict[str, Any]:
    text = {"type": "string"}
    half = {"anyOf": [text, _object({"path": text, "revision": text}, required=["path"])]}
    mapping = _object({"model": half, "lora": half}, required=["model"])
    return {"anyOf": [text, mapping], "description": "path[@revision][+adapter[@revision]]"}


def _tokenizer() -> dict[str, Any]:
    text = {"type": "string"}
    row = _object(
        {"kind": {"const": "model_token"}, "model": _ref("reference"), "token": text}
        | {"token_id": {"type": "integer", "minimum": 0}},
        required=["kind", "model"],
    )
    zero = _object({"kind": {"const": "zero"}}, required=["kind"])
    rule = _object(
        {"source": {"anyOf": [text, row, zero]}, "force": {"type": "boolean"}}, required=[]
    )
    return _object(
        {
            "source": text | {"description": "base, union (the default), or a model"},
            "tokens": {"type": "object", "additionalProperties": rule},
            "pad_to_multiple_of": {"type": "integer", "minimum": 1},
        },
        required=[],
    )


def _parameters() -> dict[str, Any]:
    found: dict[str, Parameter] = {}
    methods: dict[str, list[str]] = {}
    for signature in SIGNATURES.values():
        for parameter in signature.parameters:
            found[parameter.name] = parameter
            methods.setdefault(parameter.name, []).append(signature.name)
    return {
        name: {
            "allOf": [_ref("setting")],
            "description": f"{parameter.doc} ({', '.join(methods[name])})",
        }
        for name, parameter in found.items()
    }


def _setting() -> dict[str, Any]:
    value = {"type": ["number", "boolean", "string"]}
    filtered = _object({"filter": {"type": "string"}, "value": {}}, required=["value"])
    return {"anyOf": [value, _ref("gene"), {"type": "array"}, filtered]}


def _gene() -> dict[str, Any]:
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    per = {"enum": ["model", "layer_group", "filter"]}
    return _object(
        {
            "float": numbers,
            "int": numbers,
            "choice": {"type": "array", "minItems": 2},
            "init": {"description": "where the search starts"},
            "log": {"type": "boolean", "description": "geometric scale"},
            "per": {"anyOf": [per, _list(per)], "description": "one gene for each of these"},
            "gradient": {"type": "integer", "minimum": 2, "description": "points over depth"},
        },
        required=[],
    ) | {"anyOf": [{"required": [kind]} for kind in ("float", "int", "choice")]}


def _object(properties: dict[str, Any], *, required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"}
