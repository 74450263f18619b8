"""Keeps this process and its children to themselves: nothing is sent, fetched or found lying about.

A search may be started in a folder that came from a stranger; Python files in it are not imported.
"""

from __future__ import annotations

import os

_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONSAFEPATH": "1",
}
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def go_offline() -> None:
    """Tell the libraries, before they are imported; what a person has set stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def forget_tokens() -> None:
    """Take the Hub's tokens out of the environment of a worker, which fetches nothing.

    Allowed code could still read the file in which `hf auth login` keeps one.
    """
    for name in _SECRETS:
        os.environ.pop(name, None)
