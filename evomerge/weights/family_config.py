"""What transformers takes a config.json to mean: the defaults of its family filled in; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from evomerge.weights.layout import text_config

PER_LAYER_KEYS = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")
"""Lists with one entry per layer; they are cut and repeated along with the layers."""


def family_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every setting that the family declares, by name; of an unknown family, what the file says."""
    # Imported here: most recipes are checked without it.
    from transformers import CONFIG_MAPPING  # noqa: PLC0415

    family = config.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        return config
    kind = CONFIG_MAPPING[family]
    declared = kind().to_dict().keys()
    settings: dict[str, Any] = kind.from_dict(dict(config)).to_dict()
    return MappingProxyType({key: settings[key] for key in settings if key in declared})


def kinds_of_layers(config: Mapping[str, Any], key: str) -> list[Any] | None:
    """The list `key` (one of PER_LAYER_KEYS) of a model; None when its family has no such list.

    Older files leave the list out, and the family makes it from the layers' numbers. A layer that
    moves must keep its kind, so the list has to be spelled out then.
    """
    written = text_config(config).get(key)
    found = written if isinstance(written, list) else family_config(text_config(config)).get(key)
    return found if isinstance(found, list) else None
