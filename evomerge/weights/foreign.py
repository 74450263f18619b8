"""The border to transformers where it reads a stranger's files: its errors become one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evomerge.errors import EvomergeError, PreflightFailed
from evomerge.plain_text import one_line


@contextmanager
def read_by_transformers(what: str, fix: str) -> Iterator[None]:
    """Whatever transformers raises over a file is about the file, unless memory or a GPU failed.

    Raises:
        PreflightFailed: it raised; the line begins with `what` and ends with `fix`.
    """
    try:
        yield
    except (EvomergeError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:  # its readers raise whatever they stumble over
        # a panic of the tokenizers library, which is written in Rust, is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if "CUDA error" in str(error) or "DefaultCPUAllocator" in str(error):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        reason = one_line(text, longest=300)
        raise PreflightFailed(f"{what}: transformers cannot read it ({reason}): {fix}") from error
