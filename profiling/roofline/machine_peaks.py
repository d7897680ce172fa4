"""The peak rates of this machine: measured, not looked up. Also named GPUs, from data sheets.

In: a device and dtypes. Out: :class:`Ceilings` in bytes and operations a second. Each is the best
of several tries, for a ceiling is what nothing exceeds; it takes about a second a dtype.

Data sheet figures are dense (never "with sparsity") and are marked ``paper``: nobody reaches them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from core.memory import available_bytes

CACHE_FALLBACK_BYTES = 32 * 2**20
CACHE_FILES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Ceiling:
    """One dtype. flops: matrix times matrix; gemv: weights streamed by matrix times vector.

    cached_gemv: the same where the weights stay in a processor cache, None on paper.
    """

    dtype: str
    flops_per_s: float
    gemv_bytes_per_s: float
    cached_gemv_bytes_per_s: float | None


@dataclass(frozen=True)
class Ceilings:
    """A machine. copy: bytes read plus bytes written by a large copy; cache_bytes: the last level.

    paper: from a data sheet instead of measured. read: bytes of a large sum, which writes nothing;
    None where it was not measured.
    """

    machine: str
    paper: bool
    copy_bytes_per_s: float
    cache_bytes: int
    dtypes: tuple[Ceiling, ...]
    read_bytes_per_s: float | None = None

    def of(self, dtype: str) -> Ceiling:
        """Return the ceilings of one dtype.

        Raises:
            ValueError: not measured.
        """
        for entry in self.dtypes:
            if entry.dtype == dtype:
                return entry
        known = ", ".join(entry.dtype for entry in self.dtypes)
        raise ValueError(f"{self.machine}: no ceiling for {dtype!r}; there are {known}")

    def bytes_per_s(self, dtype: str, weight_bytes: float) -> float:
        """Return the fastest that weights of this size can be read, again and again."""
        entry = self.of(dtype)
        streamed = max(self.copy_bytes_per_s, entry.gemv_bytes_per_s, self.read_bytes_per_s or 0.0)
        if entry.cached_gemv_bytes_per_s is None or weight_bytes > self.cache_bytes / 2:
            return streamed
        return max(streamed, entry.cached_gemv_bytes_per_s)


def _sheet(name: str, terabytes: float, tensor_tflops: float, float32_tflops: float) -> Ceilings:
    bandwidth = terabytes * 1e12
    halves = [
        Ceiling(kind, tensor_tflops * 1e12, bandwidth, None) for kind in ("bfloat16", "float16")
    ]
    single = Ceiling("float32", float32_tflops * 1e12, bandwidth, None)
    return Ceilings(name, True, bandwidth, 0, (*halves, single))


# Memory TB/s; dense bfloat16 tensor TFLOP/s; float32 TFLOP/s without TF32. NVIDIA data sheets.
GPUS: dict[str, Ceilings] = {
    sheet.machine: sheet
    for sheet in (
        _sheet("H100 SXM", 3.35, 989.4, 66.9),
        _sheet("H200", 4.8, 989.4, 66.9),
        _sheet("A100 80GB SXM", 2.039, 312.0, 19.5),
        _sheet("L4", 0.3, 121.0, 30.3),
        _sheet("RTX PRO 6000", 1.792, 503.8, 126.0),
    )
}


def measure_ceilings(
    device: torch.device, dtypes: Sequence[str] = ("float32", "bfloat16"), *, seconds: float = 0.3
) -> Ceilings:
    """Return what ``device`` can do at most, measured with torch's current number of threads.

    Args:
        device: where.
        dtypes: names of torch dtypes.
        seconds: for each of the measurements, three a dtype and two for all.
    """
    big = device.type == "cuda"
    cache = torch.cuda.get_device_properties(device).L2_cache_size if big else last_cache_bytes()
    with torch.inference_mode():
        num_bytes = 2**30 if big else uncached_bytes(cache) // 2
        source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        source.zero_()
        target = torch.empty_like(source)
        copy = 2 * source.numel() / best_seconds(lambda: target.copy_(source), device, seconds)
        numbers = source.view(torch.float32)
        read = source.numel() / best_seconds(lambda: numbers.sum(), device, seconds)
        found = tuple(
            _measure_dtype(device, getattr(torch, name), cache, seconds) for name in dtypes
        )
    name = torch.cuda.get_device_name(device) if big else f"{torch.get_num_threads()} CPU threads"
    return Ceilings(name, False, copy, cache, found, read)


def _measure_dtype(device: torch.device, dtype: torch.dtype, cache: int, seconds: float) -> Ceiling:
    width = 8192 if device.type == "cuda" else 1536
    square = torch.randn(width, width, device=device).to(dtype)
    gemm = 2 * width**3 / best_seconds(lambda: square @ square, device, seconds)

    def gemv(width: int, total: int) -> float:
        matrix = torch.randn(width, width, device=device).to(dtype)
        size = matrix.numel() * matrix.element_size()
        matrices = [matrix.clone() for _ in range(max(1, total // size))]
        vector = torch.randn(1, width, device=device).to(dtype)

        def once() -> None:
            for weight in matrices:
                F.linear(vector, weight)

        return size * len(matrices) / best_seconds(once, device, seconds)

    streamed = gemv(width=8192 if device.type == "cuda" else 2048, total=uncached_bytes(cache))
    cached = gemv(width=1024, total=0)
    return Ceiling(str(dtype).removeprefix("torch."), gemm, streamed, cached)


def best_seconds(run: Callable[[], Tensor | None], device: torch.device, seconds: float) -> float:
    """Return the shortest of the runs of :func:`run_seconds`."""
    return min(run_seconds(run, device, seconds))


def run_seconds(
    run: Callable[[], Tensor | None], device: torch.device, seconds: float
) -> list[float]:
    """Time at least three runs, and as many more as fit into ``seconds``."""
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 4 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return found[1:]  # the first warms up


def uncached_bytes(cache: int) -> int:
    """Return how much to stream so that nothing is still in a cache when its turn comes again.

    Four times the cache, but an eighth of the free memory at most.
    """
    free = available_bytes()
    most = 4 * cache if free is None else min(4 * cache, free // 8)
    return max(most, 2**28)


def last_cache_bytes() -> int:
    """Return size of the processor's last-level cache; 32 MiB where the system does not say."""
    units = {"K": 2**10, "M": 2**20}
    sizes = [CACHE_FALLBACK_BYTES] if not CACHE_FILES.is_dir() else []
    for file in CACHE_FILES.glob("index*/size"):
        text = file.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes, default=CACHE_FALLBACK_BYTES)
