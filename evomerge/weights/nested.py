"""Recipes within recipes: each is merged once, kept in the user's cache, and opened as a parent."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evomerge.cache_folder import cache_folder
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.recipe import Recipe
from evomerge.weights.disk_cache import locked
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.stack_plan import check_models
from evomerge.weights.writer import write_model

_FOLDER = "merged"
_ARITHMETIC = "merge 1"
"""To be counted up when the same recipes give other weights."""


def opened(recipe: Recipe, pool: ParentPool) -> ParentPool:
    """A pool with the results of all recipes nested in `recipe`, under the names it has for them.

    Args:
        recipe: what names the nested recipes.
        pool: has all models that they are made from.

    Returns:
        `pool` itself when it has them all, else a new one with more parents. Results are whole
        models on disk; whichever process needs one first merges it, others wait.

    Raises:
        InvalidInput, PreflightFailed, BuildFailed: a nested recipe cannot be merged; lines begin
            with its place in the file.
    """
    missing = {name: inner for name, inner in recipe.nested if not _has(pool, name, inner)}
    if not missing:
        return pool
    return pool.extended({name: _merged(name, inner, pool) for name, inner in missing.items()})


def _has(pool: ParentPool, name: str, inner: Recipe) -> bool:
    """Whether the parent of that name is the result of this recipe, not of another one."""
    if name not in pool.models:
        return False
    folder = pool.directory(name)
    return folder.parent == _cache() and folder.name.startswith(inner.digest)


def _merged(name: str, inner: Recipe, pool: ParentPool) -> Path:
    """The folder of the merged model."""
    try:
        parents = opened(inner, pool).only(inner.referenced_models())
        folder = _cache() / _key(inner, parents)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock"):
            if not folder.exists():
                check_models(inner, parents)
                write_model(inner, Materializer(parents), folder)
    except (InvalidInput, PreflightFailed) as error:
        raise type(error)([f"recipes.{name}: {line}" for line in error.problems]) from None
    return folder


def _cache() -> Path:
    try:
        return cache_folder().resolve() / _FOLDER
    except RuntimeError as error:
        raise InvalidInput(
            "EVOMERGE_CACHE: there is no home folder to cache in: set it to a folder"
        ) from error


def _key(inner: Recipe, parents: ParentPool) -> str:
    """Names everything that the merged weights depend on.

    Fingerprints read samples only. A model in the cache outlives the run, so times count, too.
    """
    try:
        own = version("evomerge")
    except PackageNotFoundError:  # run from a source tree
        own = "unknown"
    facts = [_ARITHMETIC, own]
    for model in inner.referenced_models():
        files = sorted(parents.directory(model).glob("*.safetensors"))
        facts += [parents.fingerprint(model), *(str(file.stat().st_mtime_ns) for file in files)]
    return f"{inner.digest}-{hashlib.sha256(';'.join(facts).encode()).hexdigest()[:16]}"
