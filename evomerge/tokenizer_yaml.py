"""mergekit's keys `tokenizer_source` and `tokenizer`: how files say whose tokens a merge gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evomerge.signatures import did_you_mean
from evomerge.tokenizer_policy import UNION, ModelRow, TokenizerPolicy, TokenRule, ZeroRow

TOKENIZER_KEYS = ("tokenizer_source", "tokenizer")
_MODEL_TOKEN = "model_token"
_ZERO = "zero"

Report = Callable[[str, str], None]
"""Takes the place of a problem, such as "tokenizer.source", and what is wrong there."""


def read_tokenizer(recipe: Mapping[str, Any], report: Report) -> TokenizerPolicy | None:
    """The tokenizer policy of a recipe's mapping; None when it has none. Problems are reported."""
    source, tokenizer = (recipe.get(key) for key in TOKENIZER_KEYS)
    if source is not None and tokenizer is not None:
        report("tokenizer", "give either 'tokenizer' or 'tokenizer_source', not both")
    if tokenizer is not None:
        return _policy(tokenizer, report)
    return None if source is None else TokenizerPolicy(_text(source, "tokenizer_source", report))


def tokenizer_mapping(policy: TokenizerPolicy | None) -> dict[str, Any]:
    """The policy under mergekit's keys, in the shorter of the two forms; the inverse of reading."""
    if policy is None:
        return {}
    if not policy.tokens and policy.pad_to_multiple_of is None:
        return {"tokenizer_source": policy.source}
    mapping: dict[str, Any] = {"source": policy.source}
    if policy.tokens:
        mapping["tokens"] = {rule.token: _rule_mapping(rule) for rule in policy.tokens}
    if policy.pad_to_multiple_of is not None:
        mapping["pad_to_multiple_of"] = policy.pad_to_multiple_of
    return {"tokenizer": mapping}


def _rule_mapping(rule: TokenRule) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    if isinstance(rule.source, ZeroRow):
        mapping["source"] = {"kind": _ZERO}
    elif rule.source is not None:
        mapping["source"] = _row_mapping(rule.source)
    return mapping | ({"force": True} if rule.force else {})


def _row_mapping(row: ModelRow) -> Any:
    if row.token is None and row.token_id is None:
        return row.model
    mapping: dict[str, Any] = {"kind": _MODEL_TOKEN, "model": row.model}
    if row.token is not None:
        mapping["token"] = row.token
    if row.token_id is not None:
        mapping["token_id"] = row.token_id
    return mapping


def _policy(value: Any, report: Report) -> TokenizerPolicy:
    known = ("source", "tokens", "pad_to_multiple_of")
    if not _is_mapping(value, "tokenizer", known, report):
        return TokenizerPolicy()
    rules = value.get("tokens")
    if rules is None or not _is_mapping(rules, "tokenizer.tokens", None, report):
        rules = {}
    return TokenizerPolicy(
        _text(value.get("source", UNION), "tokenizer.source", report),
        tuple(_rule(token, entry, report) for token, entry in rules.items()),
        _whole(value.get("pad_to_multiple_of"), "tokenizer.pad_to_multiple_of", 1, report),
    )


def _rule(token: Any, value: Any, report: Report) -> TokenRule:
    path = f"tokenizer.tokens.{token}"
    name = _text(token, "tokenizer.tokens", report)
    if value is None or not _is_mapping(value, path, ("source", "force"), report):
        return TokenRule(name)
    force = value.get("force", False)
    if not isinstance(force, bool):
        report(f"{path}.force", f"expected true or false, got {force!r}")
    return TokenRule(name, _source(value.get("source"), f"{path}.source", report), bool(force))


def _source(value: Any, path: str, report: Report) -> ModelRow | ZeroRow | None:
    if value is None:
        return None
    if isinstance(value, str):
        return ModelRow(value)
    kinds = (_MODEL_TOKEN, _ZERO)
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in kinds:
        report(
            path,
            f"expected a model or a mapping with kind: {_MODEL_TOKEN} or {_ZERO}, got {value!r}"
            if kind is None
            else f"unknown kind {kind!r}; {did_you_mean(str(kind), kinds)}",
        )
        return None
    if kind == _ZERO:
        _is_mapping(value, path, ("kind",), report)
        return ZeroRow()
    return _model_token(value, path, report)


def _model_token(value: Mapping[str, Any], path: str, report: Report) -> ModelRow:
    _is_mapping(value, path, ("kind", "model", "token", "token_id"), report)
    token, number = value.get("token"), value.get("token_id")
    if (token is None) == (number is None):
        got = "neither" if token is None else "both"
        report(path, f"expected either 'token' or 'token_id', got {got}")
    return ModelRow(
        _text(value.get("model"), f"{path}.model", report),
        None if token is None else _text(token, f"{path}.token", report),
        _whole(number, f"{path}.token_id", 0, report),
    )


def _is_mapping(value: Any, path: str, known: Sequence[str] | None, report: Report) -> bool:
    if not isinstance(value, Mapping):
        report(path, f"expected a mapping, got {value!r}")
        return False
    for key in value:
        if known is not None and key not in known:
            report(path, f"unknown key '{key}'; {did_you_mean(str(key), known)}")
    return True


def _text(value: Any, path: str, report: Report) -> str:
    if not isinstance(value, str) or not value:
        report(path, f"expected a text, got {value!r}; put it in quotes")
    return str(value)


def _whole(value: Any, path: str, low: int, report: Report) -> int | None:
    if value is not None and (type(value) is not int or value < low):
        report(path, f"expected a whole number of at least {low}, got {value!r}")
    return value if type(value) is int else None
