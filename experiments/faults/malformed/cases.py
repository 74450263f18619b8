"""What a case is, and the sound things that cases are copies of."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import yaml12
from experiments.faults.malformed.world import INLINE, World

Prepare = Callable[[Path, World], list[object]]
"""Makes the input in an empty folder and returns the arguments of the command line."""


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        kind: what is malformed.
        name: how.
        prepare: see `Prepare`.
        mentions: what the message must name, usually the file.
        random: whether it may turn out to be sound after all.
    """

    kind: str
    name: str
    prepare: Prepare
    mentions: str = ""
    random: bool = False


def merging(folder: Path, recipe: object) -> list[object]:
    """Arguments that merge `recipe` into `folder`/out."""
    (folder / "recipe.yaml").write_text(
        recipe if isinstance(recipe, str) else yaml12.dumps(recipe), encoding="utf-8"
    )
    return ["merge", folder / "recipe.yaml", folder / "out"]


def merging_model(folder: Path, model: object) -> list[object]:
    """Arguments that copy one model through a merge."""
    return merging(folder, {"merge_method": "passthrough", "models": [{"model": str(model)}]})


def evaluating(folder: Path, world: World, model: Path) -> list[object]:
    """Arguments that score a model on the sound task."""
    return scoring(folder, model, world.tasks)


def scoring(folder: Path, model: Path, tasks: Path) -> list[object]:
    """Arguments that score a sound model on the task `pick` in a folder."""
    objective = {"include": [str(tasks)], "tasks": [{"task": "pick", "metric": "acc"}]}
    (folder / "suite.yaml").write_text(yaml12.dumps({"objective": objective}))
    return ["evaluate", model, "--suite", folder / "suite.yaml"]


def searching(folder: Path, space: object) -> list[object]:
    """Arguments that search a space."""
    text = space if isinstance(space, str) else yaml12.dumps(space)
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return ["search", "--space", folder / "space.yaml", "--out", folder / "out", *INLINE]


def copied(source: Path, folder: Path, name: str) -> Path:
    """A private copy."""
    return Path(shutil.copytree(source, folder / name, symlinks=True))


def changed(mapping: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A deep copy with the value at "a.b.0" replaced."""
    found: Any = json.loads(json.dumps(mapping))
    *above, last = path.split(".")
    place = found
    for key in above:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return found  # type: ignore[no-any-return]


def spoiled(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with one to four random changes: bits, cuts, repeats, foreign bytes."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + rng.randint(1, 16)]
            case 3:
                data[at:at] = data[max(0, at - rng.randint(1, 64)) : at]
            case 4:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
            case _:
                data[at:at] = rng.choice([b"{", b"}", b"[", b"]", b'"', b"\0", b"&a *a", b"1e999"])
    return bytes(data)
