"""Trains the quickstart's base, READ and WRITE models in under a minute, offline."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LANGUAGE = ROOT / "evals" / "read_write"
RECORD = "parents.json"  # written last: a folder that has it is finished

# The language of the items lives beside the tasks; worker processes inherit this path.
sys.path.append(str(LANGUAGE))


def main() -> None:
    """Makes the parents of one seed unless they are there already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="decides every weight (default: 7)")
    parser.add_argument(
        "--out", type=Path, help="folder to make (default: runs/quickstart-parents/seed-SEED)"
    )
    arguments = parser.parse_args()
    seed: int = arguments.seed
    out: Path = arguments.out or ROOT / "runs" / "quickstart-parents" / f"seed-{seed}"
    if is_finished(out, seed):
        print(f"{out}: the parents of seed {seed} are there already")
    else:
        refuse_foreign_folder(out, seed)
        print(f"training the parents of seed {seed}: under a minute", file=sys.stderr, flush=True)
        make_parents(out, seed)
        print(f"{out}: done")


def is_finished(folder: Path, seed: int) -> bool:
    """Whether `folder` holds undamaged parents of `seed` made by these very scripts."""
    record = read_record(folder)
    return (
        record is not None
        and record.get("seed") == seed
        and record.get("scripts") == scripts_digest()
        and record.get("files") == file_digests(folder)
    )


def refuse_foreign_folder(folder: Path, seed: int) -> None:
    """Stops rather than replace a folder that does not hold older parents of the same seed."""
    record = read_record(folder)
    if record is not None and record.get("seed") != seed:
        fail(f"{folder} holds parents of seed {record.get('seed')}, not {seed}: give another --out")
    if record is None and folder.exists() and any(folder.iterdir()):
        fail(f"{folder} was not made by this script: give another --out, or remove it")


def make_parents(out: Path, seed: int) -> None:
    """Trains into a folder beside `out` that takes its name only when everything is there."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        train_all(partial, seed)
        record = {"seed": seed, "scripts": scripts_digest(), "files": file_digests(partial)}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def train_all(folder: Path, seed: int) -> None:
    """Trains base, then READ and WRITE side by side, and prints a line about each."""
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        base = pool.submit(learn, "base", folder, seed)
        pool.submit(import_training)  # the second process gets ready while the first one trains
        print(base.result(), flush=True)
        specialists = [pool.submit(learn, name, folder, seed) for name in ("read", "write")]
        for specialist in specialists:
            print(specialist.result(), flush=True)


def learn(name: str, folder: Path, seed: int) -> str:
    """Trains one model in a worker process and returns the line to print about it."""
    # Imported here because torch takes seconds, and finished parents need nothing of it.
    from training import learn_parent  # noqa: PLC0415

    return learn_parent(name, folder, seed)


def import_training() -> None:
    """Does the slow imports of `learn` ahead of time."""
    import training  # noqa: F401, PLC0415


def read_record(folder: Path) -> dict[str, object] | None:
    """What was written about finished parents, or None when there is nothing."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        fail(f"{folder / RECORD} is damaged: remove {folder} and run this again")
    return record if isinstance(record, dict) else {}


def scripts_digest() -> str:
    """Changes with every edit of the scripts that decide the weights."""
    scripts = (HERE / "training.py", LANGUAGE / "read_write_language.py")
    return hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the model folders, by path relative to `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(model_files(folder))
    }


def model_files(folder: Path) -> Iterator[Path]:
    """The files one level below `folder`."""
    return (path for path in folder.glob("*/*") if path.is_file())


def fail(message: str) -> NoReturn:
    """Ends with a line for a person and the exit code of wrong usage."""
    print(f"make_parents: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
