"""Peak memory of this process or device.

In: a device. Out: bytes. On CUDA the allocator's peak since the last reset; elsewhere the peak
resident set of the process, which the system keeps since its start and cannot be reset.
"""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows has no resource module
    resource = None  # type: ignore[assignment]


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak bytes; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
