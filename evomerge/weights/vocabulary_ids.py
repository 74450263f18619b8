"""Token ids inside config files: followed to the tokens' new ids when the tokenizer changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.weights.json_files import read_json
from evomerge.weights.vocabulary import OutputTokens
from evomerge.weights.vocabulary_file import SETTINGS_FILE, Tokens

_ENDINGS = ("_token_id", "_token_ids", "_token_index", "suppress_tokens")


def moved_ids(
    config: Mapping[str, Any], tokens: OutputTokens, donor: Tokens, owner: Path
) -> dict[str, Any]:
    """A copy of a donor's config whose token ids are those of the output.

    Ids move with their token's text. A token that the output lacks gives way to the one that the
    tokenizer's own model has in this role, an id without either becomes None.

    Args:
        config: a parsed config.json or generation_config.json of the donor.
        tokens: the output's.
        donor: the donor's.
        owner: the directory of the model that the output's tokenizer comes from.
    """
    settings = owner / SETTINGS_FILE
    roles = read_json(settings) if settings.exists() else {}
    text_of = {number: token for token, number in donor.items()}

    def moved(key: str, value: Any) -> Any:
        if isinstance(value, list):
            found = [moved(key, entry) for entry in value]
            return list(dict.fromkeys(entry for entry in found if entry is not None))
        if type(value) is not int or value < 0:
            return value
        token = text_of.get(value, "")
        return tokens.ids[token] if token in tokens.ids else _of_role(key, roles, tokens.ids)

    def walked(part: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: walked(value)
            if isinstance(value, Mapping)
            else moved(key, value)
            if key.endswith(_ENDINGS)
            else copy.deepcopy(value)
            for key, value in part.items()
        }

    return walked(config)


def _of_role(key: str, roles: Mapping[str, Any], ids: Tokens) -> int | None:
    """The id of the token that a tokenizer_config.json names as, say, its `eos_token`."""
    value = roles.get(key.removesuffix("_id"))
    text = value.get("content") if isinstance(value, Mapping) else value
    return ids.get(text) if isinstance(text, str) else None
