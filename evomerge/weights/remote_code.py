"""Python files that come with a model: which there are, and whether the model needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evomerge.weights.json_files import read_json
from evomerge.weights.vocabulary_file import SETTINGS_FILE

_HUB_BORDER = "--"


def code_files(folder: Path) -> tuple[Path, ...]:
    """The Python files directly in the folder of a model, which are all that may be its code."""
    return tuple(sorted(path for path in folder.glob("*.py") if path.is_file()))


def code_references(folder: Path) -> tuple[str, ...]:
    """What config and tokenizer settings name as code, such as "modeling_x.XForCausalLM".

    Raises:
        InvalidInput: one of the files is damaged.
    """
    found: dict[str, None] = {}
    for name in ("config.json", SETTINGS_FILE):
        if (folder / name).exists():
            found |= dict.fromkeys(_references(read_json(folder / name).get("auto_map")))
    return tuple(found)


def reference_problems(folder: Path) -> list[str]:
    """Why code that the files name cannot be allowed, one line each."""
    files = {path.stem for path in code_files(folder)}
    problems = []
    for reference in code_references(folder):
        module = reference.rpartition(".")[0]
        if _HUB_BORDER in reference:
            problems.append(
                f"{folder}: its code '{reference}' is in another repository: download it into the "
                "folder and name it there"
            )
        elif module not in files:
            problems.append(f"{folder}: its code '{reference}' is not there: download {module}.py")
    return problems


def code_problem(
    folder: Path, config: Mapping[str, Any], known_families: Mapping[str, Any]
) -> str | None:
    """Why a model cannot be loaded without its own code, as one line; None when it can."""
    family = str(config.get("model_type"))
    if family in known_families or not isinstance(config.get("auto_map"), dict):
        return None
    return (
        f"{folder}: a model of type '{family}', which transformers does not have, brings its own "
        f"code: look at its Python files and allow them with --allow-remote-code {folder}"
    )


def _references(auto_map: Any) -> Iterator[str]:
    entries = auto_map.values() if isinstance(auto_map, dict) else ()
    for entry in entries:
        for reference in entry if isinstance(entry, list | tuple) else [entry]:
            if isinstance(reference, str):
                yield reference
