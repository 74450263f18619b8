"""Arguments and options that several commands have, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Engine(StrEnum):
    """Where candidates are evaluated."""

    auto = "auto"
    inline = "inline"
    local = "local"
    ray = "ray"


class Target(StrEnum):
    """What to export."""

    recipe = "recipe"
    mergekit = "mergekit"
    model = "model"
    card = "card"


Run = Annotated[Path, typer.Argument(help="A run directory, as made by `evomerge search`.")]
SharedRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run directory, or postgresql://USER@HOST/DATABASE#NAME (--storage)."
    ),
]
SpaceArgument = Annotated[Path, typer.Argument(help="A space file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Budget = Annotated[
    str | None,
    typer.Option(help="Candidates (200), items (20000items) or time (8h); replaces the file's."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Default: one per GPU or core.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. strategy.sigma=0.1."),
]


TaskCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-task-code", metavar="FOLDER", help="Task files below it may run its Python files."
    ),
]
RemoteCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-remote-code", metavar="MODEL", help="This model may run its own Python files."
    ),
]
Pickle = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-pickle", metavar="MODEL", help="Convert this model's pickle files, tensors only."
    ),
]
