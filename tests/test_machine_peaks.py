"""Peak rates: measured of this machine beyond its caches, named GPUs from data sheets.

Run alone: ``python -m pytest tests/test_machine_peaks.py``.
"""

import pytest
import torch

from profiling.roofline import machine_peaks
from profiling.roofline.machine_peaks import (
    GPUS,
    last_cache_bytes,
    measure_ceilings,
)


def test_ceilings_of_this_machine_are_measured():
    found = measure_ceilings(torch.device("cpu"), ("float32",), seconds=0.01)
    entry = found.of("float32")
    assert not found.paper
    assert 1e8 < found.copy_bytes_per_s < 1e13
    assert 1e8 < found.read_bytes_per_s < 1e13
    assert 1e8 < entry.gemv_bytes_per_s < 1e13
    assert 1e8 < entry.flops_per_s < 1e16
    assert last_cache_bytes() > 2**18


@pytest.mark.parametrize(
    ("cache", "free", "streamed"),
    [(2**29, 2**35, 2**31), (2**29, 2**32, 2**29), (2**25, None, 2**28), (2**25, 2**28, 2**28)],
)
def test_memory_is_read_beyond_what_the_caches_hold_and_within_what_is_free(
    monkeypatch: pytest.MonkeyPatch, cache: int, free: int | None, streamed: int
):
    monkeypatch.setattr(machine_peaks, "available_bytes", lambda: free)
    assert machine_peaks.uncached_bytes(cache) == streamed


def test_gpus_are_marked_as_paper():
    assert {"H100 SXM", "H200", "A100 80GB SXM", "L4", "RTX PRO 6000"} == set(GPUS)
    assert all(gpu.paper for gpu in GPUS.values())
