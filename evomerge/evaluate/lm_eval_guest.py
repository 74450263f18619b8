"""Makes lm-eval a guest in our process: sandboxed templates, no bars, no random state moved."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import sys
from collections.abc import Iterator
from typing import Any

import datasets
import fsspec
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.utils
import numpy as np

from evomerge.evaluate.sandbox import Sandbox

PYTHON_SEED = 0
"""What lm-eval seeds Python's generator with; numpy and torch get the evaluator's seed."""

_REMOTE = ("http", "https", "ftp", "sftp", "ssh", "s3", "s3a", "gs", "gcs", "az", "abfs", "smb")


def prepare() -> None:
    """Replace lm-eval's template environment and silence it; calling it again changes nothing.

    lm-eval renders task templates in an unrestricted environment, in which a task file can run
    any program; there is no option for it, hence the assignments to its modules.
    """
    if isinstance(lm_eval.utils.env, Sandbox):
        return
    lm_eval.utils.env = Sandbox({"regex_replace": lm_eval.utils.regex_replace})
    lm_eval.api.task.tqdm = functools.partial(lm_eval.api.task.tqdm, disable=True)
    lm_eval.api.model.tqdm = functools.partial(lm_eval.api.model.tqdm, disable=True)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    for protocol in _REMOTE:
        fsspec.register_implementation(protocol, _NoNetwork, clobber=True)


class _NoNetwork(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Stands for every remote file system: a data set's own files can name addresses, too."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        del arguments, settings
        raise PermissionError("data sets are read from local files only: nothing is fetched")


@contextlib.contextmanager
def guest(seed: int) -> Iterator[None]:
    """Run lm-eval as its command line does, seeded, and leave the caller's streams as they were.

    The global generators of Python, numpy and torch are restored afterwards; what is printed goes
    to stderr, because results are what the program's stdout is for.
    """
    torch: Any = sys.modules.get("torch")  # the driver process indexes items without torch
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    cpu_state = torch.get_rng_state() if torch else None
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    gpu_states = torch.cuda.get_rng_state_all() if on_gpu else []
    random.seed(PYTHON_SEED)
    np.random.seed(seed)  # noqa: NPY002 - lm-eval and the code of its tasks draw from it
    if on_gpu:
        torch.manual_seed(seed)
    elif torch:
        # a GPU that nobody uses would note the request with a stack trace, in milliseconds
        torch.default_generator.manual_seed(seed)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if torch:
            torch.set_rng_state(cpu_state)
        if gpu_states:
            torch.cuda.set_rng_state_all(gpu_states)
