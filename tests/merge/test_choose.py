from __future__ import annotations

import pytest

from evomerge.merge import compiler
from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.choose import WORTH_COMPILING, choose_kernels
from evomerge.merge.compiled.kernels import COMPILED


def test_small_work_is_not_compiled() -> None:
    assert choose_kernels(WORTH_COMPILING - 1) is BLOCKWISE
    assert choose_kernels(WORTH_COMPILING) is COMPILED


def test_without_a_compiler_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda _name: None)
    assert choose_kernels(10 * WORTH_COMPILING) is BLOCKWISE
