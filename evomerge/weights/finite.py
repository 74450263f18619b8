"""Whether a tensor holds NaN or Inf, in one pass without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.errors import BuildFailed

if TYPE_CHECKING:
    from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether no element of a floating tensor is NaN or Inf; exact, allocates nothing.

    Minimum and maximum show it: an Inf is one of them and a NaN makes both NaN. Unlike a sum they
    cannot overflow, and unlike an element-wise test they need no second tensor.
    """
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    low, high = tensor.aminmax()
    return bool(low.isfinite()) and bool(high.isfinite())


def assert_finite(name: str, tensor: Tensor) -> None:
    """Check one merged tensor.

    Raises:
        BuildFailed: `tensor` holds NaN or Inf.
    """
    if not is_finite(tensor):
        raise BuildFailed(
            f"merged tensor '{name}' holds NaN or Inf: expected finite numbers; "
            "check for weights that sum to 0 with normalize, or values too large for the dtype"
        )
