"""The versions of its dependencies with which this evomerge was tested."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TESTED: Mapping[str, str] = MappingProxyType(
    {
        "accelerate": "1.15.0",
        "cma": "4.5.0",
        "datasets": "5.2.0",
        "jinja2": "3.1.6",
        "lm-eval": "0.4.13",
        "matplotlib": "3.11.2",
        "numba": "0.68.1",
        "numpy": "2.4.6",
        "optuna": "5.0.0",
        "packaging": "26.3",
        "psutil": "7.2.2",
        "pydantic": "2.14.3",
        "pyyaml": "6.0.3",
        "ray": "2.60.0",
        "rich": "15.0.0",
        "safetensors": "0.8.0",
        "tokenizers": "0.23.3",
        "torch": "2.13.0",
        "tqdm": "4.70.1",
        "transformers": "5.23.0",
        "typer": "0.29.2",
        "xxhash": "4.1.0",
    }
)
