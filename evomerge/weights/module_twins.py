"""Copies of modules that share every weight and have their own number, hooks and submodules."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

_HOOKS = (
    *(name for name in vars(torch.nn.Module()) if name.endswith("_hooks")),
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


def twin(module: torch.nn.Module, number: int | None = None) -> torch.nn.Module:
    """A module of the same parameters and buffers, by reference, all the way down.

    Where `module` or a part of it knows its place in the model (`layer_idx`), the twin's is
    `number`: caches keep keys and values by it. Hooks of the original are not taken over.
    """
    made = type(module).__new__(type(module))
    made.__dict__.update(module.__dict__)
    for name in _HOOKS:
        made.__dict__[name] = OrderedDict()
    for name in ("_parameters", "_buffers"):
        made.__dict__[name] = dict(module.__dict__[name])
    parts = module.__dict__["_modules"].items()
    made.__dict__["_modules"] = {
        name: None if part is None else twin(part, number) for name, part in parts
    }
    if number is not None and "layer_idx" in made.__dict__:
        made.__dict__["layer_idx"] = number
    return made


def scale_input(module: torch.nn.Module, factor: float) -> None:
    """Multiply the first argument of every call of `module`, the hidden state, by `factor`."""

    def scaled(_: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0] * factor, *arguments[1:])

    module.register_forward_pre_hook(scaled)


def scale_output(module: torch.nn.Module, factor: float) -> None:
    """Multiply what every call of `module` returns, one tensor, by `factor`."""

    def scaled(_: torch.nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return output * factor

    module.register_forward_hook(scaled)
