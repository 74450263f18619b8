"""What a worker needs: how people write it, and how many fit on a node."""

from __future__ import annotations

import pytest

from evomerge.errors import InvalidInput
from evomerge.run.resources import WorkerResources, memory_bytes, worker_resources

NODE = {"CPU": 16.0, "GPU": 2.0, "memory": 64e9}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("512MB", 512 * 10**6),
        ("7.5 gib", 15 * 2**29),
        ("1T", 10**12),
        ("4096", 4096),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert memory_bytes(text, "--memory-per-worker") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8 cows", "0GB", "1e3MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--memory-per-worker .*expected a size such as 8GB"):
        worker_resources(1, None, text)


@pytest.mark.parametrize("share", [-0.5, 1.5, 2.0])
def test_a_worker_uses_at_most_one_gpu(share: float) -> None:
    with pytest.raises(InvalidInput, match="expected 0, 1 or a share such as"):
        worker_resources(1, share, None)


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        (WorkerResources(1), 16),
        (WorkerResources(5), 3),
        (WorkerResources(1, 1.0), 2),
        (WorkerResources(1, 0.5), 4),
        (WorkerResources(1, 0.1), 16),
        (WorkerResources(1, 0.2), 10),
        (WorkerResources(1, None, 20 * 10**9), 3),
        (WorkerResources(17), 0),
    ],
)
def test_as_many_fit_as_the_scarcest_resource_allows(
    resources: WorkerResources, count: int
) -> None:
    assert resources.fits(NODE) == count
    assert resources.fits({}) == 0
