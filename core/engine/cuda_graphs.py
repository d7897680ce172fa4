"""Decoding on CUDA without launches: steps recorded once as CUDA graphs and replayed.

In: a runner of graphs (the compiler or a package). Out: a runner and a maker of caches for an
engine. A recorded step reads and writes fixed addresses, so the caches it works on are fixed too:
:class:`Recorder` owns a few and leases each to one request at a time. A request that finds none
free, or whose batch shrank, runs the same compiled code unrecorded.

Why not ``torch.compile(mode="reduce-overhead")``: it records a graph for every set of addresses and
refuses functions that write into their inputs unless these are marked as static; the cache is such
an input, and a new one for each request.

No GPU has run this file yet. Its tests replay by calling again, on the CPU; the one that records
for real carries the marker ``gpu``.

Shapes: B batch, N tokens of a step, S cache slots, V vocabulary.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from core.engine.graphs import Arguments, Graph, Runner
from core.engine.stages import Engine
from core.model.cache import KVCache, allocate_cache
from core.model.config import DecoderConfig

RECORDED = ("decode", "verify")
SMALLEST_CACHE = 256  # slots; a recorded step attends over all of them
MOST_CACHES = 4
MOST_RECORDINGS = 16  # of one cache: widths of drafts
WARM_RUNS = 2  # before recording: compiles, and lets libraries allocate their workspaces

Replay = Callable[[], None]
Record = Callable[[Callable[[], tuple[Tensor, ...]]], Replay]


@dataclass
class CapturedGraph:
    """A recorded step. inputs: its leading arguments, fixed; outputs: what a replay writes."""

    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    replay: Replay


@dataclass
class FixedCache:
    """A cache whose address never changes, and the steps recorded on it by (graph, N)."""

    cache: KVCache
    leased: bool = False
    recordings: dict[tuple[str, int], CapturedGraph] = field(default_factory=dict)


def power_of_two_bucket(length: int, smallest: int = SMALLEST_CACHE) -> int:
    """Return the smallest ``smallest * 2**k`` that holds ``length``."""
    bucket = smallest
    while bucket < length:
        bucket *= 2
    return bucket


def record_on_cuda(call: Callable[[], tuple[Tensor, ...]]) -> Replay:
    """Record what ``call`` launches.

    The warm runs happen on a side stream, as capturing asks (torch.cuda.graphs, "make_graphed").

    Returns:
        A function that launches it again, on the same addresses.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_RUNS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Another thread may allocate while this one records: only its own calls can spoil the capture.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    return graph.replay


class Recorder:
    """Runs graphs, and single steps and verified drafts on leased caches as recordings."""

    def __init__(self, run: Runner, record: Record = record_on_cuda) -> None:
        self._run, self._record = run, record
        self._fixed: list[FixedCache] = []
        self._lock = threading.Lock()

    def new_cache(
        self,
        config: DecoderConfig,
        *,
        batch: int,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KVCache:
        """Lease a fixed cache of these sizes if one is free or may be made, else make any other.

        Args:
            config: the decoder's.
            batch: rows.
            num_slots: positions.
            dtype: of keys and values.
            device: where they live.

        Returns:
            An empty cache.
        """
        with self._lock:
            fixed = self._find(batch, num_slots, dtype, device)
            if fixed is None:
                if len(self._fixed) >= MOST_CACHES:
                    self._forget_one()
                made = allocate_cache(
                    config, batch=batch, num_slots=num_slots, dtype=dtype, device=device
                )
                if len(self._fixed) >= MOST_CACHES:
                    return made  # all of them are in use
                fixed = FixedCache(made)
                self._fixed.append(fixed)
            fixed.leased = True
            with torch.inference_mode():
                for buffer in (*fixed.cache.keys, *fixed.cache.values):
                    buffer.zero_()  # an unwritten slot is masked, but 0 * NaN would still be NaN
            # A cache of the request's own: when the request lets go of it, the lease ends.
            lease = KVCache(fixed.cache.keys, fixed.cache.values, fixed.cache.rows)
        weakref.finalize(lease, self._end, fixed)
        return lease

    def __call__(self, graph: Graph, arguments: Arguments) -> Any:
        """Run ``graph``; a step on a leased cache is recorded the first time and then replayed."""
        fixed = self._owner(graph, arguments)
        if fixed is None:
            return self._run(graph, arguments)
        leading, buffers = arguments[: len(graph.sizes)], arguments[len(graph.sizes) :]
        tokens = leading[0]
        assert tokens is not None
        key = (graph.name, tokens.shape[1])
        if key not in fixed.recordings:
            if len(fixed.recordings) >= MOST_RECORDINGS:
                return self._run(graph, arguments)
            fixed.recordings[key] = self._make(graph, leading, buffers)
        recording = fixed.recordings[key]
        for own, given in zip(recording.inputs, leading, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        recording.replay()
        # Copies: the next replay writes over the recording's own outputs.
        return tuple(output.clone() for output in recording.outputs)

    def _make(self, graph: Graph, leading: Arguments, buffers: Arguments) -> CapturedGraph:
        """Record one step on the real cache, where repeating it writes what it wrote before."""
        inputs = tuple(None if tensor is None else tensor.clone() for tensor in leading)
        outputs: list[Tensor] = []

        def call() -> tuple[Tensor, ...]:
            outputs[:] = self._run(graph, (*inputs, *buffers))
            return tuple(outputs)

        replay = self._record(call)
        return CapturedGraph(inputs, tuple(outputs), replay)

    def _find(
        self, batch: int, num_slots: int, dtype: torch.dtype, device: torch.device
    ) -> FixedCache | None:
        for fixed in self._fixed:
            first = fixed.cache.keys[0]
            same = (first.shape[0], first.shape[1], first.dtype, first.device)
            if not fixed.leased and same == (batch, num_slots, dtype, device):
                return fixed
        return None

    def _forget_one(self) -> None:
        """Give up the oldest cache that nobody uses, with its recordings."""
        for fixed in self._fixed:
            if not fixed.leased:
                self._fixed.remove(fixed)
                return

    def _owner(self, graph: Graph, arguments: Arguments) -> FixedCache | None:
        """Find the leased cache a step works on, if it is one and all of its slots are there."""
        if graph.name not in RECORDED:
            return None
        first = arguments[len(graph.sizes)]
        assert first is not None
        for fixed in tuple(self._fixed):
            own = fixed.cache.keys[0]
            if fixed.leased and own.data_ptr() == first.data_ptr() and own.shape == first.shape:
                return fixed
        return None

    def _end(self, fixed: FixedCache) -> None:
        fixed.leased = False


def recorded_engine(engine: Engine, recorder: Recorder) -> Engine:
    """Run an engine's stages through ``recorder``, with caches that can be recorded on.

    Steps attend over whole caches, whose sizes are powers of two, so that few are ever made.

    Returns:
        The engine.
    """
    return replace(
        engine,
        cache_bucket=power_of_two_bucket,
        slots_in_use=lambda position, num_slots: num_slots,
        new_cache=recorder.new_cache,
    )
