"""Peak memory of this process or device, and what to say when there is no more.

In: a device. Out: bytes. On CUDA the allocator's peak since the last reset; elsewhere the peak
resident set of the process since its start, or since :func:`begin_peak` where Linux allows it. And
:func:`keep_freed_memory`, for speed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from core.errors import UserError
from core.units import format_bytes

try:
    import resource
except ImportError:  # Windows has no resource module
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

STATUS = Path("/proc/self/status")
CLEAR_REFS, NEW_PEAK = Path("/proc/self/clear_refs"), "5"  # proc(5): of the resident set
MEMORY_FILE = Path("/proc/meminfo")
KEPT_BYTES, ADDED_BYTES, LARGEST_BYTES = 128 * 2**20, 32 * 2**20, 32 * 2**20
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # malloc.h
MALLOC_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

# What the CPU allocator says; it raises a plain RuntimeError.
_CPU_WORDS = ("can't allocate memory", "not enough memory", "bad_alloc")
NO_MORE = (
    "memory ran out on {device} ({free}); use a shorter recording, a smaller batch, 'int8' weights "
    "or a smaller model"
)


class OutOfMemory(UserError):
    """A request that needs more memory than there is. The model stays as it was."""


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep up to 128 MiB that were freed, instead of giving them back at once.

    Activations come and go with every layer. glibc returns the end of its heap and takes it again
    page by page, thousands of page faults a recording. Whoever sets it in the environment decides.

    Returns:
        Whether it does so now; other systems and libraries than glibc have no such setting.
    """
    if sys.platform != "linux" or any(name in os.environ for name in MALLOC_SETTINGS):
        return False
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    wanted = (TRIM_THRESHOLD, KEPT_BYTES), (TOP_PAD, ADDED_BYTES), (MMAP_THRESHOLD, LARGEST_BYTES)
    return change is not None and all(change(option, value) == 1 for option, value in wanted)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _CPU_WORDS)


def within_memory(items: Iterator[T], device: torch.device) -> Iterator[T]:
    """Pass ``items`` on; where they run out of memory, give everything back first.

    Yields:
        The items.

    Raises:
        OutOfMemory: an allocation failed.
    """  # noqa: DOC501  (what is not about memory passes through)
    try:
        yield from items
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here, after the handler, is the failed call's stack gone, and with it its tensors.
    raise refusal(device)


def run_within_memory(work: Callable[[], T], device: torch.device) -> T:
    """Call ``work``; where it runs out of memory, raise one clear error.

    Returns:
        Its result.

    Raises:
        OutOfMemory: an allocation failed.
    """
    return next(within_memory((work() for _ in range(1)), device))


def refusal(device: torch.device) -> OutOfMemory:
    """Return the error, having given a GPU its cached memory back."""
    free = "it has no more to give"
    if device.type == "cuda":
        torch.cuda.empty_cache()
        left, total = torch.cuda.mem_get_info(device)
        free = f"{format_bytes(left)} of {format_bytes(total)} are free now"
    return OutOfMemory(NO_MORE.format(device=device, free=free))


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def begin_peak(device: torch.device) -> bool:
    """Begin a new peak, also of this process, which every measurement in it then shares.

    Returns:
        False where the system keeps the peak since the start of the process.
    """
    reset_peak_memory(device)
    if device.type == "cuda":
        return True
    try:
        CLEAR_REFS.write_text(NEW_PEAK)
    except OSError:
        return False
    return True


def peak_memory_bytes(device: torch.device) -> int:
    """Return peak bytes; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():  # Linux: what getrusage says there may be that of the process before exec
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def weight_bytes(model: nn.Module) -> int:
    """Sum the bytes of a model's parameters and buffers, each storage once."""
    found = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return sum(found.values())


def available_bytes() -> int | None:
    """Return the memory that programs can still have; None where the system does not say."""
    if MEMORY_FILE.is_file():
        for line in MEMORY_FILE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
